"""Memory of loader processes that is used again."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.sharedctypes import Synchronized

import pytest
import torch
from torch import Tensor

from ibot_cli.data.lent_memory import AHEAD, LentMemory, handed_over
from ibot_cli.data.workers import Key, in_order


class Numbered:
    """Fills memory with the number of its key and counts what it has made."""

    def __init__(self, made: Synchronized[int]) -> None:
        self.made = made

    def __call__(self, keys: list[Key]) -> tuple[Tensor, Tensor, int]:
        first, second = handed_over((len(keys), 2000), torch.uint8), handed_over((3,), torch.uint16)
        first.fill_(keys[0][0])
        second.fill_(keys[0][0])
        with self.made.get_lock():
            self.made.value += 1
        return first, second, first.data_ptr()


def reached(made: Synchronized[int], wanted: int) -> bool:
    """Waits, as long as a slow machine may take, until so many were made."""
    deadline = time.monotonic() + 60
    while made.value < wanted and time.monotonic() < deadline:
        pass
    return made.value >= wanted


@pytest.mark.filterwarnings("error:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_is_overwritten_while_it_is_used(workers: int) -> None:
    """The main process is as slow as it can be: loader processes have made all that they may before it looks."""
    made, total = multiprocessing.Value("i", 0), 12
    parts = in_order(Numbered(made), iter([[(n, 0)] for n in range(total)]), workers=workers, pin_memory=False)
    places = set()
    for number, (first, second, place) in enumerate(parts):
        assert reached(made, min(total, number + 1 + AHEAD * workers))
        assert (first == number).all() and (second == number).all()
        places.add((number % workers, place))
    assert len(places) == workers * (AHEAD + 1)  # used again, not made anew


def test_memory_of_a_round_grows_and_rounds_are_apart() -> None:
    memory = LentMemory(rounds=2)
    memory.turn()
    small, other = memory.tensor((2, 3), torch.uint16), memory.tensor((4,), torch.uint8)
    assert small.shape == (2, 3) and small.is_shared() and small.data_ptr() != other.data_ptr()
    memory.turn()
    apart = memory.tensor((2, 3), torch.uint16)
    assert apart.data_ptr() != small.data_ptr()
    memory.turn()
    large = memory.tensor((2, 30), torch.uint16)
    memory.turn()
    assert memory.tensor((1, 3), torch.uint8).data_ptr() == apart.data_ptr()
    memory.turn()
    assert memory.tensor((30,), torch.uint16).data_ptr() == large.data_ptr()
    assert memory.tensor((0, 4), torch.uint8).shape == (0, 4)


def test_the_main_process_gets_memory_of_its_own() -> None:
    first, second = handed_over((2, 3), torch.uint8), handed_over((2, 3), torch.uint8)
    assert first.data_ptr() != second.data_ptr() and not first.is_shared()

"""Micro-batches in their order, made in this process or by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from ibot_cli.data.lent_memory import AHEAD, next_round
from ibot_cli.errors import DataError

Key = tuple[int, int]
P_co = TypeVar("P_co", covariant=True)
P = TypeVar("P")


class Assembling(Protocol[P_co]):
    """Makes a micro-batch from its (sample, visit) keys; what it gives has a `pin_memory` method for CUDA."""

    def __call__(self, keys: list[Key]) -> P_co:
        """The micro-batch of (sample, visit) keys."""


def in_order(
    assembler: Assembling[P], micro_keys: Iterator[list[Key]], *, workers: int, pin_memory: bool
) -> Generator[P, None, None]:
    """One micro-batch per list of keys, in the order of the lists.

    What lies in `handed_over` memory is overwritten some time after the next micro-batch was taken.

    Args:
        assembler: What makes them; it is sent to the workers.
        micro_keys: The keys of each micro-batch.
        workers: Worker processes, which live as long as the iterator; 0 works in this process.
        pin_memory: Whether the results are put into page-locked memory, for CUDA.

    Raises:
        DataError: As `assembler`, or a worker process ended.
    """
    if workers == 0:
        for keys in micro_keys:
            part: Any = assembler(keys)
            yield part.pin_memory() if pin_memory else part
        return
    with warnings.catch_warnings():  # plans warn of more workers than cores in words of their own
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader = DataLoader(
            _KeyedDataset(assembler),
            batch_sampler=micro_keys,
            num_workers=workers,
            collate_fn=_as_is,
            worker_init_fn=_start_worker,
            pin_memory=pin_memory,
            prefetch_factor=AHEAD,
            generator=torch.Generator(),  # or the loader would advance the global generator
        )
        results = iter(loader)
    try:
        for result in results:
            yield _unpack(result)
    except RuntimeError as error:
        raise _worker_died(error) from error
    finally:
        del results, loader


@dataclass(frozen=True)
class _Failure:
    """An error in a worker, as data: exceptions lose their attributes on the way to the main process."""

    message: str
    hint: str | None
    trace: str


class _KeyedDataset(Dataset[Any], Generic[P]):
    """Whole micro-batches by key list, for torch's loader."""

    def __init__(self, assembler: Assembling[P]) -> None:
        self._assembler = assembler

    def __getitems__(self, keys: list[Key]) -> P | _Failure:
        next_round()
        try:
            return self._assembler(keys)
        except DataError as error:
            return _Failure(error.message, error.hint, traceback.format_exc())
        except Exception as error:
            text = f"A loader process failed: {type(error).__name__}: {error}."
            return _Failure(
                text, "With runtime.workers=0 the failure shows in the main process.", traceback.format_exc()
            )


def _as_is(result: Any) -> Any:
    return result


def _unpack(result: P | _Failure) -> P:
    if isinstance(result, _Failure):
        raise DataError(result.message, hint=result.hint) from RuntimeError(result.trace)
    return result


def _start_worker(worker: int) -> None:
    """One thread per worker; signals to the process group are for the main process, which ends the workers itself."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    """End this worker when the main process was killed: it would wait for ever for somebody to take its results."""
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os._exit(1)


def _worker_died(error: RuntimeError) -> DataError:
    return DataError(
        f"A loader process ended without a result: {str(error).splitlines()[0]}",
        hint="Usually memory or /dev/shm ran out: lower runtime.workers or train.micro_batch_size.",
    )

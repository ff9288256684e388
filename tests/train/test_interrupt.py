"""Signals become a request to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from ibot_cli.train.interrupt import EXIT_CODES, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_told_once(number: signal.Signals) -> None:
    told: list[bool] = []
    before = signal.getsignal(number)
    with StopRequest(lambda: told.append(True)) as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested and stop.signal_number == number
        signal.raise_signal(signal.SIGTERM)
    assert told == [True]
    assert signal.getsignal(number) is before


def test_a_second_interruption_is_an_exception() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with StopRequest() as stop:
            seen.extend([signal.getsignal(signal.SIGINT), stop.requested])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]


def test_exit_codes_are_those_of_shells() -> None:
    assert EXIT_CODES == {signal.SIGINT: 130, signal.SIGTERM: 143}

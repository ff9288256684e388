import multiprocessing
import os
import select
import signal

from ibot_cli.data.workers import Key, in_order

LONG = 1 << 20  # more than a pipe holds, so that a worker waits until its result is taken


def long_results(keys: list[Key]) -> bytes:
    return bytes(LONG)


def be_killed(parent_end: int) -> None:
    os.close(parent_end)
    results = in_order(long_results, iter([[(index, 0)] for index in range(100)]), workers=2, pin_memory=False)  # type: ignore[type-var]
    next(results)
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_end_with_a_main_process_that_is_killed() -> None:
    ours, theirs = os.pipe()  # they hold the other end as long as they live
    main = multiprocessing.get_context("fork").Process(target=be_killed, args=(ours,))
    main.start()
    os.close(theirs)
    main.join()
    assert main.exitcode == -signal.SIGKILL
    ready, _, _ = select.select([ours], [], [], 30)
    os.close(ours)
    assert ready

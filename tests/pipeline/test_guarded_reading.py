"""Reading in child processes: what crashes, hangs or raises costs one result and nothing else."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline import episode_names as elsewhere
from pipeline.errors import InputError
from pipeline.guarded_reading import guarded_map


def behave(item: str | tuple[str, int]) -> object:
    """Does what the item says."""
    what = item if isinstance(item, str) else item[0]
    if what == "crash":
        ctypes.string_at(0)
    if what == "abort":
        os.abort()
    if what == "exit":
        os._exit(7)
    if what == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        while True:
            pass
    if what == "refuse":
        raise InputError("refuse: no such thing: do another")
    if what == "raise":
        raise KeyError("no\nkey")
    if what == "unpicklable":
        return lambda: None
    if what == "pid":
        return os.getpid()
    if what == "nice":
        return os.nice(0)
    if what == "memory":
        return len(np.ones((2**40,), np.uint8))
    return what.upper()


def sleep_and_return(seconds: float) -> float:
    """Comes back late."""
    time.sleep(seconds)
    return seconds


def add(a: int, b: int) -> int:
    """For a partial."""
    return a + b


@pytest.mark.parametrize("workers", [1, 2])
def test_every_fate_is_one_result_in_its_place(workers: int) -> None:
    fates = ["a", "crash", "b", "hang", "refuse", "abort", "raise", "exit", "unpicklable", "memory", "c"]
    results = list(guarded_map(behave, iter(fates), workers=workers, timeout_s=0.5))
    assert [item for item, _ in results] == fates
    said = dict(results)
    assert (said["a"], said["b"], said["c"]) == ("A", "B", "C")
    messages = {item: str(result) for item, result in results if isinstance(result, InputError)}
    assert messages.keys() == set(fates) - {"a", "b", "c"}
    assert messages["crash"] == "crash: reading it crashed (SIGSEGV): the file is damaged"
    assert messages["hang"] == "hang: reading it did not end within 0.5 s: the file is damaged"
    assert messages["refuse"] == "refuse: no such thing: do another"
    assert messages["raise"] == "raise: KeyError: 'no\\nkey'"
    assert "SIGABRT" in messages["abort"] and "exit status 7" in messages["exit"]
    assert "pickle" in messages["unpicklable"] and "MemoryError" in messages["memory"]


def test_results_come_in_the_order_of_the_items_while_later_ones_run() -> None:
    delays = [0.6, 0.0, 0.3, 0.0]
    began = time.monotonic()
    assert [result for _, result in guarded_map(sleep_and_return, delays, workers=2)] == delays
    assert time.monotonic() - began < 5


def test_one_slow_item_neither_loses_the_others_nor_reads_all_of_them_ahead() -> None:
    taken = 0

    def items() -> Iterator[float]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield 0.7 if number == 0 else 0.0

    results = guarded_map(sleep_and_return, items(), workers=2)
    assert next(results)[1] == 0.7
    assert taken < 300
    assert len(list(results)) == 999


def test_workers_are_used_again_and_crashes_are_cheap() -> None:
    """No new interpreter for each call or crash: that would be over 0.1 s each."""
    first, second = (next(guarded_map(behave, ["pid"]))[1] for _ in range(2))
    assert first == second != os.getpid()
    began = time.monotonic()
    assert all(isinstance(result, InputError) for _, result in guarded_map(behave, ["crash"] * 50))
    assert time.monotonic() - began < 3
    assert list(guarded_map(elsewhere.check_id, ["a"])) == [
        ("a", "a")
    ]  # what another module's needs is not ours
    began = time.monotonic()
    assert all(isinstance(result, InputError) for _, result in guarded_map(behave, ["crash"] * 50))
    assert time.monotonic() - began < 3
    nice = next(guarded_map(behave, ["nice"]))[1]
    assert isinstance(nice, int) and nice > os.nice(0)


def test_time_limits_may_depend_on_the_item_and_partials_work() -> None:
    limits = guarded_map(sleep_and_return, [0.3, 0.31], timeout_s=lambda s: 0.05 if s == 0.3 else 30)
    assert [isinstance(result, InputError) for _, result in limits] == [True, False]
    assert list(guarded_map(partial(add, 3), [1, 2])) == [(1, 4), (2, 5)]
    assert list(guarded_map(behave, [])) == []


def test_a_function_that_cannot_be_imported_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="define it in a module"):
        list(guarded_map(lambda item: item, [1]))


def test_it_works_in_a_forked_and_daemonic_process() -> None:
    """As in a data loader's worker; the parent's own children stay the parent's."""
    ours = next(guarded_map(behave, ["pid"]))[1]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    process = context.Process(target=_in_child, args=(sender,), daemon=True)
    process.start()
    assert receiver.poll(30)
    theirs, crashed = receiver.recv()
    process.join(10)
    assert theirs != ours and "SIGSEGV" in crashed
    assert next(guarded_map(behave, ["pid"]))[1] == ours


def _in_child(sender: multiprocessing.connection.Connection) -> None:
    results = [result for _, result in guarded_map(behave, ["pid", "crash"])]
    sender.send((results[0], str(results[1])))


PARENT = """
    import os, sys
    from pathlib import Path
    from pipeline.guarded_reading import guarded_map
    from tests.pipeline.test_guarded_reading import behave
    for item, result in guarded_map(behave, ["pid", "hang"], timeout_s=float(sys.argv[1])):
        print(result if item == "pid" else "ended", flush=True)
"""


@pytest.mark.parametrize("hung", [True, False])
def test_children_do_not_outlive_a_killed_parent(hung: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), "60" if hung else "0.1"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    keeper = psutil.Process(child).parent()
    assert keeper is not None
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    assert not keeper.is_running() or keeper.wait(timeout=10) is None
    assert not psutil.pid_exists(child)


def test_what_was_begun_is_ended_when_nobody_wants_it() -> None:
    results = guarded_map(behave, ["pid", "hang"])
    child = next(results)[1]
    assert isinstance(child, int)
    began = time.monotonic()
    results.close()  # "hang" runs by now
    assert time.monotonic() - began < 5
    assert not psutil.pid_exists(child) or psutil.Process(child).wait(timeout=5) is None

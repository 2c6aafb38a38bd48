"""What one test's libraries do to this process must not reach the next test."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from tests.conftest import take_back_priority


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scheduling as Linux has it")
def test_the_priority_that_a_library_took_is_given_back() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("real-time priority is not to be had here, for libraries neither")
    ended = threading.Event()
    other = threading.Thread(target=ended.wait, daemon=True)
    other.start()
    assert other.native_id is not None
    take_back_priority()
    found = [os.sched_getscheduler(thread) for thread in (0, other.native_id)]
    ended.set()
    assert found == [os.SCHED_OTHER, os.SCHED_OTHER]

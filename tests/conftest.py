"""What all tests share: one thread per library, no network, markers for rare hardware, tiny episodes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.workspace import Workspace
    from tests.tiny_episodes import EpisodeMaker

# Nothing above imports torch, numpy or a hub client, which read these once. One thread: two cores are
# shared, and results then do not depend on the machine. MUJOCO_GL is left to the code, which finds a
# backend by itself.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell that starts the tests in the background has them ignore these, and every process that they start.
for _signal in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.default_int_handler if _signal == signal.SIGINT else signal.SIG_DFL)

REAL_TIME = (
    "test_kinova_",
    "test_kortex_",
    "test_camera",
    "test_collection_",
    "test_live_recording",
    "test_lerobot_record",
    "test_policy_evaluate_robot",
    "test_policy_evaluation_course",
)
"""Modules whose arms and cameras run by the clock and stop, as they must, when the machine stalls for a
fraction of a second, which a shared one does now and then. What fails three times in a row is a fault."""

OPTIONAL = {
    "hardware": "needs a Kinova Gen3, its cameras or an operator's device",
    "kortex": "needs the vendor's kortex_api; drives a simulated arm, or the one at RECAP_KORTEX_ADDRESS",
    "gpu": "needs an NVIDIA GPU",
}
"""Markers of tests that run only where ``pytest -m`` names them."""


def take_back_priority() -> None:
    """Takes the real-time priority away that a library gave to this process.

    SVT-AV1, LeRobot's default video encoder, does so where it runs as root; what is started later would
    inherit it, and two busy processes of that priority leave nothing of two cores to all others.
    """
    if sys.platform.startswith("linux") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has ended meanwhile
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(autouse=True)
def ordinary_scheduling() -> Iterator[None]:
    """No test runs at the priority that one before it left behind."""
    yield
    take_back_priority()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    for name, reason in OPTIONAL.items():
        config.addinivalue_line("markers", f"{name}: {reason}; runs only when asked for with -m {name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what was not asked for, and says why; lets what runs in real time try again."""
    asked = config.getoption("markexpr") or ""
    for item in items:
        if item.path.name.startswith(REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=2))
        for name, reason in OPTIONAL.items():
            if item.get_closest_marker(name) and name not in asked:
                item.add_marker(pytest.mark.skip(reason=f"{reason}; run it with -m {name}"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace with its folders made."""
    from pipeline.workspace import Workspace

    made = Workspace(tmp_path / "workspace")
    made.create()
    return made


@pytest.fixture
def make_episode(workspace: Workspace) -> EpisodeMaker:
    """Writes a tiny real episode into ``workspace`` and returns its entry; see ``EpisodeMaker``."""
    from tests.tiny_episodes import EpisodeMaker

    return EpisodeMaker(workspace)

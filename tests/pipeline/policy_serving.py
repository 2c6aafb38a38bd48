"""A served policy for tests: one whose plans depend on everything it is given, behind a real socket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.episode import POLICY_STATE_NAMES, STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.remote import RemotePolicy
from pipeline.policy.server import PolicyServer, ServedPolicy

TASK = "pick up the red cube"


class Weighing:
    """A policy with the whole interface whose plan depends on every number and pixel, task and seed."""

    cameras: tuple[str, ...] = ("table", "wrist")
    execute_steps = 3
    observed_steps = 1
    subtask: str | None = None

    def __init__(self, checkpoint_name: str = "weighing") -> None:
        """``hold`` can be cleared to let :meth:`plan` take its time."""
        self.checkpoint_name = checkpoint_name
        self._start = 0.0
        self.shapes: list[tuple[int, ...]] = []
        self.hold = threading.Event()
        self.hold.set()

    def reset(self, task: str, seed: int | None = None) -> None:
        """Starts an episode; one task is refused."""
        if task == "impossible":
            raise InputError("no such task")
        self._start = len(task) + (seed or 0)

    def drop_plan(self) -> None:
        """From then on its plans are others."""
        self._start += 100

    def plan(self, observation: dict[str, Any], before: Sequence[dict[str, Any]] | None = None) -> np.ndarray:
        """Float32 (5, 7); for ``before`` see ``test_remote_history``."""
        assert not before, "it looks at one observation"
        assert self.hold.wait(30)
        if observation["gripper.pos"] == 0.75:
            raise RuntimeError("out of\nmemory")
        self.shapes.append(observation["table"].shape)
        pixels = sum(float(observation[camera].mean()) for camera in self.cameras)
        numbers = sum(observation[name] * (i + 1) for i, name in enumerate(POLICY_STATE_NAMES))
        return np.sin(np.arange(35).reshape(5, 7) * 0.1 + pixels + numbers + self._start).astype(np.float32)

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """Float32 (7,)."""
        first: np.ndarray = self.plan(observation)[0]
        return first


def observation(seed: int = 0, height: int = 48, width: int = 64) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {name: float(rng.normal()) for name in STATE_NAMES}
    for camera in ("table", "wrist"):
        values[camera] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return values


@contextlib.contextmanager
def serving(policy: ServedPolicy, **options: Any) -> Iterator[PolicyServer]:
    """A server in a thread, on a port that the system chose."""
    options = {"handover_s": 0.05, "port": 0} | options
    with PolicyServer(policy, **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.close()
        thread.join(10)
        assert not thread.is_alive()


def drives(url: str, token: str | None = None) -> bool:
    """Whether a new client can drive, and gets the right plan: the server has come to no harm."""
    local = Weighing()
    local.reset(TASK, 1)
    with RemotePolicy(url, token) as remote:
        remote.reset(TASK, 1)
        return np.array_equal(remote.plan(observation(3)), local.plan(observation(3)))

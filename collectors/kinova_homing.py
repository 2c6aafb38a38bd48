"""The one motion that the arm makes by itself: the way to its Home pose, on the operator's word."""

from __future__ import annotations

import threading
import time

import numpy as np

from collectors.kinova_client import CommandClient
from collectors.kinova_units import nearest_turn
from pipeline.gen3_kinematics import HOME

HOME_WITHIN_S = 60.0
AT_HOME_RAD = 0.05


class HomeMotion:
    """A way home that is under way from construction on; the arm tells its end from another thread."""

    def __init__(self, client: CommandClient) -> None:
        """Starts it, at the arm's own speed. Raises ``CallError``; then nothing moves."""
        self._ended = threading.Event()
        self._went_well = False
        self._deadline = time.monotonic() + HOME_WITHIN_S
        client.go_to_joints(HOME, self._end)

    def result(self, joints: np.ndarray | None, abandoned: bool) -> str | None:
        """``None`` on the way, "" at its end, else why the arm is to be stopped on the way.

        ``joints`` (7,) in rad are measured: an end that the arm reports far from Home is another motion's.
        ``abandoned``: nobody waits for it any more.
        """
        if self._ended.is_set() and not self._went_well:
            return "the arm gave up on its way home; see what is in its way"
        away = np.inf if joints is None else np.abs(nearest_turn(joints, HOME) - HOME).max()
        if self._ended.is_set() and away < AT_HOME_RAD:
            return ""
        if abandoned:
            return "stopped on the way home: nobody waits for it"
        return (
            None if time.monotonic() < self._deadline else f"not home within {HOME_WITHIN_S:.0f} s; stopped"
        )

    def _end(self, well: bool) -> None:
        self._went_well = well
        self._ended.set()

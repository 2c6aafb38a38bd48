"""Motion input from a pause: what a person did with the stick meanwhile does not count when it goes on."""

from __future__ import annotations

from collections.abc import Mapping

from lerobot.teleoperators.utils import TeleopEvents

from collectors.loop_interface import OperatorLike
from pipeline.episode import ACTION_NAMES


class StaleInput:
    """Tells a take-over from input that is left over from a pause.

    A device counts as driving for a while after it was let go (``release_after_s``). So what was held in a
    pause is ignored until the device says that nobody drives, or until it was let go and is moved again.
    """

    def __init__(self) -> None:
        """Nothing is left over."""
        self._is_stale = self._was_let_go = False

    def note_pause(self, events: Mapping[TeleopEvents, bool]) -> None:
        """Takes the events of a paused step."""
        self._is_stale = bool(events.get(TeleopEvents.IS_INTERVENTION, False))
        self._was_let_go = False

    def is_fresh(self, events: Mapping[TeleopEvents, bool], operator: OperatorLike) -> bool:
        """Whether a person drives in this step, which is not paused."""
        if not events.get(TeleopEvents.IS_INTERVENTION, False):
            self._is_stale = False
            return False
        if self._is_stale:
            action = operator.get_action()
            moves = any(float(action[name]) for name in ACTION_NAMES[:-1])
            self._is_stale = not (moves and self._was_let_go)
            self._was_let_go = self._was_let_go or not moves
        return not self._is_stale

"""Who drives, by the operator's own input: touching the controls takes the arm, letting go hands it back."""

from __future__ import annotations

import math
import time

from pipeline.errors import InputError


class TakeOver:
    """The operator drives from the first input until ``release_after_s`` after the last one.

    Taking over has no delay and needs no key: a person who sees the arm do wrong must not have to think.
    Handing back waits, so that the pauses of a hand at work do not give the arm away.
    """

    def __init__(self, release_after_s: float = 0.5) -> None:
        """``release_after_s`` in seconds, 0 or more; ``InputError`` otherwise."""
        if not (math.isfinite(release_after_s) and release_after_s >= 0):
            raise InputError(
                f"release_after_s is {release_after_s}; it must be a number of seconds, 0 or more"
            )
        self.release_after_s = release_after_s
        self._last_active = -math.inf
        self._driving = False

    @property
    def driving(self) -> bool:
        """Whether the operator drives, as of the last ``update``."""
        return self._driving

    def update(self, active: bool, now: float | None = None) -> bool:
        """Takes whether there is input at ``now`` (monotonic seconds); tells whether the operator drives."""
        now = time.monotonic() if now is None else now
        if active:
            self._last_active = now
            self._driving = True
        elif now - self._last_active >= self.release_after_s:
            self._driving = False
        return self._driving

    def reset(self) -> None:
        """Hands back at once, as between two episodes."""
        self._last_active = -math.inf
        self._driving = False

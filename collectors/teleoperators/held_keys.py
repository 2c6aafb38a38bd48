"""Which keys are held, told from a terminal's key repeats: a terminal never says that a key was let go."""

from __future__ import annotations

TAP_S = 0.1
"""How long a first press counts as held: until repeats come nobody knows whether it is."""
HOLD_S = 0.2
"""How long after a repeat a key counts as held: two periods of the slowest usual repeat rate, 11 a second."""
RAMP_S = 0.6
FIRST_DEFLECTION = 0.4


class HeldKeys:
    """A tap is a short nudge; held keys speed up over :data:`RAMP_S`; without repeats everything stops."""

    def __init__(self) -> None:
        """No key is held."""
        self._pressed_at: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._until: dict[str, float] = {}

    def press(self, key: str, now: float) -> None:
        """Takes a press or a repeat of ``key`` at ``now`` (seconds)."""
        repeats = now - self._pressed_at.get(key, float("-inf")) < HOLD_S
        if not repeats:
            self._since[key] = now
        self._pressed_at[key] = now
        self._until[key] = now + (HOLD_S if repeats else TAP_S)

    def deflection(self, key: str, now: float) -> float:
        """0 when ``key`` is not held at ``now``, else :data:`FIRST_DEFLECTION` rising to 1."""
        if now >= self._until.get(key, float("-inf")):
            return 0.0
        return min(1.0, FIRST_DEFLECTION + (1.0 - FIRST_DEFLECTION) * (now - self._since[key]) / RAMP_S)

    def release(self, key: str) -> None:
        """``key`` counts as let go."""
        self._until.pop(key, None)

    def release_all(self) -> None:
        """Nothing is held any more."""
        self._pressed_at.clear()
        self._since.clear()
        self._until.clear()

"""What all hand-held devices have to be told: how fast, how sensitive, which way is forward."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lerobot.teleoperators import TeleoperatorConfig

from pipeline.errors import InputError

FRAMES = ("base", "tool")
GRIPPERS = ("rate", "toggle")


@dataclass(kw_only=True)
class DeviceOperatorConfig(TeleoperatorConfig):
    """Settings that every device shares; wrong ones raise ``InputError`` when it is built."""

    max_linear_speed: float = 0.2
    """Speed of the tool at full deflection, m/s; the arm's own limits apply besides."""
    max_angular_speed: float = 0.8
    """Turning speed of the tool at full deflection, rad/s."""
    slow_factor: float = 0.3
    """What slow mode multiplies both speeds with, above 0 up to 1."""
    dead_zone: float = 0.1
    """Share of the deflection that counts as letting go, 0 to below 1."""
    curve: float = 0.5
    """0: speed grows evenly with deflection; 1: cubically, finer near the middle."""
    frame: str = "base"
    """Which axes the device's axes mean: ``base`` (forward, left, up of the arm's base) or ``tool``."""
    facing_deg: float = 0.0
    """Where the operator looks, in base: 0 along its x axis (from behind the arm), 180 towards the arm."""
    gripper: str = "rate"
    """``rate``: held controls open and close it; ``toggle``: a press closes or opens it whole."""
    gripper_speed: float = 1.0
    """Full strokes per second in ``rate`` mode."""
    release_after_s: float = 0.5
    """How long after the last input the arm is handed back to a policy, s."""

    def __post_init__(self) -> None:
        """Rejects settings that make no sense."""
        for name in ("max_linear_speed", "max_angular_speed", "gripper_speed"):
            self._check(name, 0.0 < getattr(self, name) < math.inf, "above 0")
        self._check("slow_factor", 0.0 < self.slow_factor <= 1.0, "above 0 and at most 1")
        self._check("dead_zone", 0.0 <= self.dead_zone < 1.0, "0 or more and below 1")
        self._check("curve", 0.0 <= self.curve <= 1.0, "from 0 to 1")
        self._check("facing_deg", math.isfinite(self.facing_deg), "a number of degrees")
        self._check("release_after_s", 0.0 <= self.release_after_s < math.inf, "0 s or more")
        self._check("frame", self.frame in FRAMES, " or ".join(FRAMES))
        self._check("gripper", self.gripper in GRIPPERS, " or ".join(GRIPPERS))

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise InputError(f"{self.type}: {name} is {getattr(self, name)!r}; it must be {expected}")

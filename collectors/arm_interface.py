"""What an arm may offer beyond LeRobot's ``Robot``, so that one loop can run any robot and use more of ours.

A robot that lacks some of it is driven all the same: see :func:`condition_of` and its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipeline.errors import Failure


class ArmStopped(Failure):
    """The arm has stopped and takes no commands: a fault, a lost connection, an emergency stop.

    The message is one line for the operator: what happened, and what to do. Raised by ``send_action`` and
    ``get_observation``. Whoever records keeps the episode, marks it and asks the operator.
    """


@dataclass(frozen=True)
class ArmCondition:
    """How the arm is, in words for the operator's screen.

    ``stopped`` is why it takes no commands (``None`` when it does). ``limits`` says which limits scale or
    block the motion at this moment, for example ``"workspace: held at z = 0.02 m"``.
    """

    stopped: str | None = None
    limits: tuple[str, ...] = ()


@runtime_checkable
class StoppableArm(Protocol):
    """An arm with an emergency stop, and faults that only its operator clears; callable from any thread."""

    def emergency_stop(self) -> None:
        """Stops the arm at once and for good, until ``clear_faults``; returns without waiting for it."""
        ...

    def clear_faults(self) -> None:
        """Makes a stopped arm usable again, on the operator's word; ``ArmStopped`` where it stays stopped."""
        ...

    @property
    def condition(self) -> ArmCondition:
        """How the arm is now; never waits."""
        ...


def condition_of(robot: Any) -> ArmCondition:
    """The arm's condition; an arm that does not tell is taken to be well."""
    return robot.condition if isinstance(robot, StoppableArm) else ArmCondition()


def capture_times_ns(robot: Any, now_ns: int, cameras: tuple[str, ...]) -> dict[str, int]:
    """When each camera's image in the latest observation was taken, ns since 1970; ``now_ns`` where unknown.

    A robot tells by an attribute ``capture_times_ns``, a mapping from camera name to time.
    """
    known: Mapping[str, int] = getattr(robot, "capture_times_ns", {})
    return {camera: known.get(camera, now_ns) for camera in cameras}


def lost_cameras(robot: Any) -> dict[str, str]:
    """Cameras that give no new images, name to why in words, from the robot's attribute ``lost_cameras``."""
    return dict(getattr(robot, "lost_cameras", {}))

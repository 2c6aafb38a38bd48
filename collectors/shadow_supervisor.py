"""Would a person have taken over? Watches a policy that drives alone, and never acts.

In simulation nobody corrects a policy that is evaluated. A scripted supervisor, the one that corrects
rollouts, looks over its shoulder instead and notes the first moment at which it would have taken over. Only
the first: what the policy did from there on it would not have done, since a person would have had the arm. So
an episode counts once or not at all, and the share of such episodes is a lower bound of the interventions
that would have been needed.
"""

from __future__ import annotations

import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from collectors.scripted_supervisor import ScriptedSupervisor, Trouble
from collectors.simulated_gen3 import SimulatedGen3
from collectors.simulated_sessions import observer


class ShadowSupervisor:
    """An operator who only ends the episode when it is decided, as an observer does, and takes that note.

    Per episode: ``robot.prepare``, ``begin(task)``, then ``get_teleop_events()`` once a control step.
    """

    def __init__(self, robot: SimulatedGen3) -> None:
        """Watches ``robot``; it changes nothing there, and the episode goes as with an observer alone."""
        self._observer = observer(robot)
        # Its random numbers say how a person would move and when they would hand back: neither is asked.
        self._watcher = ScriptedSupervisor(robot, np.random.default_rng(0))

    def begin(self, task: str) -> None:
        """Gets ready to watch an episode of ``task``; raises ``InputError`` for an unknown one."""
        self._observer.begin(task)
        self._watcher.begin(task)

    @property
    def trouble(self) -> Trouble | None:
        """Why a person would have taken over first in this episode; ``None`` where nobody would have."""
        return self._watcher.trouble if self._watcher.takeovers else None

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Looks once; tells whether the episode is over, and never that a person has the arm."""
        if not self._watcher.takeovers:
            self._watcher.get_teleop_events()
        return self._observer.get_teleop_events()

    def get_action(self) -> dict[str, float]:
        """Never asked for: nobody takes over."""
        return self._observer.get_action()

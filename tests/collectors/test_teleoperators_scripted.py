"""The scripted people pass the part of the operators' suite that needs no hand on a device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from collectors.operators import ScriptedOperator, SkilledSkill
from collectors.simulated_gen3 import TASKS, SimulatedGen3, SimulatedGen3Config
from tests.contracts.operator_contract import OperatorContract


class TestScriptedOperator(OperatorContract):
    """A person who demonstrates on the simulated arm."""

    @pytest.fixture
    def operator(self) -> Iterator[ScriptedOperator]:
        """At the start of an episode."""
        with SimulatedGen3(SimulatedGen3Config(cameras=())) as robot:
            robot.prepare(TASKS[0], 0)
            operator = ScriptedOperator(robot, SkilledSkill(), np.random.default_rng(0))
            operator.connect()
            operator.begin(TASKS[0])
            yield operator

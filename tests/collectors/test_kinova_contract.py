"""The suite that every arm passes, for kinova_gen3, in real time: driver process and network in between.

Over the simulated arm by default; ``-m kortex`` uses the vendor's client, and a real arm where one is named.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from lerobot.robots import Robot

from collectors.config_simulated_camera import SimulatedCameraConfig
from collectors.kinova_gen3 import KinovaGen3, KinovaGen3Config
from tests.collectors.kinova_arms import PATIENT_S
from tests.contracts.robot_contract import RobotContract
from tests.kortex_stand_in.arm_fixture import ArmEndpoint, kortex_arm

__all__ = ["kortex_arm"]  # the fixture, by its name


class TestKinovaGen3Contract(RobotContract):
    """With two simulated cameras."""

    attempts = 4

    @pytest.fixture(autouse=True)
    def _arm(self, kortex_arm: ArmEndpoint) -> Iterator[None]:
        self.arm = kortex_arm
        yield
        assert kortex_arm.simulated is None or kortex_arm.simulated.violations == []

    def make_robot(self) -> Robot:
        """Cameras of 64 by 48 pixels."""
        cameras = {name: SimulatedCameraConfig(width=64, height=48, fps=30) for name in ("table", "wrist")}
        config = KinovaGen3Config(
            ip=self.arm.address,
            tcp_port=self.arm.tcp_port,
            udp_port=self.arm.udp_port,
            username=self.arm.username,
            password=self.arm.password,
            cameras=cameras,
            stop_after_s=PATIENT_S,
        )
        return KinovaGen3(config)

    def in_force_s(self, gaps_s: np.ndarray) -> float:
        """Real time; a busy machine's longer gaps end with the driver's zero twist."""
        return float(np.minimum(gaps_s, KinovaGen3Config().zero_after_s).sum())

    def wait_step(self) -> None:
        """One period of the real clock."""
        time.sleep(1 / self.rate_hz)

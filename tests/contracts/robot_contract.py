"""What every arm that speaks the project's observation and action must do: one suite, a subclass per arm."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lerobot.robots import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from pipeline.episode import ACTION_NAMES, CAMERAS, STATE_NAMES, action_to_dict, state_from_observation
from pipeline.errors import InputError
from pipeline.gen3_kinematics import rotation_from_quaternion


class RobotContract(ABC):
    """Subclass as ``Test…`` and give :meth:`make_robot`; the arm must start where it can move 5 cm any way.

    An arm that runs by a clock of its own overrides :meth:`wait_step` to let one control period pass.
    """

    rate_hz = 10.0
    max_linear_speed = 0.25  # m/s
    max_angular_speed = 1.0  # rad/s
    attempts = 1  # at a motion; an arm in real time needs more than one where the machine may stall
    driven_s = 0.0  # how long the latest drive was in force
    tracking = 0.15  # how far a motion may be off, as a share of what was commanded

    @abstractmethod
    def make_robot(self) -> Robot:
        """A new robot, not connected."""

    def wait_step(self) -> None:
        """Lets one control period pass; a simulated arm advances in ``send_action`` itself."""
        return

    @pytest.fixture
    def robot(self) -> Iterator[Robot]:
        """A connected robot, disconnected afterwards."""
        robot = self.make_robot()
        robot.connect()
        yield robot
        robot.disconnect()

    def drive(self, robot: Robot, action: np.ndarray, steps: int) -> list[dict[str, Any]]:
        """Sends the same action (7,) for some control steps; what was sent each time."""
        sent, times = [], []
        for _ in range(steps):
            sent.append(robot.send_action(action_to_dict(action)))
            times.append(time.monotonic())
            self.wait_step()
        self.driven_s = self.in_force_s(np.diff([*times, time.monotonic()]))
        return sent

    def in_force_s(self, gaps_s: np.ndarray) -> float:
        """For how long an action was in force that was sent with these gaps (n,) after each time.

        A simulated arm's time is counted in steps; an arm that runs by a clock of its own overrides this.
        """
        return len(gaps_s) / self.rate_hz

    def hold(self, robot: Robot) -> np.ndarray:
        """The action (7,) that moves nothing."""
        return np.array([0.0] * 6 + [robot.get_observation()["gripper.pos"]])

    @staticmethod
    def pose(robot: Robot) -> tuple[np.ndarray, np.ndarray]:
        """Tool position (3,) and rotation matrix (3, 3) as observed."""
        pose = state_from_observation(robot.get_observation())["tool_pose"]
        return pose[:3].astype(float), rotation_from_quaternion(pose[3:])

    def test_features_are_known_without_connecting(self) -> None:
        """Names and their order are the schema's; nothing else, such as success, is observed."""
        robot = self.make_robot()
        features = robot.observation_features
        assert tuple(robot.action_features) == ACTION_NAMES
        assert tuple(features)[: len(STATE_NAMES)] == STATE_NAMES
        assert set(features) - set(STATE_NAMES) <= set(CAMERAS)
        assert not robot.is_connected

    def test_unconnected_robot_refuses(self) -> None:
        """Observing and acting need a connection; disconnecting does not."""
        robot = self.make_robot()
        with pytest.raises(DeviceNotConnectedError):
            robot.get_observation()
        with pytest.raises(DeviceNotConnectedError):
            robot.send_action(action_to_dict(np.zeros(7)))
        robot.disconnect()

    def test_connect_twice_is_an_error_and_reconnecting_works(self, robot: Robot) -> None:
        """LeRobot's convention for connect; a second disconnect is harmless."""
        assert robot.is_connected
        with pytest.raises(DeviceAlreadyConnectedError):
            robot.connect()
        robot.disconnect()
        robot.disconnect()
        assert not robot.is_connected
        with pytest.raises(DeviceNotConnectedError):
            robot.get_observation()
        robot.connect()
        assert set(robot.get_observation()) == set(robot.observation_features)

    def test_observation_has_the_features_types_and_shapes(self, robot: Robot) -> None:
        """A Python float per number, uint8 RGB per camera, and exactly the announced names."""
        observation = robot.get_observation()
        features = robot.observation_features
        assert set(observation) == set(features)
        for name in STATE_NAMES:
            assert isinstance(observation[name], float), name
            assert np.isfinite(observation[name]), name
        for camera in set(features) - set(STATE_NAMES):
            assert observation[camera].shape == features[camera]
            assert observation[camera].dtype == np.uint8
            assert observation[camera].std() > 1, f"{camera} sees nothing"

    def test_images_are_not_reused(self, robot: Robot) -> None:
        """A kept observation must not change when the next one is taken."""
        cameras = [c for c in CAMERAS if c in robot.observation_features]
        before = robot.get_observation()
        kept = {c: before[c].copy() for c in cameras}
        self.drive(robot, np.array([0.1, 0.1, 0, 0, 0, 0.5, 1.0]), 3)
        robot.get_observation()
        for camera in cameras:
            np.testing.assert_array_equal(before[camera], kept[camera])

    def test_quaternion_is_unit(self, robot: Robot) -> None:
        """Unit length, at the start and after turning."""
        for twist in (np.zeros(7), np.array([0, 0, 0, 0.3, -0.2, 0.5, 0.0])):
            self.drive(robot, twist, 4)
            pose = state_from_observation(robot.get_observation())["tool_pose"]
            assert np.linalg.norm(pose[3:]) == pytest.approx(1.0, abs=1e-5)

    def test_zero_twist_holds_still(self, robot: Robot) -> None:
        """Also right after a motion: at most 1 mm and 0.2° in a second."""
        self.drive(robot, np.array([0.05, 0.05, -0.02, 0, 0, 0.2, 0.0]), 5)
        self.drive(robot, self.hold(robot), 3)
        position, rotation = self.pose(robot)
        self.drive(robot, self.hold(robot), 10)
        moved, turned = self.pose(robot)
        assert np.linalg.norm(moved - position) < 1e-3
        assert np.linalg.norm(turned - rotation) < np.deg2rad(0.2) * np.sqrt(2)

    @pytest.mark.parametrize("axis", range(6))
    @pytest.mark.parametrize("sign", [-1.0, 1.0])
    def test_twist_moves_the_tool_in_the_base_frame(self, robot: Robot, axis: int, sign: float) -> None:
        """A second along or about one axis of base: that motion, and nearly nothing else."""
        for attempt in range(1, self.attempts + 1):
            try:
                self._check_one_motion(robot, axis, sign)
                return
            except AssertionError:
                if attempt == self.attempts:
                    raise
            self.drive(robot, self.hold(robot), 5)
            sign = -sign  # back to where there is room

    def _check_one_motion(self, robot: Robot, axis: int, sign: float) -> None:
        speed = 0.05 if axis < 3 else 0.2
        action = self.hold(robot)
        action[axis] = sign * speed
        position, rotation = self.pose(robot)
        self.drive(robot, action, round(self.rate_hz))
        seconds = self.driven_s
        self.drive(robot, self.hold(robot), 3)
        moved, turned = self.pose(robot)
        spin = turned @ rotation.T
        angles = np.array([spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]]) / 2
        expected = np.zeros(6)
        expected[axis] = sign * (speed * seconds if axis < 3 else np.sin(speed * seconds))
        np.testing.assert_allclose(moved - position, expected[:3], atol=self.tracking * 0.05)
        np.testing.assert_allclose(angles, expected[3:], atol=self.tracking * 0.2)

    def test_action_within_limits_is_sent_unchanged(self, robot: Robot) -> None:
        """What comes back is what was asked for, to float32."""
        action = np.array([0.02, -0.03, 0.04, 0.1, -0.2, 0.3, 0.5])
        sent = self.drive(robot, action, 1)[0]
        assert tuple(sent) == ACTION_NAMES
        np.testing.assert_allclose([sent[n] for n in ACTION_NAMES], action, atol=1e-6)

    def test_action_beyond_limits_is_clipped_and_reported(self, robot: Robot) -> None:
        """Never faster than the limit, never the other way; the caller's dictionary stays as it was."""
        wanted = action_to_dict(np.array([9.0, -9.0, 9.0, -9.0, 9.0, -9.0, 7.0]))
        before = dict(wanted)
        sent = np.array(list(robot.send_action(wanted).values()))
        assert wanted == before
        assert np.all(np.abs(sent[:3]) <= self.max_linear_speed + 1e-6)
        assert np.all(np.abs(sent[3:6]) <= self.max_angular_speed + 1e-6)
        assert np.all(sent[:6] * np.array([1, -1, 1, -1, 1, -1]) > 0)
        assert sent[6] == 1.0
        self.wait_step()
        opened = self.drive(robot, np.array([0, 0, 0, 0, 0, 0, -3.0]), 1)[0]
        assert opened["gripper.target"] == 0.0

    @pytest.mark.parametrize("bad", [np.nan, np.inf, None])
    def test_bad_action_is_refused(self, robot: Robot, bad: float | None) -> None:
        """A missing or non-finite component is an input error, and the arm stays where it is."""
        position, _ = self.pose(robot)
        action: dict[str, Any] = action_to_dict(np.array([0.2, 0, 0, 0, 0, 0, 0]))
        if bad is None:
            del action["tool.wz"]
        else:
            action["tool.wz"] = bad
        with pytest.raises(InputError, match="action"):
            robot.send_action(action)
        moved, _ = self.pose(robot)
        assert np.linalg.norm(moved - position) < 1e-3

    def test_gripper_closes_and_opens(self, robot: Robot) -> None:
        """1 closes and 0 opens, both within a second and a half."""
        steps = round(1.5 * self.rate_hz)
        self.drive(robot, np.array([0.0] * 6 + [1.0]), steps)
        assert robot.get_observation()["gripper.pos"] > 0.95
        self.drive(robot, np.array([0.0] * 7), steps)
        assert robot.get_observation()["gripper.pos"] < 0.05

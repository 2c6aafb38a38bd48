"""The simulated arm: the robot contract, its kinematics, determinism, tasks and success."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.robots import Robot, RobotConfig

from collectors import gl_backend
from collectors.gen3_scene import LINK_GROUP
from collectors.operators import ScriptedOperator, SkilledSkill
from collectors.simulated_gen3 import TASKS, SimulatedGen3, SimulatedGen3Config
from pipeline.episode import STATE_NAMES, action_to_dict
from pipeline.errors import InputError
from pipeline.gen3_kinematics import (
    HOME,
    JOINT_LIMITS,
    LINKS,
    READY,
    TOOL_OFFSET,
    TwistSolver,
    jacobian,
    quaternion_from_rotation,
    rotation_from_quaternion,
    tool_pose,
)
from tests.contracts.robot_contract import RobotContract

JOINTS = st.lists(st.floats(-2.0, 2.0), min_size=7, max_size=7).map(np.array)


class TestSimulatedGen3Contract(RobotContract):
    """The suite that every arm passes."""

    def make_robot(self) -> Robot:
        """Small images, to be quick."""
        return SimulatedGen3(SimulatedGen3Config(image_size=32))


@pytest.fixture
def robot() -> Iterator[SimulatedGen3]:
    """A connected arm without cameras."""
    with SimulatedGen3(SimulatedGen3Config(cameras=())) as robot:
        yield robot


def hamilton(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of two quaternions ``w x y z``."""
    w, v = a[0] * b[0] - a[1:] @ b[1:], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
    return np.array([w, *v])


def independent_tool_position(joints: np.ndarray) -> np.ndarray:
    """The tool's position by quaternions alone, from the link table; no matrix of the code under test."""
    position, orientation = np.zeros(3), np.array([1.0, 0, 0, 0])

    def step(offset: tuple[float, ...], turn: np.ndarray) -> None:
        nonlocal position, orientation
        conjugate = orientation * [1, -1, -1, -1]
        position = position + hamilton(hamilton(orientation, np.array([0, *offset])), conjugate)[1:]
        orientation = hamilton(orientation, turn / np.linalg.norm(turn))

    for link, angle in zip(LINKS, joints, strict=True):
        turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        quaternion = np.array(link.quaternion, dtype=float)
        step(link.position, hamilton(quaternion / np.linalg.norm(quaternion), turn))
    step((0, 0, -0.061525), np.array([0.0, 1, 0, 0]))
    step((0, 0, TOOL_OFFSET), np.array([1.0, 0, 0, 0]))
    return position


@given(joints=JOINTS)
@settings(max_examples=30, deadline=None)
def test_tool_position_follows_from_the_link_table(joints: np.ndarray) -> None:
    """At home and anywhere."""
    np.testing.assert_allclose(tool_pose(HOME)[:3, 3], independent_tool_position(HOME), atol=1e-12)
    np.testing.assert_allclose(tool_pose(joints)[:3, 3], independent_tool_position(joints), atol=1e-12)


@given(joints=JOINTS)
@settings(max_examples=20, deadline=None)
def test_jacobian_is_the_derivative_of_the_pose(joints: np.ndarray) -> None:
    """Against central differences."""
    step = 1e-6
    for j, nudge in enumerate(np.eye(7) * step):
        after, before = tool_pose(joints + nudge), tool_pose(joints - nudge)
        spin = (after[:3, :3] - before[:3, :3]) @ tool_pose(joints)[:3, :3].T / (2 * step)
        column = [*((after - before)[:3, 3] / (2 * step)), spin[2, 1], spin[0, 2], spin[1, 0]]
        np.testing.assert_allclose(jacobian(joints)[:, j], column, atol=1e-7)


@given(quaternion=st.lists(st.floats(-1, 1), min_size=4, max_size=4).map(np.array))
@settings(max_examples=50, deadline=None)
def test_quaternion_round_trip(quaternion: np.ndarray) -> None:
    """The same rotation, as the unit quaternion with w ≥ 0."""
    if np.linalg.norm(quaternion) < 0.1:
        return
    unit = quaternion / np.linalg.norm(quaternion)
    back = quaternion_from_rotation(rotation_from_quaternion(quaternion))
    assert back[0] >= 0
    assert abs(unit @ back) == pytest.approx(1.0, abs=1e-9)


def test_tool_position_at_home_follows_from_the_arms_lengths() -> None:
    """By plane trigonometry with the data sheet's lengths: at home the arm lies in one plane.

    Upper arm 15° off the vertical, forearm 145°, wrist and gripper horizontal.
    """
    base, upper_arm, forearm, wrist = 0.28481, 0.42076, 0.31436, 0.16746
    lean, bend = np.deg2rad(15), np.deg2rad(145)
    ahead = upper_arm * np.sin(lean) + forearm * np.sin(bend) + wrist + TOOL_OFFSET
    above = base + upper_arm * np.cos(lean) + forearm * np.cos(bend)
    np.testing.assert_allclose(tool_pose(HOME)[[0, 2], 3], [ahead, above], atol=1e-4)


def test_ready_pose_points_straight_down() -> None:
    """Where episodes start."""
    pose = tool_pose(READY)
    np.testing.assert_allclose(pose[:3, 2], [0, 0, -1], atol=1e-4)
    np.testing.assert_allclose(pose[:3, 3], [0.45, 0.0, 0.26], atol=2e-3)


def test_joint_velocities_stay_inside_the_limits() -> None:
    """At a joint's margin it stops, and no joint runs faster than allowed, even near a singularity."""
    solver = TwistSolver()
    joints = READY.copy()
    for _ in range(400):  # away and down until the elbow cannot go on
        velocities = solver.velocities(joints, np.array([0.25, 0, -0.25, 0, 1.0, 0]), 0.1)
        assert np.abs(velocities).max() <= solver.speed_limit + 1e-9
        joints = joints + 0.1 * velocities
    assert np.all(np.abs(joints) <= JOINT_LIMITS - solver.limit_margin + 1e-9)


def test_physics_has_the_kinematics_and_masses_of_the_table(robot: SimulatedGen3) -> None:
    """MuJoCo's tool is where the formulas say; its links weigh what the table says."""
    robot.prepare(TASKS[0], 3)
    world = robot.world
    np.testing.assert_allclose(world.tool_position, tool_pose(world.data.qpos[:7].copy())[:3, 3], atol=1e-5)
    for i, link in enumerate(LINKS):
        assert world.model.body(link.name).mass[0] == pytest.approx(link.mass)
        if np.isfinite(link.limit):
            np.testing.assert_allclose(world.model.joint(f"joint_{i + 1}").range, [-link.limit, link.limit])


def trace(seed: int, steps: int = 12) -> str:
    """Fingerprint of all observations of a short episode with fixed actions."""
    digests = []
    with SimulatedGen3(SimulatedGen3Config(image_size=32)) as robot:
        for _ in range(2):  # the second time from a used world
            robot.prepare(TASKS[0], seed)
            rng = np.random.default_rng(seed)
            digest = hashlib.sha256()
            for _ in range(steps):
                robot.send_action(action_to_dict(rng.uniform(-0.4, 0.4, 7)))
                observation = robot.get_observation()
                digest.update(np.array([observation[n] for n in STATE_NAMES]).tobytes())
                digest.update(observation["table"].tobytes() + observation["wrist"].tobytes())
            digests.append(digest.hexdigest())
    assert digests[0] == digests[1], "a used world differs from a new one"
    return digests[0]


def test_same_seed_and_actions_give_the_same_bits_in_every_process() -> None:
    """In one process and in another; another seed gives another scene."""
    here = trace(5)
    assert here == trace(5)
    assert here != trace(6)
    code = "from tests.collectors.test_simulated_gen3 import trace; print(trace(5))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == here


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_scenes_are_graspable(seed: int) -> None:
    """Cubes lie on the table within reach, apart from each other, turned within a square's symmetry."""
    with SimulatedGen3(SimulatedGen3Config(cameras=())) as robot:
        robot.prepare(TASKS[0], seed)
        red, blue = robot.world.cube_position("red"), robot.world.cube_position("blue")
        assert np.hypot(*(red - blue)[:2]) > 0.1
        for position in (red, blue):
            assert 0.3 < position[0] < 0.65
            assert abs(position[1]) < 0.22
            assert position[2] == pytest.approx(0.025, abs=1e-3)


def test_scene_depends_on_the_seed_alone(robot: SimulatedGen3) -> None:
    """The same cubes whatever the task, so that only the instruction says which to take."""
    places = []
    for task in TASKS:
        robot.prepare(task, 11)
        places.append(robot.world.cube_position("red"))
        assert not robot.task_succeeded()
    assert all(np.array_equal(place, places[0]) for place in places)


def test_success_needs_the_named_cube_held_and_lifted(robot: SimulatedGen3) -> None:
    """A cube in the air that no finger holds is not a success; nor is a stack still falling."""
    robot.prepare("pick up the red cube", 1)
    world = robot.world
    address = int(world.model.joint("red_cube").qposadr[0])
    world.data.qpos[address + 2] = 0.3
    robot.send_action(action_to_dict(np.zeros(7)))
    assert world.cube_position("red")[2] > 0.09
    assert not robot.task_succeeded()

    robot.prepare("place the red cube on the blue cube", 1)
    blue = world.cube_position("blue")
    world.data.qpos[address : address + 3] = [*blue[:2], blue[2] + 0.0505]
    yaw = world.cube_yaw("blue") / 2
    world.data.qpos[address + 3 : address + 7] = [np.cos(yaw), 0, 0, np.sin(yaw)]
    world.data.qvel[:] = 0
    for _ in range(3):
        robot.send_action(action_to_dict(np.zeros(7)))
    assert robot.task_succeeded()
    assert not world.task_succeeded("place the blue cube on the red cube")


def test_tool_stays_in_its_box(robot: SimulatedGen3) -> None:
    """Driving down for long ends above the table, and the action that comes back says so."""
    robot.prepare(TASKS[0], 2)
    down = action_to_dict(np.array([0, 0, -0.25, 0, 0, 0, 1.0]))
    sent = {}
    for _ in range(25):
        sent = robot.send_action(down)
    assert 0.005 < robot.get_observation()["tool.z"] < 0.03
    assert sent["tool.vz"] > -0.05


def test_wrist_feels_what_it_carries(robot: SimulatedGen3) -> None:
    """Nothing in the air; an upward push when pressing on a cube."""
    robot.prepare(TASKS[0], 4)
    assert abs(robot.get_observation()["wrench.fz"]) < 0.05
    world = robot.world
    for _ in range(40):
        across = world.cube_position("red") - world.tool_position
        robot.send_action(action_to_dict(np.array([*np.clip(4 * across[:2], -0.2, 0.2), -0.1, 0, 0, 0, 1.0])))
    assert robot.get_observation()["wrench.fz"] > 1.0


def test_wrist_camera_does_not_miss_the_links() -> None:
    """They are left out of its images to save time; with them the images are the same."""
    with SimulatedGen3(SimulatedGen3Config(cameras=("wrist",))) as robot:
        operator = ScriptedOperator(robot, SkilledSkill(), np.random.default_rng(0))
        operator.begin(TASKS[0])
        for _ in range(20):
            without = robot.get_observation()["wrist"]
            groups = robot.world.model.geom_group
            links = groups == LINK_GROUP
            groups[links] = 2
            try:
                np.testing.assert_array_equal(robot.get_observation()["wrist"], without)
            finally:
                groups[links] = LINK_GROUP
            robot.send_action(operator.get_action())
        assert links.sum() == 14


def test_render_for_films() -> None:
    """Other cameras and sizes than the observation's; what does not exist is an input error."""
    with SimulatedGen3(SimulatedGen3Config(image_size=32)) as robot:
        assert robot.render("overview", (120, 160)).shape == (120, 160, 3)
        before = robot.get_observation()["table"]
        robot.render("wrist", 200)
        np.testing.assert_array_equal(robot.get_observation()["table"], before)
        with pytest.raises(InputError, match="no camera 'front'"):
            robot.render("front", 84)
        with pytest.raises(InputError, match="larger"):
            robot.render("table", 4000)


@pytest.mark.parametrize("settings_", [{"rate_hz": 50.0}, {"image_size": 4}, {"cameras": ("table", "elbow")}])
def test_wrong_settings_fail_when_built(settings_: dict[str, object]) -> None:
    """Not later, on connect."""
    with pytest.raises(InputError, match="simulated_gen3"):
        SimulatedGen3Config(**settings_)  # type: ignore[arg-type]  # wrong on purpose


def test_unknown_task_is_an_input_error(robot: SimulatedGen3) -> None:
    """And names the tasks that exist."""
    with pytest.raises(InputError, match="pick up the red cube"):
        robot.prepare("pick up the green cube", 0)


def test_registered_with_lerobot() -> None:
    """LeRobot's own commands find it by name."""
    assert RobotConfig.get_choice_class("simulated_gen3") is SimulatedGen3Config
    assert SimulatedGen3Config().type == "simulated_gen3"


def test_missing_opengl_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for a machine with neither library."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl_backend, "_library", lambda *names: None)
    with pytest.raises(InputError, match=r"apt-get install libegl1 libgl1-mesa-dri \(or libosmesa6\)"):
        gl_backend.choose_backend()

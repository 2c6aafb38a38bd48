"""The physics behind the simulated Gen3: servo, cubes, contacts, and whether a task is done.

:class:`World` is what scripted people look at. Nothing of it but the arm's own state and the camera
images reaches an observation.
"""

from __future__ import annotations

import functools

import mujoco
import numpy as np

from collectors.gen3_scene import CUBE_COLORS, CUBE_SIZE, FINGER_STROKE, SERVO_LAG_S, scene_xml
from collectors.gen3_tasks import LIFT_HEIGHT, split_task
from pipeline.gen3_kinematics import READY, TwistSolver

SPAWN_X = (0.36, 0.58)  # m in base
SPAWN_Y = (-0.18, 0.18)
SPAWN_SEPARATION = 0.11  # between the cubes' centres, m
SPAWN_YAW = np.pi / 4  # cubes are turned by up to this either way: all that a square can show
REACH_LOW = np.array([0.25, -0.35, 0.014])  # the box that the tool may not leave, m in base
REACH_HIGH = np.array([0.72, 0.35, 0.45])

_GRIPPER_SPEED = 1.8  # full strokes per second
_LEASH = 0.03  # how far, in rad, the servo's target may run ahead of a blocked joint
_PHYSICS_STEP_S = 0.004


@functools.cache
def _model(timestep_s: float) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(scene_xml(timestep_s))


class World:
    """The simulated workplace, advanced one control step at a time. Units m, rad, s; frame base."""

    def __init__(self, rate_hz: float) -> None:
        """Builds the physics for a control rate of ``rate_hz``; call :meth:`reset` before use."""
        self.step_s = 1.0 / rate_hz
        self.substeps = round(self.step_s / _PHYSICS_STEP_S)
        self.model = _model(self.step_s / self.substeps)
        self.data = mujoco.MjData(self.model)
        self.steps = 0  # control steps since the reset
        self._solver = TwistSolver()
        self._joint_target = READY.copy()
        self._gripper_target = 0.0
        geoms = {self.model.geom(i).name: i for i in range(self.model.ngeom)}
        self._cube_geoms = {color: geoms[f"{color}_cube"] for color in CUBE_COLORS}
        self._pad_geoms = (geoms["left_pad"], geoms["right_pad"])
        self._gripper_bodies = [self.model.body(n).id for n in ("gripper", "left_finger", "right_finger")]
        self._tool_site = self.model.site("tool").id
        self._cube_bodies = {color: self.model.body(f"{color}_cube").id for color in CUBE_COLORS}
        self._cube_joints = {color: self.model.joint(f"{color}_cube") for color in CUBE_COLORS}

    def reset(self, rng: np.random.Generator | None) -> None:
        """Arm to its ready pose (± 0.02 rad a joint), cubes at random poses drawn from ``rng``.

        Without ``rng`` the arm is exactly at its ready pose and the cubes lie where the scene has them.
        """
        mujoco.mj_resetData(self.model, self.data)
        self.steps = 0
        joints = READY.copy()
        if rng is not None:
            joints += rng.uniform(-0.02, 0.02, size=7)
            for color, (x, y, yaw) in zip(CUBE_COLORS, _spawn(rng), strict=True):
                pose = (x, y, CUBE_SIZE / 2, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
                address = int(self._cube_joints[color].qposadr[0])
                self.data.qpos[address : address + 7] = pose
        self.data.qpos[:7] = joints
        self.data.ctrl[:7] = joints
        self._joint_target = joints
        self._gripper_target = 0.0
        mujoco.mj_step(self.model, self.data, nstep=self.substeps)  # the cubes settle onto the table
        self._refresh()

    def limit_to_reach(self, velocity: np.ndarray) -> np.ndarray:
        """The linear velocity (3,) in m/s, less what would take the tool out of its box this step."""
        position = self.tool_position
        low = np.minimum((REACH_LOW - position) / self.step_s, 0.0)
        high = np.maximum((REACH_HIGH - position) / self.step_s, 0.0)
        return np.clip(velocity, low, high)

    def advance(self, twist: np.ndarray, gripper: float) -> None:
        """One control step: the tool moves with ``twist`` (6,), the gripper towards ``gripper``."""
        measured = self.data.qpos[:7]
        start = np.clip(self._joint_target, measured - _LEASH, measured + _LEASH)
        velocities = self._solver.velocities(start, twist, self.step_s)
        instants = np.arange(1, self.substeps + 1) * (self.step_s / self.substeps)
        controls = np.empty((self.substeps, 9))
        controls[:, :7] = start + velocities * (instants[:, None] + SERVO_LAG_S)
        travel = np.clip(
            gripper - self._gripper_target, -instants * _GRIPPER_SPEED, instants * _GRIPPER_SPEED
        )
        controls[:, 7:] = (self._gripper_target + travel[:, None]) * FINGER_STROKE
        for control in controls:
            self.data.ctrl = control
            mujoco.mj_step(self.model, self.data)
        self._gripper_target += float(travel[-1])
        self._joint_target = start + velocities * self.step_s
        self.steps += 1
        self._refresh()

    def _refresh(self) -> None:
        # mj_step leaves positions one integration ahead of the poses and contacts; catch up.
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_rnePostConstraint(self.model, self.data)

    @property
    def joint_positions(self) -> np.ndarray:
        """Measured joint angles (7,) in rad, unwrapped."""
        return self.data.qpos[:7].copy()

    @property
    def joint_velocities(self) -> np.ndarray:
        """Measured joint velocities (7,) in rad/s."""
        return self.data.qvel[:7].copy()

    @property
    def tool_position(self) -> np.ndarray:
        """The tool centre (3,) in m."""
        return self.data.site_xpos[self._tool_site].copy()

    @property
    def tool_rotation(self) -> np.ndarray:
        """The tool's rotation matrix (3, 3): x along the fingers' motion, z out of the gripper."""
        return self.data.site_xmat[self._tool_site].reshape(3, 3).copy()

    @property
    def gripper_position(self) -> float:
        """Measured opening: 0 fully open, 1 fully closed."""
        return float(np.clip(self.data.qpos[7:9].mean() / FINGER_STROKE, 0.0, 1.0))

    @property
    def tool_wrench(self) -> np.ndarray:
        """External force then torque (6,) at the tool centre, from contacts, in N and N·m."""
        total = self.data.cfrc_ext[self._gripper_bodies].sum(axis=0)
        torque, force = total[:3], total[3:]  # about the centre of mass of the arm's tree
        root = self.model.body_rootid[self._gripper_bodies[0]]
        lever = self.data.subtree_com[root] - self.data.site_xpos[self._tool_site]
        (x, y, z), (fx, fy, fz) = lever, force
        moment = (y * fz - z * fy, z * fx - x * fz, x * fy - y * fx)  # lever × force; np.cross is slow
        return np.concatenate([force, torque + moment])

    def cube_position(self, color: str) -> np.ndarray:
        """Centre (3,) of a cube in m."""
        return self.data.xpos[self._cube_bodies[color]].copy()

    def cube_yaw(self, color: str) -> float:
        """Rotation of a cube about z in rad; any quarter turn of it looks the same."""
        rotation = self.data.xmat[self._cube_bodies[color]].reshape(3, 3)
        # A tumbled cube lies on another face: take the yaw of whichever of its axes is most level.
        axis = rotation[:2, int(np.argmin(np.abs(rotation[2])))]
        return float(np.arctan2(axis[1], axis[0]))

    def cube_speed(self, color: str) -> float:
        """Speed of a cube's centre in m/s."""
        address = int(self._cube_joints[color].dofadr[0])
        return float(np.linalg.norm(self.data.qvel[address : address + 3]))

    def touching_pads(self, color: str) -> int:
        """How many of the two finger pads touch the cube."""
        cube = self._cube_geoms[color]
        pairs = self.data.contact.geom[: self.data.ncon]
        partners = {int(b if a == cube else a) for a, b in pairs if cube in (a, b)}
        return sum(pad in partners for pad in self._pad_geoms)

    def holding(self, color: str) -> bool:
        """Whether the cube is between the fingers, touched by both."""
        return self.touching_pads(color) == 2

    def task_succeeded(self, task: str) -> bool:
        """Picked up: held by both fingers and lifted. Placed: resting on the other cube, let go of."""
        moved, support = split_task(task)
        position = self.cube_position(moved)
        if support is None:
            return bool(position[2] > CUBE_SIZE / 2 + LIFT_HEIGHT) and self.holding(moved)
        offset = position - self.cube_position(support)
        stacked = np.hypot(offset[0], offset[1]) < CUBE_SIZE / 2 and abs(offset[2] - CUBE_SIZE) < 0.006
        still = self.cube_speed(moved) < 0.01 and self.cube_speed(support) < 0.01
        return bool(stacked and still and self.touching_pads(moved) == 0)


def _spawn(rng: np.random.Generator) -> np.ndarray:
    """Poses x, y, yaw of the cubes (2, 3), far enough apart for the open gripper to fit between."""
    low = (SPAWN_X[0], SPAWN_Y[0], -SPAWN_YAW)
    high = (SPAWN_X[1], SPAWN_Y[1], SPAWN_YAW)
    while True:
        poses = rng.uniform(low, high, size=(2, 3))
        if np.hypot(*(poses[0, :2] - poses[1, :2])) >= SPAWN_SEPARATION:
            return poses

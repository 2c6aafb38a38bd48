"""The LeRobot robot ``simulated_gen3``: a Kinova Gen3 in MuJoCo, observed and driven like the real one.

Action: tool twist in the base frame (m/s, rad/s) and gripper target (0 open to 1 closed), see
``pipeline.episode.ACTION_FIELD``. Each ``send_action`` advances the simulation by one control period;
nothing waits for a clock. The same seed and actions give bit-equal observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from collectors.arm_interface import ArmCondition, ArmStopped
from collectors.gen3_tasks import TASKS, split_task
from collectors.gl_backend import choose_backend
from pipeline.episode import ACTION_NAMES, CAMERAS, STATE_NAMES, action_from_dict, action_to_dict
from pipeline.errors import InputError
from pipeline.gen3_kinematics import quaternion_from_rotation

if TYPE_CHECKING:
    from collectors.gen3_world import World
    from collectors.scene_renderer import SceneRenderer

__all__ = ["MAX_ANGULAR_SPEED", "MAX_LINEAR_SPEED", "TASKS", "SimulatedGen3", "SimulatedGen3Config"]

MAX_LINEAR_SPEED = 0.25  # m/s, per axis; the safe speed for a collaborative arm near people (ISO 10218)
MAX_ANGULAR_SPEED = 1.0  # rad/s, per axis


@RobotConfig.register_subclass("simulated_gen3")
@dataclass(kw_only=True)
class SimulatedGen3Config(RobotConfig):
    """Settings of the simulated arm; wrong ones raise ``InputError`` when it is built."""

    rate_hz: float = 10.0
    """Control steps per simulated second, 10 to 20."""
    image_size: int = 84
    """Height and width of the camera images in pixels, 16 to 720."""
    cameras: tuple[str, ...] = CAMERAS
    """Which cameras to observe; an empty tuple leaves the images out."""
    seed: int = 0
    """Scene that ``connect`` sets up; ``prepare`` sets up others."""

    def __post_init__(self) -> None:
        """Checks the settings; LeRobot's own check expects camera devices, which this robot lacks."""
        if not 10 <= self.rate_hz <= 20:
            raise InputError(f"simulated_gen3: rate_hz is {self.rate_hz}, must be 10 to 20")
        if not 16 <= self.image_size <= 720:
            raise InputError(f"simulated_gen3: image_size is {self.image_size}, must be 16 to 720")
        unknown = sorted(set(self.cameras) - set(CAMERAS))
        if unknown:
            raise InputError(f"simulated_gen3: no camera {unknown[0]!r}; it has {', '.join(CAMERAS)}")


class SimulatedGen3(Robot):
    """A simulated Gen3 with an 85 mm gripper, two cubes on a table and two cameras.

    Constructing is cheap; ``connect`` builds the physics. Beyond LeRobot's interface there are
    :meth:`prepare`, :meth:`task_succeeded`, :attr:`world` and :meth:`render`, for scripted people
    and films only: nothing of them is in an observation.
    """

    config_class = SimulatedGen3Config
    name = "simulated_gen3"

    def __init__(self, config: SimulatedGen3Config) -> None:
        """Remembers the settings; see ``connect``."""
        super().__init__(config)
        self.config = config
        self.cameras: dict[str, Any] = {}  # camera devices; the simulated ones are part of the scene
        self.task = TASKS[0]
        self._stopped: str | None = None
        self._world: World | None = None
        self._renderer: SceneRenderer | None = None

    @property
    def observation_features(self) -> dict[str, Any]:
        """``float`` for each of ``STATE_NAMES``, then (height, width, 3) for each camera."""
        size = self.config.image_size
        return dict.fromkeys(STATE_NAMES, float) | dict.fromkeys(self.config.cameras, (size, size, 3))

    @property
    def action_features(self) -> dict[str, Any]:
        """``float`` for each of ``ACTION_NAMES``."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def is_connected(self) -> bool:
        """Whether the physics is built."""
        return self._world is not None

    @property
    def is_calibrated(self) -> bool:
        """Always true: there is nothing to calibrate."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Builds the physics and prepares the configured seed's scene.

        Raises ``DeviceAlreadyConnectedError`` when connected, ``InputError`` without OpenGL libraries.
        """
        if self._world is not None:
            raise DeviceAlreadyConnectedError(f"{self} is already connected")
        choose_backend()  # before anything imports mujoco
        from collectors.gen3_world import World

        self._world = World(self.config.rate_hz)
        self.prepare(self.task, self.config.seed)

    def calibrate(self) -> None:
        """Does nothing: there is nothing to calibrate."""

    def configure(self) -> None:
        """Does nothing: all settings are in the config."""

    def disconnect(self) -> None:
        """Drops the physics; harmless when not connected."""
        self._world = None

    @property
    def world(self) -> World:
        """The privileged view for scripted people. Raises ``DeviceNotConnectedError``."""
        if self._world is None:
            raise DeviceNotConnectedError(f"{self} is not connected; call connect() first")
        return self._world

    def prepare(self, task: str, seed: int) -> None:
        """Arm to its ready pose, cubes to poses drawn from ``seed`` alone; ``task`` is one of TASKS.

        An arm that was stopped stays so.

        Raises ``InputError`` for an unknown task.
        """
        split_task(task)
        self.world.reset(np.random.default_rng(seed))
        self.task = task

    def task_succeeded(self) -> bool:
        """Whether the prepared task is done at this moment. For scripted people only."""
        return self.world.task_succeeded(self.task)

    @property
    def condition(self) -> ArmCondition:
        """Whether it was stopped; it has no faults of its own."""
        return ArmCondition(stopped=self._stopped)

    def emergency_stop(self) -> None:
        """Refuses every action until :meth:`clear_faults`; the arm stands still, as time does."""
        self._stopped = "emergency stop; clear it to go on"

    def clear_faults(self) -> None:
        """Takes actions again."""
        self._stopped = None

    def get_observation(self) -> dict[str, Any]:
        """The flat observation: a float per ``STATE_NAMES``, uint8 (H, W, 3) RGB per camera."""
        world = self.world
        orientation = quaternion_from_rotation(world.tool_rotation)
        state = np.concatenate(
            [
                world.joint_positions,
                world.joint_velocities,
                world.tool_position,
                orientation,
                [world.gripper_position],
                world.tool_wrench,
            ]
        )
        observation: dict[str, Any] = dict(zip(STATE_NAMES, state.tolist(), strict=True))
        cameras = list(self.config.cameras)
        if cameras:
            size = self.config.image_size
            observation.update(zip(cameras, self._draw(cameras, (size, size)), strict=True))
        return observation

    def send_action(self, action: Mapping[str, Any]) -> dict[str, float]:
        """Clips the action to the limits, advances one control period, returns what was sent.

        Speeds are clipped per axis; a velocity that would take the tool out of its box (0.25 to 0.72 m
        ahead, 0.35 m to either side, 0.014 to 0.45 m high) is reduced. Raises ``InputError`` for a
        missing or non-finite component, ``ArmStopped`` after an emergency stop.
        """
        if self._stopped is not None:
            raise ArmStopped(f"simulated_gen3: {self._stopped}")
        missing = [name for name in ACTION_NAMES if name not in action]
        if missing:
            raise InputError(f"simulated_gen3: the action lacks {missing[0]!r}")
        wanted = action_from_dict(dict(action))
        if not np.isfinite(wanted).all():
            raise InputError(f"simulated_gen3: the action is not finite: {wanted.tolist()}")
        sent = wanted.copy()
        sent[:3] = np.clip(wanted[:3], -MAX_LINEAR_SPEED, MAX_LINEAR_SPEED)
        sent[:3] = self.world.limit_to_reach(sent[:3])
        sent[3:6] = np.clip(wanted[3:6], -MAX_ANGULAR_SPEED, MAX_ANGULAR_SPEED)
        sent[6] = np.clip(wanted[6], 0.0, 1.0)
        self.world.advance(sent[:6].astype(float), float(sent[6]))
        return action_to_dict(sent)

    def render(self, camera: str, size: int | tuple[int, int]) -> np.ndarray:
        """An image for films, uint8 (height, width, 3): ``size`` px square or (height, width).

        ``camera`` is ``table``, ``wrist`` or ``overview`` (arm and table from the side); at most
        720 px high and 960 wide. Raises ``InputError`` otherwise.
        """
        if camera not in (*CAMERAS, "overview"):
            raise InputError(f"simulated_gen3: no camera {camera!r}; it has {', '.join(CAMERAS)}, overview")
        return self._draw([camera], (size, size) if isinstance(size, int) else size, sky=True)[0]

    def _draw(self, cameras: list[str], size: tuple[int, int], sky: bool = False) -> list[np.ndarray]:
        if self._renderer is None:
            from collectors.scene_renderer import shared_renderer

            self._renderer = shared_renderer(self.world.model)
        return self._renderer.draw(self.world.model, self.world.data, cameras, size, sky)

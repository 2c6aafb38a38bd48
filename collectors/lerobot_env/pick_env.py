"""The simulated arm as a Gymnasium environment: the same robot, scenes and judge as our own evaluations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
from collectors.simulated_sessions import observer
from pipeline.episode import ACTION_NAMES, CAMERAS, POLICY_STATE_NAMES, action_to_dict

# Seed 0 of lerobot-eval is this scene: beyond every scene that demonstrations, rollouts and our evaluations
# draw, whose numbers lie below 2e9 but for rollouts with a --seed of millions. So nothing trained on it.
FIRST_SCENE = 1_000_000_000_000

_FILM_SIZE = 240


class PickEnv(gym.Env[dict[str, Any], np.ndarray]):
    """One start an episode: the scene, one that no recording has, follows from the seed of ``reset`` alone.

    Observations: ``pixels``, a dictionary of (S, S, 3) uint8 by camera, and ``agent_pos`` (15,) float32.
    Actions (7,) float32 are a tool twist in the base frame (m/s, rad/s) and the gripper's target in [0, 1].
    The reward is 1 at success and 0 before; the episode ends with it, or when it cannot be done any more.
    """

    def __init__(self, task: str, rate_hz: float, image_size: int, max_steps: int) -> None:
        """Builds nothing yet but the spaces."""
        self.task = self.task_description = task
        self._max_episode_steps = max_steps
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(rate_hz)}
        self.render_mode = "rgb_array"
        image = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Dict(dict.fromkeys(CAMERAS, image)),
                "agent_pos": gym.spaces.Box(-np.inf, np.inf, (len(POLICY_STATE_NAMES),), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (len(ACTION_NAMES),), np.float32)
        self._robot = SimulatedGen3(SimulatedGen3Config(rate_hz=rate_hz, image_size=image_size))
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A scene drawn from ``seed``, or without one from this environment's own random numbers."""
        super().reset(seed=seed)
        if not self._robot.is_connected:
            self._robot.connect()
        scene = int(self.np_random.integers(2**31)) if seed is None else seed
        self._robot.prepare(self.task, FIRST_SCENE + scene)
        self._judge = observer(self._robot)
        self._judge.begin(self.task)
        self._steps = 0
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control period."""
        self._robot.send_action(action_to_dict(np.asarray(action, dtype=np.float32)))
        self._steps += 1
        events = self._judge.get_teleop_events()
        success = bool(events[TeleopEvents.SUCCESS])
        over = self._steps >= self._max_episode_steps
        ended = bool(events[TeleopEvents.TERMINATE_EPISODE])
        return self._observation(), float(success), ended, over and not ended, {"is_success": success}

    def render(self) -> np.ndarray:
        """Arm and table from the side, (240, 240, 3) uint8."""
        return self._robot.render("overview", _FILM_SIZE)

    def close(self) -> None:
        """Drops the physics."""
        self._robot.disconnect()

    def _observation(self) -> dict[str, Any]:
        seen = self._robot.get_observation()
        return {
            "pixels": {camera: seen[camera] for camera in CAMERAS},
            "agent_pos": np.array([seen[name] for name in POLICY_STATE_NAMES], dtype=np.float32),
        }

"""What ``lerobot-eval --env.type=simulated_gen3`` can be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.episode import ACTION_NAMES, CAMERAS, POLICY_STATE_NAMES


@EnvConfig.register_subclass("simulated_gen3")
@dataclass
class SimulatedGen3Env(EnvConfig):
    """The table with two cubes: ``task`` is what to do, ``episode_length`` how many steps it may take."""

    task: str | None = "pick up the red cube"
    fps: int = 10
    episode_length: int = 80
    image_size: int = 84
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (self.image_size, self.image_size, 3)
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (len(ACTION_NAMES),)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (len(POLICY_STATE_NAMES),)),
            **{f"pixels/{camera}": PolicyFeature(FeatureType.VISUAL, shape) for camera in CAMERAS},
        }
        self.features_map = {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            **{f"pixels/{camera}": f"{OBS_IMAGES}.{camera}" for camera in CAMERAS},
        }

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """What each environment is built from."""
        return {
            "task": self.task,
            "rate_hz": float(self.fps),
            "image_size": self.image_size,
            "max_steps": self.episode_length,
        }

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """``n_envs`` of them, in processes of their own where ``use_async_envs``."""
        makers: list[Callable[[], gym.Env]] = [self._make for _ in range(n_envs)]
        same_step = gym.vector.AutoresetMode.SAME_STEP
        if use_async_envs and n_envs > 1:
            several = gym.vector.AsyncVectorEnv(makers, autoreset_mode=same_step, context="forkserver")
            return {self.type: {0: several}}
        return {self.type: {0: gym.vector.SyncVectorEnv(makers, autoreset_mode=same_step)}}

    def _make(self) -> gym.Env:
        from collectors.lerobot_env.pick_env import PickEnv

        return PickEnv(**self.gym_kwargs)

"""Runs any LeRobot checkpoint on this project's robots: a robot's observation in, an action out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE

from pipeline.episode import ACTION_NAMES, POLICY_STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.advantage_prompt import AdvantageStateStep, advantage_step
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.prompts import Indicator, prompt


class PolicyRunner:
    """A policy in front of a robot: keeps the task's prompt, the action queue and its own random numbers.

    ``indicator`` goes into the prompt ("... Advantage: positive"), and from there into the state of a policy
    that reads no text; ``None`` gives the bare task.
    ``guidance`` replaces the checkpoint's classifier-free guidance on the indicator (1 is off). The same
    seed and observations give the same actions, whatever else draws random numbers in the process.
    """

    def __init__(
        self,
        checkpoint: Path,
        device: str = "cpu",
        indicator: Indicator | None = "positive",
        guidance: float | None = None,
        seed: int = 0,
    ) -> None:
        """Loads the checkpoint; raises ``InputError`` where it, or ``guidance``, cannot be used."""
        self.checkpoint = Path(checkpoint)
        self.indicator = indicator
        self._device = device
        loaded = load_checkpoint(self.checkpoint, device)
        self._policy = loaded.policy
        self._preprocessor, self._postprocessor = loaded.preprocessor, loaded.postprocessor
        config = loaded.policy.config
        if guidance is not None:
            if not hasattr(config, "guidance"):
                raise InputError(
                    f"{checkpoint}: policies of type {config.type} take no guidance; leave it out"
                )
            config.guidance = guidance
        state = config.robot_state_feature
        # One more where the preprocessor adds the advantage, as for policies that read no text.
        extra = isinstance(advantage_step(self._preprocessor), AdvantageStateStep)
        if state is not None and state.shape != (len(POLICY_STATE_NAMES) + extra,):
            raise InputError(
                f"{checkpoint} expects a state of shape {state.shape}, this robot's has "
                f"{len(POLICY_STATE_NAMES) + extra} numbers: train it on data of this workspace"
            )
        self._image_shapes = {key: feature.shape for key, feature in config.image_features.items()}
        self._prompt: str | None = None
        self._seed = seed
        self._random_state = torch.Generator().manual_seed(seed).get_state()

    def reset(self, task: str, seed: int | None = None) -> None:
        """Starts an episode of ``task`` (bare text); ``seed`` defaults to the constructor's."""
        self._prompt = prompt(task, self.indicator)
        seed = self._seed if seed is None else seed
        self._random_state = torch.Generator().manual_seed(seed).get_state()
        self._policy.reset()
        self._preprocessor.reset()
        self._postprocessor.reset()

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """The next action, float32 (7,), for a robot's flat observation.

        A new chunk is predicted whenever the policy's queue is empty (every ``n_action_steps``).
        Raises ``InputError`` before the first :meth:`reset` and when the observation lacks a camera.
        """
        return self._ask(observation, self._policy.select_action)[0]

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """A whole chunk of actions, float32 (n, 7): for this control step and those that follow.

        Leaves the queue of :meth:`act` alone, except for policies that look at several past
        observations: of these it gives only the ``n_action_steps`` actions that they would execute.
        Raises as :meth:`act` does.
        """
        if getattr(self._policy.config, "n_obs_steps", 1) == 1:
            return self._ask(observation, lambda batch: self._policy.predict_action_chunk(batch)[0])
        # Their chunk is predicted from a queue of observations, which only select_action fills.
        return self._ask(
            observation,
            lambda batch: torch.cat([self._policy.select_action(batch) for _ in range(self.execute_steps)]),
        )

    @property
    def execute_steps(self) -> int:
        """How many actions of a chunk are meant to be executed before the next chunk replaces it."""
        return int(getattr(self._policy.config, "n_action_steps", 1))

    def drop_plan(self) -> None:
        """Forgets what is left of the chunk, so that the next :meth:`act` plans from its observation."""
        self._policy.reset()

    def check_robot(
        self, observation_features: Mapping[str, Any], action_features: Mapping[str, Any] | None = None
    ) -> None:
        """Raises ``InputError``, one line, where this checkpoint cannot drive a robot of these features.

        The features are those of LeRobot's ``Robot``: a type per number, (height, width, 3) per camera.
        Images of another size are resized, cameras that the policy does not know are left out.
        """
        cameras = sorted(name for name, kind in observation_features.items() if isinstance(kind, tuple))
        wanted = [key.removeprefix(f"{OBS_IMAGES}.") for key in self._image_shapes]
        absent = [name for name in wanted if name not in cameras]
        if absent:
            raise InputError(
                f"{self.checkpoint} needs camera {absent[0]!r}, the robot has {cameras}: "
                "name the robot's cameras in recap.toml as they were named in training"
            )
        numbers = [name for name in POLICY_STATE_NAMES if name not in observation_features]
        if numbers and self._policy.config.robot_state_feature is not None:
            raise InputError(f"{self.checkpoint} needs {numbers[0]!r}, which this robot does not measure")
        action = self._policy.config.action_feature
        if action is None or tuple(action.shape) != (len(ACTION_NAMES),):
            shape = None if action is None else tuple(action.shape)
            raise InputError(
                f"{self.checkpoint} gives actions of shape {shape}, a tool twist and gripper target is "
                f"({len(ACTION_NAMES)},): train it on a dataset exported from this workspace"
            )
        names = [name for name in ACTION_NAMES if name not in (action_features or ACTION_NAMES)]
        if names:
            raise InputError(f"{self.checkpoint} gives {names[0]!r}, which this robot's actions do not have")

    def _ask(
        self, observation: dict[str, Any], question: Callable[[dict[str, Any]], torch.Tensor]
    ) -> np.ndarray:
        """The answer (n, 7) in the robot's units, drawn with this runner's own random numbers."""
        if self._prompt is None:
            raise InputError("the policy has no task yet: call reset(task, seed) before act() or plan()")
        cuda = [torch.device(self._device)] if self._device.startswith("cuda") else []
        with torch.random.fork_rng(devices=cuda), torch.inference_mode():
            torch.set_rng_state(self._random_state)
            batch = self._preprocessor(self._batch(observation))
            actions = self._postprocessor(question(batch))
            self._random_state = torch.get_rng_state()
        return actions.float().numpy()

    def _batch(self, observation: dict[str, Any]) -> dict[str, Any]:
        """One sample in LeRobot's form: state float32, images float32 CHW in [0, 1], the prompt."""
        state = np.array([observation[name] for name in POLICY_STATE_NAMES], dtype=np.float32)
        batch: dict[str, Any] = {OBS_STATE: torch.from_numpy(state), "task": self._prompt}
        for key, (_, height, width) in self._image_shapes.items():
            camera = key.removeprefix(f"{OBS_IMAGES}.")
            if camera not in observation:
                raise InputError(f"the policy needs camera {camera!r}, which the observation does not have")
            image = observation[camera]
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            batch[key] = torch.from_numpy(image).permute(2, 0, 1).float().div_(255.0)
        return batch

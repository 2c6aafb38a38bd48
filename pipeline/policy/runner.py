"""Runs any LeRobot checkpoint on this project's robots: a robot's observation in, an action out."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.episode import ACTION_NAMES, POLICY_STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.advantage_prompt import AdvantageStateStep, advantage_step
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.policy.gen3.observations import ObservationQueue
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.prompts import Indicator, prompt

_RANDOM = threading.Lock()
"""Held while a runner has torch's only generator set to its own numbers: several may plan at once."""


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
        self.subtask: str | None = None
        """What the policy said it does before its latest chunk, of one that predicts sub-tasks."""
        self._seed = seed
        self._random_state = torch.Generator().manual_seed(seed).get_state()

    def reset(self, task: str, seed: int | None = None) -> None:
        """Starts an episode of ``task`` (bare text); ``seed`` defaults to the constructor's."""
        self._prompt = prompt(task, self.indicator)
        self.subtask = None
        seed = self._seed if seed is None else seed
        self._random_state = torch.Generator().manual_seed(seed).get_state()
        self._policy.reset()
        self._preprocessor.reset()
        self._postprocessor.reset()

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """The next action, float32 (7,), for a robot's flat observation.

        A new chunk is predicted whenever the policy's queue is empty (every ``n_action_steps``). A policy
        that looks at several observations remembers that of every call: call it once a control step.
        Raises ``InputError`` before the first :meth:`reset` and when the observation lacks a camera.
        """
        return self._ask([observation], lambda batches: self._policy.select_action(batches[0]))[0]

    def plan(self, observation: dict[str, Any], before: Sequence[dict[str, Any]] | None = None) -> np.ndarray:
        """A whole chunk of actions, float32 (n, 7): for this control step and those that follow.

        ``before`` holds the observations of the control steps just before, oldest first, back to the
        episode's start or for :attr:`observed_steps` - 1 steps; a policy of one observation needs none.
        Leaves the queue of :meth:`act` alone, except for LeRobot's own policies of several observations,
        which give only the ``n_action_steps`` actions that they would execute. Raises as :meth:`act` does,
        and ``InputError`` where such a policy gets no ``before``: it learned from successive frames.
        """
        if self.observed_steps == 1:
            return self._ask([observation], lambda batches: self._policy.predict_action_chunk(batches[0])[0])
        if before is None:
            raise InputError(
                f"{self.checkpoint} looks at the last {self.observed_steps} control steps, of which who asks "
                "for its plans shows only one: pass plan() the observations before it, too"
            )
        return self._ask([*before[1 - self.observed_steps :], observation], self._plan_from)

    @property
    def observed_steps(self) -> int:
        """How many successive control steps' observations the policy looks at."""
        return int(getattr(self._policy.config, "n_obs_steps", 1))

    @property
    def execute_steps(self) -> int:
        """How many actions of a chunk are meant to be executed before the next chunk replaces it."""
        return int(getattr(self._policy.config, "n_action_steps", 1))

    def drop_plan(self) -> None:
        """Forgets what is left of the chunk, so that the next :meth:`act` plans from its observation.

        What a policy of several observations saw stays: the arm is where these frames led.
        """
        queue = _queued_actions(self._policy) if self.observed_steps > 1 else None
        if queue is None:
            self._policy.reset()
        else:
            queue.clear()

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
        self,
        observations: Sequence[dict[str, Any]],
        question: Callable[[list[dict[str, Any]]], torch.Tensor],
    ) -> np.ndarray:
        """The answer (n, 7) in the robot's units, drawn with this runner's own random numbers."""
        if self._prompt is None:
            raise InputError("the policy has no task yet: call reset(task, seed) before act() or plan()")
        cuda = [torch.device(self._device)] if self._device.startswith("cuda") else []
        with _RANDOM, torch.random.fork_rng(devices=cuda), torch.inference_mode():
            torch.set_rng_state(self._random_state)
            batches = [self._preprocessor(self._batch(observation)) for observation in observations]
            actions = self._postprocessor(question(batches))
            self._random_state = torch.get_rng_state()
        self.subtask = _said(self._policy)
        return actions.float().numpy()

    def _plan_from(self, batches: list[dict[str, Any]]) -> torch.Tensor:
        """The chunk (n, 7) of a policy that looks at several observations; the last one is now."""
        if isinstance(self._policy, Gen3VLAPolicy):
            seen = ObservationQueue(self.observed_steps)
            together = [seen.add(batch) for batch in batches][-1]
            return self._policy.predict_action_chunk(together)[0]
        # LeRobot's stack what select_action was given; an action that is queued keeps it from predicting.
        self._policy.reset()
        queue = _queued_actions(self._policy)
        if queue is None:
            raise InputError(f"{self.checkpoint}: policies of type {self._policy.config.type} cannot plan")
        for batch in batches[:-1]:
            queue.append(torch.zeros(1, len(ACTION_NAMES)))
            self._policy.select_action(batch)
        first = self._policy.select_action(batches[-1])
        chunk = torch.cat([first, *queue])
        queue.clear()
        return chunk

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


def _said(policy: Any) -> str | None:
    """The sub-task that ``policy`` chose on the way to its latest chunk; ``None`` where it knows none."""
    if not isinstance(policy, Gen3VLAPolicy) or not policy.config.subtasks:
        return None
    spoken = getattr(policy.encoder, "spoken", None)
    return policy.config.subtasks[spoken[0]] if spoken else None


def _queued_actions(policy: Any) -> deque[torch.Tensor] | None:
    """The queue in which ``policy`` keeps the actions of its chunk; ``None`` where it has none of its own.

    LeRobot has two ways: an attribute, or an entry beside the queues of observations.
    """
    queues = getattr(policy, "_queues", None)
    found = (
        getattr(policy, "_queue", None),
        getattr(policy, "_action_queue", None),
        queues.get(ACTION) if isinstance(queues, dict) else None,
    )
    return next((queue for queue in found if isinstance(queue, deque)), None)

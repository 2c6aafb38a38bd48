"""What happens to a batch before and after ``gen3_vla``: the prompt becomes integers, actions are scaled.

The steps are ordinary LeRobot processor steps, saved beside the weights, so
``make_pre_post_processors(..., pretrained_path=...)`` restores them with their statistics.
"""

import re
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import EnvTransition, PolicyAction, RobotObservation, TransitionKey
from lerobot.processor import (
    ObservationProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import ACTION, OBS_LANGUAGE, OBS_LANGUAGE_TOKENS

from pipeline.errors import InputError
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.subtasks import OBS_SUBTASK
from pipeline.prompts import INDICATOR_NAMES, parse_prompt
from pipeline.subtask_prompts import split_subtask, subtask_number

OBS_INDICATOR = f"{OBS_LANGUAGE}.indicator"

_INDICATOR_CODES = {name: code for code, name in INDICATOR_NAMES.items()}


@lru_cache(maxsize=4096)
def hash_words(text: str, word_buckets: int, max_words: int) -> tuple[int, ...]:
    """The words of ``text`` as ``max_words`` bucket numbers in 1..word_buckets-1, then zeros.

    CRC-32 rather than ``hash()``, which differs from process to process. Longer texts are cut.
    """
    words = re.findall(r"[a-z0-9]+", text.lower())[:max_words]
    buckets = [zlib.crc32(word.encode()) % (word_buckets - 1) + 1 for word in words]
    return tuple(buckets + [0] * (max_words - len(buckets)))


@ProcessorStepRegistry.register("gen3_vla_prompt")
@dataclass
class PromptProcessorStep(ObservationProcessorStep):
    """Splits each prompt into task words and indicator.

    Reads ``task`` (one string per sample) and adds ``observation.language.tokens``, int64
    ``(B, max_words)``, and ``observation.language.indicator``, int64 ``(B,)`` with the codes of
    :mod:`pipeline.prompts` (1 positive, 0 negative, -1 none). With ``subtasks``, the names that the policy
    knows, a sub-task behind the task becomes ``observation.language.subtask``, int64 ``(B,)``: its number,
    or -1 where the prompt names none of them.
    """

    word_buckets: int = 512
    max_words: int = 16
    subtasks: list[str] = field(default_factory=list)

    def observation(self, observation: RobotObservation) -> RobotObservation:
        """Adds the two tensors; raises ``InputError`` when the batch has no task text."""
        prompts = (self.transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        if not isinstance(prompts, list | tuple) or not all(isinstance(p, str) for p in prompts):
            raise InputError("the batch has no task text: put one prompt per sample under 'task'")
        parsed = [parse_prompt(text) for text in prompts]
        indicators = [_INDICATOR_CODES[indicator] for _, indicator in parsed]
        tasks = [task for task, _ in parsed]
        added = {}
        if self.subtasks:
            split = [split_subtask(task) for task in tasks]
            tasks = [task for task, _ in split]
            numbers = [subtask_number(subtask, self.subtasks) for _, subtask in split]
            added = {OBS_SUBTASK: torch.tensor(numbers, dtype=torch.int64)}
        tokens = [hash_words(task, self.word_buckets, self.max_words) for task in tasks]
        return {
            **observation,
            **added,
            OBS_LANGUAGE_TOKENS: torch.tensor(tokens, dtype=torch.int64),
            OBS_INDICATOR: torch.tensor(indicators, dtype=torch.int64),
        }

    def get_config(self) -> dict[str, Any]:
        """What rebuilds this step."""
        settings: dict[str, Any] = {"word_buckets": self.word_buckets, "max_words": self.max_words}
        return {**settings, "subtasks": list(self.subtasks)} if self.subtasks else settings

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Declares the tensors that are added."""
        observation = features[PipelineFeatureType.OBSERVATION]
        observation[OBS_LANGUAGE_TOKENS] = PolicyFeature(FeatureType.LANGUAGE, (self.max_words,))
        observation[OBS_INDICATOR] = PolicyFeature(FeatureType.LANGUAGE, (1,))
        if self.subtasks:
            observation[OBS_SUBTASK] = PolicyFeature(FeatureType.LANGUAGE, (1,))
        return features


@ProcessorStepRegistry.register("gen3_vla_clip_action")
@dataclass
class ClipActionProcessorStep(ProcessorStep):
    """Clips normalised actions to [-1, 1]: LeRobot's quantile scaling alone leaves the tails outside."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition with its action, if it has one, clipped."""
        action = transition.get(TransitionKey.ACTION)
        if action is None:
            return transition
        return {**transition, TransitionKey.ACTION: action.clamp(-1.0, 1.0)}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Clipping changes no shape."""
        return features


def widen_action_range(stats: dict[str, torch.Tensor], min_range: float) -> dict[str, torch.Tensor]:
    """``q01`` and ``q99`` moved apart, symmetrically, to at least ``min_range``; other statistics kept."""
    q01, q99 = (torch.as_tensor(stats[name], dtype=torch.float32) for name in ("q01", "q99"))
    centre, half = (q01 + q99) / 2, ((q99 - q01) / 2).clamp_min(min_range / 2)
    return {**stats, "q01": centre - half, "q99": centre + half}


def make_gen3_vla_pre_post_processors(
    config: Gen3VLAConfig,
    dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None,
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """The pipelines of ``gen3_vla``; LeRobot finds this function by its name.

    Only the action's ``q01`` and ``q99`` (7,) are used of ``dataset_stats``.
    """
    stats = {}
    if dataset_stats and ACTION in dataset_stats:
        stats[ACTION] = widen_action_range(dataset_stats[ACTION], config.min_action_range)
    steps = make_default_policy_processor_steps(config, stats)
    return make_policy_processor_pipelines(
        input_steps=[
            steps.rename_observations,
            steps.add_batch_dim,
            PromptProcessorStep(config.word_buckets, config.max_words, config.subtasks),
            steps.to_device,
            steps.normalize,
            ClipActionProcessorStep(),
        ],
        output_steps=[ClipActionProcessorStep(), steps.unnormalize, steps.to_cpu],
    )

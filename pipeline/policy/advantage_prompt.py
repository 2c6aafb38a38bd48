"""Where a policy is told its advantage: processor steps that are saved with any LeRobot checkpoint.

A policy that reads text gets the indicator behind the task (:class:`AdvantagePromptStep`); one that
does not gets it as one more number of its state (:class:`AdvantageStateStep`). Both act on the prompt
in ``task``, so training, our own runner and LeRobot's commands give it the same way. Where a prompt
says nothing, as those of LeRobot's commands do, the saved step asks for "positive" by itself.

The classes are not in LeRobot's registry on purpose: a registered step is only found once somebody has
imported its module, while an unregistered one is saved under its import path and imported by LeRobot
itself. So a fine-tuned SmolVLA loads in ``lerobot-rollout`` wherever this package is installed, with no
``--policy.discover_packages_path``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature, PreTrainedConfig
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStep,
    TokenizerProcessorStep,
)
from lerobot.utils.constants import OBS_STATE

from pipeline.errors import InputError
from pipeline.prompts import Indicator, parse_prompt, prompt

WhenAbsent = Literal["positive", "negative", "nothing"]
Features = dict[PipelineFeatureType, dict[str, PolicyFeature]]

# LeRobot 0.6.1's policies that never look at the task's text.
WITHOUT_LANGUAGE = frozenset({"act", "diffusion", "gaussian_actor", "tdmpc", "vqbet"})

# The state's extra component. Absent lies between the two, as a policy that was told nothing should.
STATE_VALUES: dict[Indicator | None, float] = {"positive": 1.0, "negative": -1.0, None: 0.0}


@dataclass
class AdvantageStep(ProcessorStep):
    """What both steps share: which indicator stands for a prompt that has none.

    ``when_absent`` is "nothing" while this project's own code is at work, which always says what it
    wants. What is *saved* is "positive" once the step has been :meth:`told` that its policy was trained
    on indicators, so that whoever loads the checkpoint later, without knowing of advantages, asks for
    the better actions.
    """

    when_absent: WhenAbsent = "nothing"
    trained: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Refuses another word."""
        if self.when_absent not in ("positive", "negative", "nothing"):
            raise ValueError(f"when_absent is {self.when_absent!r}: use 'positive', 'negative' or 'nothing'")

    def told(self) -> None:
        """From now on it is known that the policy was trained on prompts with an indicator."""
        self.trained = True

    def get_config(self) -> dict[str, Any]:
        """What is saved: see the class."""
        armed = self.trained and self.when_absent == "nothing"
        return {"when_absent": "positive" if armed else self.when_absent}

    def transform_features(self, features: Features) -> Features:
        """Text stays text."""
        return features

    def _parsed(self, transition: EnvTransition) -> list[tuple[str, Indicator | None]] | None:
        """Each sample's task and indicator; ``None`` where the transition has no task."""
        texts = (transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        if texts is None:
            return None
        pairs = [parse_prompt(text) for text in ([texts] if isinstance(texts, str) else texts)]
        if any(indicator is not None for _, indicator in pairs):
            self.told()
        return [(task, indicator or self._default) for task, indicator in pairs]

    @property
    def _default(self) -> Indicator | None:
        return None if self.when_absent == "nothing" else self.when_absent


@dataclass
class AdvantagePromptStep(AdvantageStep):
    """Puts the indicator behind each task that has none; a prompt that has one stays as it is."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition with its prompts, a list of them, in ``task``."""
        pairs = self._parsed(transition)
        if pairs is None:
            return transition
        data = transition[TransitionKey.COMPLEMENTARY_DATA]
        # What cannot carry an indicator, such as an empty task, is left to the policy.
        texts = [prompt(task.strip(), found) if task.strip() else task for task, found in pairs]
        return {**transition, TransitionKey.COMPLEMENTARY_DATA: {**data, "task": texts}}


@dataclass
class AdvantageStateStep(AdvantageStep):
    """Appends the indicator to ``observation.state``: (..., D) becomes (..., D + 1).

    1 is positive, -1 negative, 0 absent (:data:`STATE_VALUES`); every past observation gets the same.
    """

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition with the longer state; raises ``InputError`` where it has none."""
        observation = transition.get(TransitionKey.OBSERVATION) or {}
        state = observation.get(OBS_STATE)
        if state is None:
            raise InputError("the batch has no observation.state, to which the advantage would be added")
        pairs = self._parsed(transition)
        found = [self._default] * len(state) if pairs is None else [indicator for _, indicator in pairs]
        values = torch.tensor([STATE_VALUES[i] for i in found], dtype=state.dtype, device=state.device)
        values = values.view(-1, *[1] * (state.ndim - 1)).expand(*state.shape[:-1], 1)
        longer = torch.cat([state, values], dim=-1)
        return {**transition, TransitionKey.OBSERVATION: {**observation, OBS_STATE: longer}}

    def transform_features(self, features: Features) -> Features:
        """The state is one longer."""
        observation = features[PipelineFeatureType.OBSERVATION]
        if OBS_STATE in observation:
            size = observation[OBS_STATE].shape[0] + 1
            observation[OBS_STATE] = PolicyFeature(FeatureType.STATE, (size,))
        return features


def takes_language(config: PreTrainedConfig) -> bool:
    """Whether policies of this type read the task's text; unknown types are taken to."""
    return config.type not in WITHOUT_LANGUAGE


def advantage_step(preprocessor: PolicyProcessorPipeline[Any, Any]) -> AdvantageStep | None:
    """The pipeline's step of this module, if it has one."""
    return next((step for step in preprocessor.steps if isinstance(step, AdvantageStep)), None)


def add_advantage_step(preprocessor: PolicyProcessorPipeline[Any, Any], step: AdvantageStep) -> None:
    """Puts ``step`` behind the one that makes batches, or first; nothing where there is one already."""
    if advantage_step(preprocessor) is not None:
        return
    batching = [
        i for i, one in enumerate(preprocessor.steps) if isinstance(one, AddBatchDimensionProcessorStep)
    ]
    steps = list(preprocessor.steps)
    steps.insert(batching[0] + 1 if batching else 0, step)
    preprocessor.steps = steps


def require_room(preprocessor: PolicyProcessorPipeline[Any, Any], tasks: Iterable[str]) -> None:
    """Raises ``InputError`` for a task so long that the policy's tokenizer cuts its indicator off.

    Tokenizers cut prompts at their end without a word, which is where the indicator stands.
    """
    readers = [step for step in preprocessor.steps if isinstance(step, TokenizerProcessorStep)]
    for task in sorted(set(tasks)) if readers else ():
        both = [prompt(task, "positive"), prompt(task, "negative")]
        for step in readers:
            read = step.input_tokenizer(both, max_length=step.max_length, truncation=True)["input_ids"]
            if read[0] == read[1]:
                raise InputError(
                    f"the task {task!r} is too long for this policy, which reads {step.max_length} tokens: "
                    "its prompt is cut before the advantage; shorten the task, or raise "
                    "--policy.tokenizer_max_length"
                )

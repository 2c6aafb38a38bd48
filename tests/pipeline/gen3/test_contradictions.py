"""Choices that contradict each other fail when a configuration is built, with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.policy.gen3.choices import check_choices
from tests.pipeline.gen3.choices import CHOICES, small_config

TOKENS = {"backbone": "transformer"}
ALL = {**TOKENS, "conditioning": "cross_attention", "bridge": "full_sequence"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet"}, "use 'conv', 'transformer', 'vlm'"),
        ({"action_head": "diffusion"}, "'regression'"),
        ({"history": "window"}, "'policy_head'"),
        ({"action_head": "bins"}, "backbone 'conv' cannot"),
        ({"conditioning": "cross_attention"}, "reads tokens"),
        ({"bridge": "special_token"}, "reads tokens"),
        ({"state_input": "text"}, "reads tokens"),
        ({"training": "insulated", "backbone_tokens": "fast"}, "reads tokens"),
        ({"subtasks": ["lift"]}, "predicted as words"),
        ({"history": "interleaved", "n_obs_steps": 2}, "interleaved"),
        ({"backbone": "vlm"}, "needs vlm"),
        ({"vlm": "some/folder"}, "leave vlm empty"),
        ({**TOKENS, "bridge": "full_sequence"}, "takes one vector"),
        ({**TOKENS, "training": "insulated"}, "set backbone_tokens"),
        ({**ALL, "training": "frozen", "backbone_tokens": "fast"}, "trains nothing of the backbone"),
        ({**ALL, "training": "frozen", "subtasks": ["lift"]}, "trains nothing of the backbone"),
        ({**TOKENS, "action_head": "fast", "training": "insulated"}, "is the backbone"),
        ({**TOKENS, "action_head": "fast", "backbone_tokens": "bins"}, "is tokens itself"),
        ({**TOKENS, "action_head": "bins", "bridge": "special_token"}, "leads to an expert"),
        ({**TOKENS, "action_head": "regression", "bridge": "full_sequence"}, "reads one vector"),
        ({**TOKENS, "action_head": "regression", "conditioning": "in_context"}, "flow expert"),
        ({"action_head": "regression", "prediction": "actions"}, "flow expert"),
        ({"action_head": "regression", "guidance": 2.0}, "flow's velocity"),
        ({"n_obs_steps": 3}, "contradict each other"),
        ({"history": "policy_head"}, "contradict each other"),
        ({**ALL, "history": "policy_head", "n_obs_steps": 2}, "one vector an observation"),
        ({**TOKENS, "action_head": "bins", "history": "policy_head", "n_obs_steps": 2}, "inside it"),
        (
            {**TOKENS, "subtasks": ["lift"], "history": "policy_head", "n_obs_steps": 2},
            "once for all observations",
        ),
        ({**TOKENS, "subtasks": ["lift", " Lift"]}, "a name of its own"),
        ({**TOKENS, "subtasks": [" "]}, "a name of its own"),
        ({"token_width": 30, "token_heads": 4}, "divide into 4 heads"),
        ({"token_layers": 0}, "token_layers"),
        ({"gripper_weight": -1.0}, "gripper_weight"),
        ({"fast_scale": 0.0}, "fast_scale"),
        ({**TOKENS, "action_head": "fast", "fast_vocabulary": 20}, "alone take 43"),
    ],
)
def test_contradictions_are_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        small_config(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_tested_below_contradicts_nothing(name: str) -> None:
    check_choices(small_config(**CHOICES[name]))

"""Classifier-free guidance of the flow field, against a loop that is written from the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.policy.gen3.encoding import Reading
from pipeline.policy.gen3.flow import FlowHead
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import OBS_INDICATOR
from tests.pipeline.gen3.choices import CHUNK, raw_batch, ready, small_policy

ALL: dict[str, Any] = {
    "backbone": "transformer",
    "conditioning": "cross_attention",
    "bridge": "full_sequence",
}


def woken(**options: Any) -> Gen3VLAPolicy:
    policy = small_policy(**options)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy.eval()


POLICIES = [
    woken(),
    woken(prediction="actions"),
    woken(indicator_input="text"),
    woken(**ALL),
    woken(**ALL, indicator_input="text"),
    woken(**ALL, training="insulated", backbone_tokens="bins"),
]


def slow_reference(policy: Gen3VLAPolicy, batch: dict[str, Any], noise: torch.Tensor) -> torch.Tensor:
    """x' = v_u + beta (v_c - v_u), in Euler steps, sample by sample and step by step."""
    assert isinstance(policy.expert, FlowHead)
    chunks, steps = [], policy.config.num_inference_steps
    for i in range(len(noise)):
        one: dict[str, Any] = {
            k: v[i : i + 1] for k, v in batch.items() if isinstance(v, list | torch.Tensor)
        }
        code = one[OBS_INDICATOR] + 1
        fields = []
        for indicator in (torch.zeros_like(code), code):
            memory, _ = policy._look(one, indicator)
            fields.append(policy.expert.read(Reading(memory, indicator)))
        x = noise[i].flatten()[None, None]
        for step in range(steps):
            time = torch.tensor([[step / steps]])
            velocities = []
            for read in fields:
                output = policy.expert(x, time, read)
                if policy.config.prediction == "actions":
                    output = (output - x) / (1 - step / steps)
                velocities.append(output)
            unconditional, conditional = velocities
            x = x + (unconditional + policy.config.guidance * (conditional - unconditional)) / steps
        chunks.append(x.view(CHUNK, 7))
    return torch.stack(chunks)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, len(POLICIES) - 1), st.floats(0, 3), st.integers(1, 5), st.integers(0, 9))
def test_guidance_is_the_formula(number: int, beta: float, steps: int, seed: int) -> None:
    policy = POLICIES[number]
    policy.config.guidance, policy.config.num_inference_steps = beta, steps
    batch = ready(policy.config, raw_batch(policy.config, 3, seed))
    noise = torch.randn(3, CHUNK, 7, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = slow_reference(policy, batch, noise)
    torch.testing.assert_close(policy.predict_action_chunk(batch, noise), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("number", range(len(POLICIES)))
def test_guidance_changes_nothing_where_no_advantage_is_asked_for(number: int) -> None:
    policy = POLICIES[number]
    batch = ready(policy.config, raw_batch(policy.config, 3))
    noise = torch.randn(3, CHUNK, 7)
    policy.config.guidance = 2.0
    guided = policy.predict_action_chunk(batch, noise)
    policy.config.guidance = 1.0
    plain = policy.predict_action_chunk(batch, noise)
    bare = batch[OBS_INDICATOR] == -1
    torch.testing.assert_close(guided[bare], plain[bare])
    assert not torch.allclose(guided[~bare], plain[~bare], atol=1e-4)


def test_guidance_without_a_flow_is_refused() -> None:
    policy = small_policy(action_head="regression")
    policy.config.guidance = 1.5  # as who asks for it at inference does
    with pytest.raises(InputError, match="flow's velocity"):
        policy.predict_action_chunk(ready(policy.config, raw_batch(policy.config)))

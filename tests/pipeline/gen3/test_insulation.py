"""Where gradients flow: knowledge insulation, joint training, a frozen backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lerobot.utils.constants import ACTION, OBS_STATE

from pipeline.policy.gen3.encoding import Reading
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import OBS_INDICATOR
from tests.pipeline.gen3.choices import raw_batch, ready, small_policy

TOKENS: dict[str, Any] = {"backbone": "transformer"}
ALL: dict[str, Any] = {**TOKENS, "conditioning": "cross_attention", "bridge": "full_sequence"}
INSULATED = [
    {**ALL, "training": "insulated", "backbone_tokens": "fast"},
    {**ALL, "training": "insulated", "backbone_tokens": "bins"},
    {**TOKENS, "training": "insulated", "backbone_tokens": "fast"},
    {**TOKENS, "training": "insulated", "backbone_tokens": "bins", "bridge": "special_token"},
    {
        **TOKENS,
        "training": "insulated",
        "backbone_tokens": "fast",
        "conditioning": "in_context",
        "bridge": "full_sequence",
    },
    {**TOKENS, "training": "insulated", "backbone_tokens": "bins", "action_head": "regression"},
    {**ALL, "training": "insulated", "backbone_tokens": "fast", "history": "interleaved", "n_obs_steps": 2},
]


def awake(policy: Gen3VLAPolicy) -> Gen3VLAPolicy:
    """Gates that start at zero, opened: otherwise there would be no gradient to keep out."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy.train()


def losses(policy: Gen3VLAPolicy) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The expert's loss and the tokens', apart."""
    batch = ready(policy.config, raw_batch(policy.config))
    actions, indicator = batch[ACTION], batch[OBS_INDICATOR] + 1
    counted = torch.ones(actions.shape[:2], dtype=torch.bool)
    memory, tokens = policy._look(batch, indicator, actions, counted)
    assert policy.expert is not None
    expert = policy.expert.errors(Reading(memory, indicator), actions, counted).mean()
    return expert, None if tokens.actions is None else tokens.actions.mean()


def reached(policy: Gen3VLAPolicy, loss: torch.Tensor) -> set[str]:
    """Which parts of the policy get a gradient that is not exactly zero."""
    policy.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {
        name.split(".")[0]
        for name, p in policy.named_parameters()
        if p.grad is not None and bool((p.grad != 0).any())
    }


@pytest.mark.parametrize("options", INSULATED)
def test_the_expert_trains_nothing_of_the_backbone_and_tokens_do(options: dict[str, Any]) -> None:
    policy = awake(small_policy(**options))
    expert, tokens = losses(policy)
    assert tokens is not None
    assert "encoder" not in reached(policy, expert)
    assert "expert" in reached(policy, expert)
    assert reached(policy, tokens) == {"encoder"}
    # To the last parameter: what the tokens train is all of the backbone.
    policy.zero_grad(set_to_none=True)
    tokens.backward()
    assert [name for name, p in policy.encoder.backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("options", INSULATED)
def test_the_expert_does_see_the_backbone(options: dict[str, Any]) -> None:
    policy = awake(small_policy(**options)).eval()
    batch = ready(policy.config, raw_batch(policy.config))
    noise = torch.randn(4, policy.config.chunk_size, 7)
    first = policy.predict_action_chunk(batch, noise)
    batch[OBS_STATE] = batch[OBS_STATE] + 0.3
    assert not torch.allclose(first, policy.predict_action_chunk(batch, noise), atol=1e-4)


def test_only_the_expert_runs_at_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = awake(small_policy(**INSULATED[0]))
    batch = ready(policy.config, raw_batch(policy.config))

    def never(*_: Any) -> None:
        raise AssertionError("action tokens were encoded or predicted")

    monkeypatch.setattr(policy.encoder.speaker, "errors", never)
    monkeypatch.setattr(policy.encoder.speaker, "said", never)
    policy.predict_action_chunk(batch)
    with pytest.raises(AssertionError):
        policy.train().forward(batch)


def test_action_tokens_are_hidden_from_the_expert() -> None:
    policy = awake(small_policy(**INSULATED[1]))
    batch = ready(policy.config, raw_batch(policy.config))
    actions, indicator = batch[ACTION], batch[OBS_INDICATOR] + 1
    counted = torch.ones(actions.shape[:2], dtype=torch.bool)
    seen = [policy._look(batch, indicator, a, counted)[0].prefix for a in (actions, -actions)]
    seen.append(policy._look(batch, indicator)[0].prefix)
    first = seen[0]
    assert first is not None
    for other in seen[1:]:
        assert other is not None
        torch.testing.assert_close(first.hidden, other.hidden)
        for (keys, values), (keys2, values2) in zip(first.layers, other.layers, strict=True):
            torch.testing.assert_close(keys, keys2)
            torch.testing.assert_close(values, values2)


@pytest.mark.parametrize("options", [ALL, {**ALL, "backbone_tokens": "fast"}, TOKENS, {}])
def test_joint_training_reaches_the_backbone_from_the_expert(options: dict[str, Any]) -> None:
    policy = awake(small_policy(**options))
    assert {"encoder", "expert"} <= reached(policy, losses(policy)[0])


@pytest.mark.parametrize("options", [ALL, TOKENS, {}, {"action_head": "regression"}])
def test_a_frozen_backbone_is_not_trained(options: dict[str, Any]) -> None:
    policy = awake(small_policy(**options, training="frozen"))
    assert not any(p.requires_grad for p in policy.encoder.parameters())
    frozen = {id(p) for p in policy.encoder.parameters()}
    assert not frozen & {id(p) for p in policy.get_optim_params()}
    assert "encoder" not in reached(policy, losses(policy)[0])

"""What holds for each choice: it learns, survives saving, repeats itself, and ignores its neighbours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION

from pipeline.errors import InputError
from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.gen3.encoding import held
from pipeline.policy.gen3.flow import FlowExpert
from pipeline.policy.modeling_gen3_vla import ACTION_IS_PAD, Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import make_gen3_vla_pre_post_processors
from tests.pipeline.gen3.choices import CHOICES, CHUNK, SMALL, raw_batch, ready, small_policy, train

each_choice = pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES.keys())


def one_of(batch: dict[str, Any], i: int) -> dict[str, Any]:
    return {k: v[i : i + 1] for k, v in batch.items() if isinstance(v, list | torch.Tensor)}


def made(options: dict[str, Any]) -> tuple[Gen3VLAPolicy, dict[str, Any]]:
    policy = small_policy(**options)
    return policy, raw_batch(policy.config)


@each_choice
def test_a_few_samples_are_learned_and_every_trained_parameter_has_a_part(options: dict[str, Any]) -> None:
    quick = {"prediction": "actions", "noise_samples": 8} if _has_flow(options) else {}
    policy, raw = made({**quick, **options})
    batch = ready(policy.config, raw)
    losses = train(policy, batch, 3)  # gates and what is behind them start at zero
    idle = [
        name
        for name, p in policy.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert idle == []
    losses += train(policy, batch, 60, lr=2e-3)
    assert losses[-1] < 0.5 * losses[0]
    torch.manual_seed(0)
    error = (policy.predict_action_chunk(batch) - batch[ACTION]).abs().mean()
    # Told nothing, it would be 0.4, the mean distance from the middle.
    assert error < 0.25, float(error)


def _has_flow(options: dict[str, Any]) -> bool:
    return options.get("action_head", "flow") == "flow"


@each_choice
def test_a_saved_policy_is_the_same_again(options: dict[str, Any], tmp_path: Path) -> None:
    policy, raw = made(options)
    policy.fit_actions(torch.linspace(-0.5, 0.5, 30 * CHUNK * 7).view(30, CHUNK, 7))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    processors = make_gen3_vla_pre_post_processors(policy.config)
    Checkpoint(policy, *processors).save(tmp_path)
    loaded = get_policy_class("gen3_vla").from_pretrained(tmp_path)
    assert loaded.config == policy.config
    before, _ = make_pre_post_processors(loaded.config, pretrained_path=str(tmp_path))
    batch, again = processors[0](dict(raw)), before(dict(raw))
    noise = torch.randn(4, CHUNK, 7)
    first = policy.predict_action_chunk(batch, noise)
    assert torch.equal(first, loaded.predict_action_chunk(again, noise))
    assert torch.equal(first, policy.predict_action_chunk(batch, noise))
    assert first.shape == (4, CHUNK, 7)
    assert first.isfinite().all()


@each_choice
def test_losses_and_chunks_of_one_sample_are_those_in_a_batch(options: dict[str, Any]) -> None:
    policy, raw = made(options)
    batch = ready(policy.config, raw)
    noise = torch.randn(4, CHUNK, 7)
    together = policy.predict_action_chunk(batch, noise)
    for i in range(4):
        alone = policy.predict_action_chunk(one_of(batch, i), noise[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], atol=2e-5, rtol=1e-4)


@each_choice
def test_the_same_seed_gives_the_same_losses(options: dict[str, Any]) -> None:
    losses = []
    for _ in range(2):
        policy, raw = made(options)
        losses.append(train(policy, ready(policy.config, raw), 3))
    assert losses[0] == losses[1]


def test_a_step_that_does_not_count_repeats_the_last_that_does() -> None:
    actions = torch.arange(8.0).view(2, 4, 1)
    counted = torch.tensor([[True, True, False, False], [True, False, True, False]])
    assert held(actions, counted)[..., 0].tolist() == [[0, 1, 1, 1], [4, 4, 6, 6]]
    assert torch.equal(held(actions, torch.ones(2, 4, dtype=torch.bool)), actions)


@each_choice
def test_padded_steps_change_no_loss(options: dict[str, Any]) -> None:
    policy, raw = made(options)
    with torch.no_grad():
        for parameter in policy.parameters():  # gates start at zero, and let no step see another
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = ready(policy.config, raw)
    batch[ACTION_IS_PAD] = torch.arange(CHUNK).expand(4, -1) >= torch.tensor([[4], [2], [1], [0]])
    found = []
    for filling in (0.0, 0.7):
        filled = {**batch, ACTION: batch[ACTION].masked_fill(batch[ACTION_IS_PAD][..., None], filling)}
        torch.manual_seed(2)
        loss, _ = policy.train().forward(filled, reduction="none")
        found.append(loss.detach())
        assert loss.shape == (4,)
        torch.manual_seed(2)
        assert policy.forward(filled)[0].isfinite()
    if not isinstance(policy.expert, FlowExpert):  # which says why it reads them
        torch.testing.assert_close(found[0][:3], found[1][:3], atol=0, rtol=0)
    if "subtasks" not in options:
        assert found[0][3] == 0.0
    torch.testing.assert_close(found[0][0], found[1][0])


def test_the_tests_know_every_small_size() -> None:
    assert SMALL["chunk_size"] == CHUNK


def test_fast_tokens_whose_places_were_counted_in_another_way_are_refused(tmp_path: Path) -> None:
    for name in ("fast", "insulated, fast", "bins"):
        small_policy(**CHOICES[name]).save_pretrained(tmp_path)
        assert Gen3VLAPolicy.from_pretrained(tmp_path).config.fast_places == ("numbers" * (name != "bins"))
        stored = json.loads((tmp_path / "config.json").read_text())
        del stored["fast_places"]
        (tmp_path / "config.json").write_text(json.dumps(stored))
        if name == "bins":
            Gen3VLAPolicy.from_pretrained(tmp_path)
        else:
            with pytest.raises(InputError, match="was trained with FAST tokens whose places were"):
                Gen3VLAPolicy.from_pretrained(tmp_path)

"""A vision-language backbone in bfloat16: held in it or under autocast, trained in every way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class

from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import make_gen3_vla_pre_post_processors
from pipeline.policy.tuning import autocast, merged_state, prepare
from tests.pipeline.gen3.choices import CHUNK, raw_batch, ready, small_policy
from tests.tiny_backbone import build_backbone

READS_ALL: dict[str, Any] = {"backbone": "vlm", "conditioning": "cross_attention", "bridge": "full_sequence"}
CHOICES: dict[str, dict[str, Any]] = {
    "joint": READS_ALL,
    "insulated": {**READS_ALL, "training": "insulated", "backbone_tokens": "fast"},
    "frozen": {**READS_ALL, "training": "frozen"},
    "one vector": {"backbone": "vlm", "bridge": "pooled"},
    "spoken": {"backbone": "vlm", "action_head": "bins"},
}
MODEL = "encoder.backbone.model."


@dataclass(frozen=True)
class Tuning:
    """What of a training's configuration is read."""

    lora_rank: int = 0
    precision: str = "bfloat16"


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_backbone(tmp_path_factory.mktemp("vlm"), "tiny", "smolvlm"))


def trained(policy: Gen3VLAPolicy, batch: dict[str, Any], tuning: Tuning, steps: int = 8) -> list[float]:
    """The losses of a few steps as our trainer takes them."""
    parameters = prepare(policy, tuning)
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.0)
    policy.train()
    losses = []
    for _ in range(steps):
        torch.manual_seed(1)
        with autocast(policy, tuning):
            loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    policy.eval()
    return losses


@pytest.mark.parametrize(
    ("name", "held"),
    [*((name, "bfloat16") for name in CHOICES), ("joint", "float32"), ("insulated", "float32")],
)
def test_it_learns_and_its_checkpoint_acts_the_same(name: str, held: str, vlm: str, tmp_path: Path) -> None:
    policy = small_policy(**CHOICES[name], vlm=vlm, vlm_dtype=held, noise_samples=8)
    batch = ready(policy.config, raw_batch(policy.config, 3))
    losses = trained(policy, batch, Tuning())
    assert losses[-1] < 0.95 * losses[0]
    weights = dict(policy.named_parameters())
    assert {p.dtype for n, p in weights.items() if n.startswith(MODEL)} == {getattr(torch, held)}
    assert {p.dtype for n, p in weights.items() if not n.startswith(MODEL)} == {torch.float32}
    touched = any(p.grad is not None and bool(p.grad.any()) for n, p in weights.items() if MODEL in n)
    assert touched == (name != "frozen")
    policy.save_pretrained(tmp_path)
    loaded = get_policy_class("gen3_vla").from_pretrained(tmp_path)
    assert loaded.config.vlm_dtype == held
    noise = torch.randn(3, CHUNK, 7)
    # Acting needs no autocast: the expert takes the backbone's keys and values as they are.
    chunk = policy.predict_action_chunk(batch, noise)
    assert chunk.dtype == torch.float32 and torch.equal(chunk, loaded.predict_action_chunk(batch, noise))
    with autocast(policy, Tuning()):
        lower = policy.predict_action_chunk(batch, noise)
    if name != "spoken":  # the most likely of 256 hardly trained bins may be another
        assert float((lower.float() - chunk).abs().mean()) < 0.1


def test_insulation_is_exact_in_bfloat16(vlm: str) -> None:
    policy = small_policy(**CHOICES["insulated"], vlm=vlm, token_weight=0.0)
    batch = ready(policy.config, raw_batch(policy.config, 3))
    policy.train()
    with autocast(policy, Tuning()):
        loss, _ = policy.forward(batch)
    loss.backward()
    backbone = [p.grad for n, p in policy.named_parameters() if n.startswith("encoder.")]
    assert not any(grad is not None and bool(grad.any()) for grad in backbone)
    assert all(p.grad is not None for n, p in policy.named_parameters() if n.startswith("expert.leave"))


@pytest.mark.parametrize("name", ["joint", "frozen"])
def test_adapters_beside_bfloat16_weights(name: str, vlm: str, tmp_path: Path) -> None:
    policy = small_policy(**CHOICES[name], vlm=vlm, vlm_dtype="bfloat16", noise_samples=8)
    batch = ready(policy.config, raw_batch(policy.config, 3))
    losses = trained(policy, batch, Tuning(lora_rank=2), steps=12)
    assert losses[-1] < losses[0]
    adapters = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    assert all(".lora_" in n and p.dtype == torch.float32 and p.grad is not None for n, p in adapters.items())
    assert any(n.startswith(MODEL) for n in adapters) == (name != "frozen")
    merged = merged_state(policy)
    Checkpoint(policy, *make_gen3_vla_pre_post_processors(policy.config)).save(tmp_path)
    loaded = get_policy_class("gen3_vla").from_pretrained(tmp_path)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, merged[key]), key


def test_the_image_tower_is_run_again_instead_of_kept(vlm: str) -> None:
    grads, runs = [], []
    for again in (False, True):
        policy = small_policy(**CHOICES["joint"], vlm=vlm, gradient_checkpointing=again)
        batch = ready(policy.config, raw_batch(policy.config, 3))
        count: list[None] = []
        layer = policy.encoder.backbone.model.vision_model.encoder.layers[0].self_attn
        layer.register_forward_hook(lambda *_, count=count: count.append(None))
        policy.train()
        with torch.no_grad():  # past the zeros of adaLN, so that something reaches the backbone
            for name, parameter in policy.named_parameters():
                if name.endswith("modulation.bias"):
                    parameter.fill_(0.5)
        torch.manual_seed(1)
        policy.forward(batch)[0].backward()
        runs.append(len(count))
        grads.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
    assert runs[1] == 2 * runs[0]
    assert grads[0].keys() == grads[1].keys()
    assert any("vision_model" in name and bool(grad.any()) for name, grad in grads[0].items())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], msg=name)


def test_contradictions_fail_when_configured(vlm: str) -> None:
    with pytest.raises(ValueError, match="vlm_dtype is 'float16'"):
        small_policy(**READS_ALL, vlm=vlm, vlm_dtype="float16")
    with pytest.raises(ValueError, match="gradient_checkpointing is for the image tower"):
        small_policy(gradient_checkpointing=True)

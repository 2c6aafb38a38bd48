"""A vision-language model from a folder as backbone: read, trained, frozen, insulated, saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class
from lerobot.utils.constants import ACTION

from pipeline.errors import InputError
from tests.pipeline.gen3.choices import CHUNK, SUBTASKS, raw_batch, ready, small_policy, train
from tests.tiny_backbone import build_backbone

ALL: dict[str, Any] = {"backbone": "vlm", "conditioning": "cross_attention", "bridge": "full_sequence"}
CHOICES: dict[str, dict[str, Any]] = {
    "everything": ALL,
    "insulated": {**ALL, "training": "insulated", "backbone_tokens": "bins"},
    "frozen": {**ALL, "training": "frozen"},
    "bins": {"backbone": "vlm", "action_head": "bins"},
    "text": {"backbone": "vlm", "state_input": "text", "indicator_input": "text"},
    "history": {**ALL, "history": "interleaved", "n_obs_steps": 2, "state_input": "tokens"},
    "sub-tasks": {"backbone": "vlm", "bridge": "special_token", "subtasks": SUBTASKS},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("vlm")
    return {name: str(build_backbone(root / name, "tiny", name)) for name in ("smolvlm", "paligemma")}


@pytest.mark.parametrize("family", ["smolvlm", "paligemma"])
@pytest.mark.parametrize("name", CHOICES)
def test_it_learns_and_its_checkpoint_needs_no_other_files(
    family: str, name: str, folders: dict[str, str], tmp_path: Path
) -> None:
    copied = shutil.copytree(folders[family], tmp_path / "model")
    policy = small_policy(**CHOICES[name], vlm=str(copied), noise_samples=8)
    raw = raw_batch(policy.config, 3)
    batch = ready(policy.config, raw)
    losses = train(policy, batch, 12)
    assert losses[-1] < 0.8 * losses[0]
    grads = {n for n, p in policy.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert any(n.startswith("encoder.backbone.model.") for n in grads) == (name != "frozen")
    policy.save_pretrained(tmp_path / "checkpoint")
    shutil.rmtree(copied)
    loaded = get_policy_class("gen3_vla").from_pretrained(tmp_path / "checkpoint")
    noise = torch.randn(3, CHUNK, 7)
    chunk = policy.predict_action_chunk(batch, noise)
    assert torch.equal(chunk, loaded.predict_action_chunk(batch, noise))
    assert chunk.shape == batch[ACTION].shape


@pytest.mark.parametrize("family", ["smolvlm", "paligemma"])
def test_one_pass_over_all_equals_two_with_a_cache(family: str, folders: dict[str, str]) -> None:
    backbone = small_policy(**ALL, vlm=folders[family]).eval().encoder.backbone
    tokens = backbone.scale * torch.randn(2, 9, backbone.width)
    present = torch.ones(2, 9, dtype=torch.bool)
    present[1, 3:5] = False
    with torch.no_grad():
        whole, _ = backbone.run(tokens, present, None, causal=True)
        _, cache = backbone.run(tokens[:, :5], present[:, :5], None, causal=True)
        rest, _ = backbone.run(tokens[:, 5:], present[:, 5:], cache, causal=True)
        torch.testing.assert_close(whole[:, 5:], rest, atol=1e-4, rtol=1e-4)
        # The first part is seen whole: its early tokens see its late ones.
        full, _ = backbone.run(tokens, present, None, causal=False)
    assert not torch.allclose(full[:, 0], whole[:, 0], atol=1e-3)


def test_what_is_no_vision_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        small_policy(**ALL, vlm=str(tmp_path))
    clip = build_backbone(tmp_path / "clip", "tiny", "clip")
    with pytest.raises(InputError, match="of type 'clip'"):
        small_policy(**ALL, vlm=str(clip))

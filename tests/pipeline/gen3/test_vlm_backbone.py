"""A vision-language model from a folder as backbone: read, trained, frozen, insulated, saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.episode import CAMERAS
from pipeline.errors import InputError
from tests.pipeline.gen3.choices import CHUNK, SUBTASKS, raw_batch, ready, small_policy, train
from tests.tiny_backbone import Family, build_backbone

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
FAMILIES: tuple[Family, ...] = ("smolvlm", "idefics3", "paligemma", "llava")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("vlm")
    return {name: str(build_backbone(root / name, "tiny", name)) for name in FAMILIES}


@pytest.mark.parametrize(
    ("family", "name"),
    [*((f, n) for f in ("smolvlm", "paligemma") for n in CHOICES), ("llava", "everything")],
)
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


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_pretrained_part_sees_what_it_was_trained_on(family: Family, folders: dict[str, str]) -> None:
    """Prompts, positions, mask and images are those of the public ``forward``; the state changes nothing."""
    policy = small_policy(**ALL, vlm=folders[family]).eval()
    backbone = policy.encoder.backbone
    batch = ready(policy.config, raw_batch(policy.config, 2))
    indicator = torch.zeros(2, dtype=torch.int64)
    tokens, present = backbone.observe(batch, indicator)
    ours, _ = backbone.run(tokens, present, None, causal=False)

    ids = backbone.prompt_tokens(batch, indicator)
    assert bool((ids >= 0).all()), "both tasks are equally long, so nothing is padded"
    cameras = [batch[f"{OBS_IMAGES}.{camera}"].permute(0, 2, 3, 1) for camera in CAMERAS]
    pixels = backbone.images(torch.stack(cameras, dim=1))
    inputs = {"pixel_values": pixels if backbone.family.images_per_prompt else pixels.flatten(0, 1)}
    if family == "paligemma":
        inputs["token_type_ids"] = torch.zeros_like(ids)
    theirs = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).last_hidden_state

    assert ours.shape[1] == ids.shape[1] + 1
    torch.testing.assert_close(ours[:, :-1], theirs, atol=2e-4, rtol=1e-3)
    moved = {**batch, OBS_STATE: batch[OBS_STATE].flip(0)}
    again, _ = backbone.run(*backbone.observe(moved, indicator), None, causal=False)
    assert torch.equal(again[:, :-1], ours[:, :-1])
    assert not torch.allclose(again[:, -1], ours[:, -1], atol=1e-3)


@torch.no_grad()
def test_steps_before_the_start_are_there_for_none_to_see(folders: dict[str, str]) -> None:
    for family in ("smolvlm", "paligemma"):
        policy = small_policy(**CHOICES["history"], vlm=folders[family]).eval()
        batch = ready(policy.config, raw_batch(policy.config, 2))
        absent = torch.tensor([[True, False], [False, False]])
        indicator = torch.zeros(2, dtype=torch.int64)
        last = []
        for value in (0, 200):
            other = {**batch, f"{OBS_STATE}_is_pad": absent}
            for camera in CAMERAS:
                images = batch[f"{OBS_IMAGES}.{camera}"].clone()
                images[0, 0] = value
                other[f"{OBS_IMAGES}.{camera}"] = images
            last.append(policy.encoder(other, indicator)[0].hidden[:, -1])
        assert torch.equal(last[0], last[1])
        whole = policy.encoder(batch, indicator)[0].hidden[:, -1]
        torch.testing.assert_close(whole[1], last[0][1])
        assert not torch.allclose(whole[0], last[0][0], atol=1e-3)


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
        # Where the family's prompt is seen whole, its early tokens see its late ones.
        full, _ = backbone.run(tokens, present, None, causal=False)
    assert torch.allclose(full[:, 0], whole[:, 0], atol=1e-3) == (family == "smolvlm")


def test_what_is_no_vision_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks config\.json"):
        small_policy(**ALL, vlm=str(tmp_path))
    clip = build_backbone(tmp_path / "clip", "tiny", "clip")
    with pytest.raises(InputError, match="of type 'clip'"):
        small_policy(**ALL, vlm=str(clip))
    with pytest.raises(InputError, match="is not on this machine"):
        small_policy(**ALL, vlm="lab/some-model")


def test_random_weights_are_only_made_where_there_are_none_at_all(
    folders: dict[str, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["smolvlm"], tmp_path / "model")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    first, same, other = (small_policy(seed, **ALL, vlm=str(folder)) for seed in (0, 0, 1))
    name = "encoder.backbone.model.text_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="save them as safetensors"):
        small_policy(**ALL, vlm=str(folder))
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be loaded"):
        small_policy(**ALL, vlm=str(folder))
    weights.write_bytes(content)
    shape = json.loads((folder / "config.json").read_text())
    shape["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(shape))
    with pytest.raises(InputError, match=r"lacks [0-9]+ of its weights"):
        small_policy(**ALL, vlm=str(folder))

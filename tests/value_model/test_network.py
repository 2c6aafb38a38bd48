"""The interface of value networks, and the small network behind it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import InputError
from tests.value_model.synthetic import BLUE, RED, make_table
from value_model.checkpoint import (
    RECORD_NAME,
    ModelRecord,
    load_network,
    read_record,
    save_checkpoint,
    verify_weights,
)
from value_model.inputs import check_table, episode_tokens
from value_model.network import (
    SmallNetworkConfig,
    SmallValueNetwork,
    ValueNetwork,
    ValueNetworkConfig,
    build_network,
    flops_per_frame,
    network_config,
    parameter_counts,
    pin_backbone,
    tokenize,
)

SMALL = SmallNetworkConfig(image_size=24, patch=4, state_size=3, channels=(8, 8, 8), width=16)


def small(seed: int = 7) -> ValueNetwork:
    torch.manual_seed(seed)
    return build_network(SMALL).eval()


def inputs(network: ValueNetwork) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 2, 24, 24, 3), dtype=torch.uint8, generator=generator)
    state = torch.randn(4, 3, generator=generator)
    return images, state, network.tokenize(["pick up the red cube", "stack it"])[[0, 1, 0, 1]]


@torch.no_grad()
def test_the_small_network_is_the_one_that_earlier_checkpoints_hold() -> None:
    """Figures of the network before there was a second one, by the same seeds."""
    network = small()
    logits = network(*inputs(network))

    assert isinstance(network, SmallValueNetwork)
    expected = torch.tensor([0.2435515, -0.1325254, -0.0919150, -0.0021371])
    torch.testing.assert_close(logits[0, :4], expected, atol=1e-4, rtol=0)
    assert float(logits.double().pow(2).sum()) == pytest.approx(35.45125, abs=0.01)
    assert ValueNetworkConfig is SmallNetworkConfig


def test_tokens_are_those_of_the_words() -> None:
    network = small()
    tokens = network.tokenize([RED, BLUE])
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [tokenize(task, SMALL.vocabulary, SMALL.words) for task in (RED, BLUE)]
    assert network.tokenize([]).shape == (0, SMALL.words)
    assert torch.equal(episode_tokens(make_table([3, 4], tasks=[BLUE, RED]), network), tokens.flip(0))
    with pytest.raises(InputError, match="has no word in it"):
        network.tokenize(["?"])


@torch.no_grad()
def test_states_are_normalised_by_what_was_fitted() -> None:
    network = small()
    images, state, tokens = inputs(network)
    expected = network(images, (state - 5) / 2, tokens)
    network.fit_inputs(torch.tensor([[3.0] * 3, [5.0] * 3, [7.0] * 3]))
    torch.testing.assert_close(network(images, state, tokens), expected)
    network.fit_inputs(torch.ones(5, 3))  # a constant state is not blown up
    assert network.state_scale.tolist() == pytest.approx([0.01] * 3)


def test_a_saved_network_is_the_same_again(tmp_path: Path) -> None:
    network = small()
    network.fit_inputs(torch.randn(9, 3))
    save_checkpoint(tmp_path, network, ModelRecord(1, 0, ("a", "b"), SMALL, {"x": 1}, 5, 0.5, None))
    record = read_record(tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert record == ModelRecord(1, 0, ("a", "b"), SMALL, {"x": 1}, 5, 0.5, None, weights_sha256=digest)
    torch.manual_seed(3)
    loaded = load_network(tmp_path, record)
    assert not loaded.training
    assert torch.equal(loaded(*inputs(loaded)), network(*inputs(network)))


def test_records_from_before_kinds_are_small(tmp_path: Path) -> None:
    network = small()
    save_checkpoint(tmp_path, network, ModelRecord(0, 0, (), SMALL, {}, 1, 0.1, 0.2))
    document = json.loads((tmp_path / RECORD_NAME).read_text())
    assert document["network"].pop("kind") == "small"
    (tmp_path / RECORD_NAME).write_text(json.dumps(document))
    assert read_record(tmp_path).network == SMALL


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"kind": "huge"}, "kind 'huge': there are small and vlm"),
        ({"kind": None}, "kind None"),
        ({"colour": 3}, "no field 'colour'"),
        ({"kind": "small", "cameras": "two"}, "wrong type"),
        ({"channels": [1, 2]}, "three positive numbers"),
        ({"kind": "vlm"}, "name its backbone"),
    ],
)
def test_configurations_that_no_network_has_are_refused(document: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        network_config(document)
    assert "\n" not in str(caught.value)


def test_damaged_records_and_weights_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, small(), ModelRecord(0, 0, (), SMALL, {}, 1, 0.1, 0.2))
    record = read_record(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    overwritten = whole[:-40] + bytes(8) + whole[-32:]
    assert overwritten != whole
    for content in (b"", whole[:200], whole[: len(whole) // 2], overwritten):
        weights.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors is damaged: .* delete that step's folder"):
            load_network(tmp_path, record)
        with pytest.raises(InputError, match=re.escape(f"folder ({tmp_path}) and run 'recap value train'")):
            verify_weights(tmp_path)
    # Where a step trained the model, it is the step's folder that has to go.
    step = tmp_path / "step"
    save_checkpoint(step / "checkpoint", small(), record)
    (step / "manifest.json").write_text("{}")
    verify_weights(step / "checkpoint")
    (step / "checkpoint/model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read") as caught:
        load_network(step / "checkpoint", record)
    assert f"folder ({step}) and" in str(caught.value) and "\n" not in str(caught.value)
    for text in ("", "[]", '{"format_version": 1}', '{"format_version": 1, "network": {"kind": "huge"}}'):
        (tmp_path / RECORD_NAME).write_text(text)
        with pytest.raises(InputError):
            read_record(tmp_path)


def test_records_from_before_weights_had_a_digest_load(tmp_path: Path) -> None:
    network = small()
    save_checkpoint(tmp_path, network, ModelRecord(0, 0, (), SMALL, {}, 1, 0.1, 0.2))
    document = json.loads((tmp_path / RECORD_NAME).read_text())
    assert document.pop("weights_sha256")
    (tmp_path / RECORD_NAME).write_text(json.dumps(document))
    verify_weights(tmp_path)
    loaded = load_network(tmp_path, read_record(tmp_path))
    assert torch.equal(loaded(*inputs(loaded)), network.eval()(*inputs(network)))
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"cannot be read .* delete that step's folder"):
        load_network(tmp_path, read_record(tmp_path))


def test_configurations_survive_json() -> None:
    assert network_config(json.loads(json.dumps(asdict(SMALL)))) == SMALL
    assert pin_backbone(SMALL) is SMALL


def test_tables_of_another_shape_are_refused() -> None:
    table = make_table([3])
    check_table(table, SmallNetworkConfig(cameras=1, image_size=24))
    with pytest.raises(InputError, match="frames have images of shape"):
        check_table(table, SmallNetworkConfig(cameras=2, image_size=24))
    with pytest.raises(InputError, match="15 state values"):
        check_table(table, SmallNetworkConfig(cameras=1, image_size=24, state_size=7))


def test_sizes_are_counted() -> None:
    network = small()
    trained, total = parameter_counts(network)
    assert trained == total == sum(p.numel() for p in network.parameters())
    # The first convolution alone: 2 cameras, 6x6 places, 8 channels, 4x4x3 products of 2 operations.
    assert flops_per_frame(network) > 2 * 36 * 8 * 48 * 2
    assert not network.training

"""Frozen, LoRA and full: what trains, what stays, what is kept in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import InputError
from tests.tiny_backbone import FAMILIES, Family, build_backbone
from tests.value_model.test_vlm_forward import LONG, SHORT, build, frames
from value_model.network import parameter_counts

TUNES = ("frozen", "lora", "full")


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("backbones")
    return {family: build_backbone(folder / family, family=family) for family in FAMILIES}


def loss_of(network: Any, seed: int = 0) -> Tensor:
    images, state = frames(4, seed)
    tokens = network.tokenize([SHORT, LONG])[[0, 1, 0, 1]]
    return functional.cross_entropy(network(images, state, tokens), torch.tensor([3, 60, 120, 200]))


def step(network: Any) -> dict[str, bool]:
    """Two optimiser steps (LoRA's first factor moves in the second); which parameters they changed."""
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(network).backward()
        optimizer.step()
    return {name: not torch.equal(p, before[name]) for name, p in network.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_leaves_the_backbone_as_it_was(family: Family, backbones: dict[str, Path]) -> None:
    network: Any = build(backbones[family], tune="frozen", dropout=0.0).train()
    assert not network.backbone.training
    changed = step(network)

    assert all(moved != name.startswith("backbone.") for name, moved in changed.items())
    assert all(p.grad is None for p in network.backbone.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_trains_adapters_and_head_only(family: Family, backbones: dict[str, Path]) -> None:
    network: Any = build(backbones[family], tune="lora", dropout=0.0, lora_rank=4).train()
    changed = step(network)

    frozen = [n for n in changed if n.startswith("backbone.") and "lora_" not in n]
    assert frozen
    assert not any(changed[name] for name in frozen)
    still = [name for name, moved in changed.items() if not moved and name not in frozen]
    assert not still
    assert sum("lora_" in name for name in changed) >= 8


@pytest.mark.parametrize("family", FAMILIES)
def test_full_gives_every_trained_weight_a_gradient(family: Family, backbones: dict[str, Path]) -> None:
    network: Any = build(backbones[family], tune="full", dropout=0.0).train()
    loss_of(network).backward()

    without = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    trained, total = parameter_counts(network)
    assert 0.8 * total < trained <= total


def test_counts_of_trained_parameters_grow_from_frozen_to_full(backbones: dict[str, Path]) -> None:
    counts = [parameter_counts(build(backbones["smolvlm"], tune=tune, lora_rank=2)) for tune in TUNES]
    assert counts[0][0] < counts[1][0] < counts[2][0] == counts[2][1]
    assert counts[0][1] == counts[2][1] < counts[1][1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_backbone_keeps_no_activations(family: Family, backbones: dict[str, Path]) -> None:
    """Only the state's and the value's token (dual encoders: none) pass it in a way that is kept."""
    network: Any = build(backbones[family], tune="frozen").train()
    kept: list[int] = []

    def note(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            kept.append(output.shape[1])

    for module in network.backbone.modules():
        module.register_forward_hook(note)
    loss_of(network).backward()

    assert max(kept, default=0) <= 2
    assert bool(kept) == (family not in ("siglip", "clip"))


@pytest.mark.parametrize("family", ["siglip", "smolvlm", "idefics3", "paligemma", "llava"])
@pytest.mark.parametrize("state_size", [0, 3])
def test_frozen_values_are_the_same_with_and_without_gradients(
    family: Family, state_size: int, backbones: dict[str, Path]
) -> None:
    network: Any = build(backbones[family], tune="frozen", state_size=state_size)
    with torch.no_grad():
        scored = loss_of(network)
    torch.testing.assert_close(loss_of(network).detach(), scored, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["siglip", "smolvlm", "paligemma"])
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_checkpointing_gives_the_same_gradients(
    family: Family, tune: str, backbones: dict[str, Path]
) -> None:
    grads, passes = [], []
    for checkpointing in (False, True):
        network: Any = build(
            backbones[family], tune=tune, gradient_checkpointing=checkpointing, dropout=0.0
        ).train()
        with torch.no_grad():  # adapters start at zero, which hides what is behind them
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.02)
        runs: list[int] = []
        linear = next(m for n, m in network.backbone.named_modules() if n.endswith("layers.1.mlp.fc1"))
        linear.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        loss_of(network).backward()
        grads.append({n: p.grad for n, p in network.named_parameters() if p.requires_grad})
        passes.append(len(runs))

    assert passes == [1, 2]
    torch.testing.assert_close(grads[1], grads[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("family", ["siglip", "smolvlm"])
def test_bfloat16_trains(tune: str, family: Family, backbones: dict[str, Path]) -> None:
    """The loss falls, and what the optimiser moves is float32."""
    network: Any = build(backbones[family], tune=tune, precision="bfloat16", dropout=0.0).train()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(network)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_lora_on_layers_that_are_not_there_is_refused(backbones: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="does not fit the backbone") as caught:
        build(backbones["siglip"], tune="lora", lora_targets=("no_such_layer",))
    assert "\n" not in str(caught.value)

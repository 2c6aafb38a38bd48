"""Language matters: the same frame under another task gets another value, in every kind of network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.tiny_backbone import Family, build_backbone
from tests.value_model.synthetic import BLUE, RED, SIZE, make_table
from value_model.bins import ValueBins
from value_model.inputs import check_table, episode_tokens
from value_model.network import (
    NetworkConfig,
    SmallNetworkConfig,
    ValueNetwork,
    VlmNetworkConfig,
    build_network,
)

_LOW, _HIGH = -0.9, -0.1


def picture(red: bool, rng: np.random.Generator) -> np.ndarray:
    """One frame ``(1, 1, SIZE, SIZE, 3)``: a red or a blue square, where it happens to be."""
    image = rng.integers(0, 60, size=(1, 1, SIZE, SIZE, 3), dtype=np.uint8)
    row, column = rng.integers(2, SIZE - 14, size=2)
    image[0, 0, row : row + 12, column : column + 12] = (230, 0, 0) if red else (0, 0, 230)
    return image


def train(network: ValueNetwork, rng: np.random.Generator, steps: int, learning_rate: float) -> None:
    """Every picture is there under both tasks, worth much under the one that names its colour."""
    pictures = [picture(i % 2 == 0, rng) for i in range(48)]
    table = make_table([1] * 96, [RED] * 48 + [BLUE] * 48, images=pictures * 2)
    check_table(table, network.config)
    good = np.array([(i % 2 == 0) == (i < 48) for i in range(96)])
    targets = ValueBins(network.config.bins).two_hot(
        torch.tensor(np.where(good, _HIGH, _LOW), dtype=torch.float32)
    )
    tokens = episode_tokens(table, network)[table.episode_index]
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    network.train()
    for _ in range(steps):
        batch = rng.choice(96, 32, replace=False)
        logits = network(torch.as_tensor(table.images(batch)), torch.zeros(32, 0), tokens[batch])
        optimizer.zero_grad()
        functional.cross_entropy(logits, targets[batch]).backward()
        optimizer.step()
    network.eval()


def check_language(config: NetworkConfig, steps: int, learning_rate: float) -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    network = build_network(config)
    train(network, rng, steps, learning_rate)
    new = torch.as_tensor(np.concatenate([picture(i % 2 == 0, rng) for i in range(16)]))
    with torch.no_grad():
        values = [
            ValueBins(config.bins).expectation(
                network(new, torch.zeros(16, 0), network.tokenize([task] * 16))
            )
            for task in (RED, BLUE)
        ]
    difference = values[0] - values[1]
    # The very same frame is worth more under the task that names what is in it.
    assert difference[0::2].mean() > 0.4
    assert difference[1::2].mean() < -0.4
    assert (difference[0::2] > 0.1).float().mean() >= 0.8
    assert (difference[1::2] < -0.1).float().mean() >= 0.8


def test_the_small_network_reads_the_task() -> None:
    check_language(
        SmallNetworkConfig(
            cameras=1, image_size=SIZE, state_size=0, patch=4, channels=(16, 16, 16), width=48, dropout=0.1
        ),
        steps=100,
        learning_rate=3e-3,
    )


@pytest.mark.parametrize(
    ("family", "tune", "steps"),
    [("siglip", "frozen", 60), ("clip", "lora", 60), ("smolvlm", "frozen", 200), ("paligemma", "full", 200)],
)
def test_a_backbones_network_reads_the_task(family: Family, tune: str, steps: int, tmp_path: Path) -> None:
    check_language(
        VlmNetworkConfig(
            backbone=str(build_backbone(tmp_path, family=family)),
            cameras=1,
            image_size=SIZE,
            state_size=0,
            tune=tune,  # type: ignore[arg-type]  # pytest's parameters are plain strings
            precision="float32",
            readout_width=64,
            dropout=0.0,
        ),
        steps=steps,
        learning_rate=1e-3 if tune == "full" else 3e-3,
    )

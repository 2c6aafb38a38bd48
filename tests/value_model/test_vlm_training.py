"""A network on a backbone goes through training and scoring like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.tiny_backbone import build_backbone
from tests.value_model.synthetic import SIZE, SMALL, picture_table
from value_model.network import VlmNetworkConfig
from value_model.scoring import score
from value_model.training import train_fold
from value_model.training_config import ValueTrainingConfig


def test_an_ensemble_on_a_frozen_backbone_tells_success_from_failure(tmp_path: Path) -> None:
    backbone = build_backbone(tmp_path / "backbone")
    network = VlmNetworkConfig(
        backbone=str(backbone),
        cameras=1,
        image_size=SIZE,
        state_size=0,
        readout_width=64,
        precision="float32",
    )
    config = replace(SMALL, network=network, steps=60, batch_size=32, evaluate_every=30, warmup_steps=5)
    assert ValueTrainingConfig.from_parameters(config.to_parameters()) == config
    table, outcomes = picture_table(24, np.random.default_rng(0), honest=True)

    folders = [(fold, 0, tmp_path / f"fold{fold}") for fold in range(2)]
    for fold, member, out in folders:
        result = train_fold(table, outcomes, config, fold, member, out)
        assert np.isfinite(result.best_loss)
    values = score(table, folders, config)

    assert values.shape == (len(table),)
    won = np.array([outcomes[i] == "success" for i in table.episode_ids])[table.episode_index]
    assert values[won].mean() > values[~won].mean() + 0.08
    # Nothing of the backbone is in what was saved.
    assert all((out / "model.safetensors").stat().st_size < 3e6 for _, _, out in folders)

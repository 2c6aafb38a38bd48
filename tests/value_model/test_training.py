"""How value models are trained: what a configuration says, early stopping, precision, curves, batches."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from pipeline.errors import InputError
from tests.value_model.synthetic import BLUE, RED, SMALL, picture_table
from value_model.augmentation import draw_shifts, random_shift, shift_images
from value_model.checkpoint import read_record
from value_model.folds import assign_folds
from value_model.network import SmallNetworkConfig, VlmNetworkConfig
from value_model.trainer import Trainer
from value_model.training import ValueTrainingConfig, train_fold
from value_model.training_batches import TrainingBatches
from value_model.training_config import ValueTrainingConfig as Config
from value_model.training_curves import CURVES_NAME, TensorBoardCurves, WandbCurves, read_curves
from value_model.training_group import Group

NETWORKS = st.one_of(
    st.builds(
        SmallNetworkConfig,
        cameras=st.integers(1, 4),
        image_size=st.integers(16, 256),
        channels=st.tuples(*[st.integers(1, 64)] * 3),
        dropout=st.floats(0, 0.9),
    ),
    st.builds(
        VlmNetworkConfig,
        backbone=st.just("owner/name"),
        allow_download=st.just(True),
        tune=st.sampled_from(["frozen", "lora", "full"]),
        lora_targets=st.lists(st.sampled_from(["q_proj", "v_proj"]), min_size=1).map(tuple),
    ),
)
CONFIGS = st.builds(
    Config,
    network=NETWORKS,
    folds=st.integers(2, 9),
    members=st.integers(1, 9),
    steps=st.integers(1, 10**6),
    learning_rate=st.floats(1e-9, 1),
    average=st.floats(0, 0.999),
    target=st.sampled_from(["two_hot", "hl_gauss"]),
    seed=st.integers(0, 2**40),
    device=st.sampled_from(["cpu", "cuda:1"]),
    precision=st.sampled_from(["float32", "bfloat16"]),
)


@given(CONFIGS)
def test_parameters_are_json_and_give_the_configuration_back(config: ValueTrainingConfig) -> None:
    parameters = config.to_parameters()
    assert set(parameters) == {f.name for f in fields(Config)}
    stored = json.loads(json.dumps(parameters, allow_nan=False))
    assert stored == parameters
    assert Config.from_parameters(stored) == config
    assert Config.from_parameters(stored).to_parameters() == parameters


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"step": 3}, "no field 'step'"),
        ({"network": 3}, "network must be a table"),
        ({"network": {"kind": "large"}}, "kind 'large'"),
        ({"precision": "float16"}, "neither float32 nor bfloat16"),
        ({"steps": "many"}, "wrong type"),
        ({"folds": 1}, "2 folds or more"),
    ],
)
def test_parameters_that_cannot_be_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config.from_parameters(parameters)


def test_it_stops_early_and_what_stopped_it_counts_as_seen(tmp_path: Path) -> None:
    table, outcomes = picture_table(20, np.random.default_rng(1), honest=False)
    config = replace(SMALL, steps=2000, evaluate_every=10, patience=2)
    result = train_fold(table, outcomes, config, 0, 0, tmp_path)
    assert result.steps_done < 2000
    assert result.steps_done - result.best_step == 2 * 10
    folds = assign_folds(table, outcomes, config.folds, config.seed)
    assert read_record(tmp_path).seen == tuple(sorted(i for i, fold in folds.items() if fold != 0))
    losses = [value for name, _, value in read_curves(tmp_path / CURVES_NAME) if name == "loss/validation"]
    assert result.validation_loss == min(losses) and losses[-1] > min(losses)


def test_bfloat16_trains_to_about_the_same(tmp_path: Path) -> None:
    table, outcomes = picture_table(12, np.random.default_rng(1), honest=True)
    config = replace(SMALL, steps=60, evaluate_every=20)
    exact = train_fold(table, outcomes, config, 0, 0, tmp_path / "exact")
    coarse = train_fold(table, outcomes, replace(config, precision="bfloat16"), 0, 0, tmp_path / "coarse")
    assert coarse.best_loss != exact.best_loss
    assert coarse.best_loss == pytest.approx(exact.best_loss, rel=0.05)


def test_the_file_of_curves_has_losses_and_rate(tmp_path: Path) -> None:
    table, outcomes = picture_table(12, np.random.default_rng(1), honest=True)
    config = replace(SMALL, steps=40, evaluate_every=20, warmup_steps=0, patience=9)
    result = train_fold(table, outcomes, config, 0, 0, tmp_path)
    points = read_curves(tmp_path / CURVES_NAME)
    assert {name for name, _, _ in points} == {
        "loss/training",
        "loss/validation",
        "learning_rate",
    }
    assert {step for _, step, _ in points} == {20, 40}
    rate = {step: value for name, step, value in points if name == "learning_rate"}
    assert rate[20] == pytest.approx(config.learning_rate * 0.5 * (1 + np.cos(np.pi * 19 / 40)))
    assert result.validation_loss in [value for name, _, value in points if name == "loss/validation"]


def test_curves_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = TensorBoardCurves(tmp_path)
    curves.scalar("loss/training", 50, 4.5)
    curves.scalar("loss/training", 100, 4.25)
    curves.close()
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("loss/training")
    assert [(event.step, event.value) for event in found] == [(50, 4.5), (100, 4.25)]


def test_curves_reach_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    curves = WandbCurves(tmp_path, "project", "fold-0-member-0")
    curves.scalar("loss/training", 50, 4.5)
    curves.scalar("loss/validation", 50, 4.6)
    curves.close()
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    names, deadline = (b"loss/training", b"loss/validation", b"fold-0-member-0"), time.monotonic() + 60
    # W&B's own process writes the file, some time after it was told.
    while not all(name in run.read_bytes() for name in names):
        assert time.monotonic() < deadline, run.read_bytes()[:2000]
        time.sleep(0.2)


def test_without_tensorboard_or_wandb_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None makes an import fail, as if the package were not there.
    for module in ("tensorboard", "torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        TensorBoardCurves(tmp_path)
    with pytest.raises(InputError, match="pip install wandb"):
        WandbCurves(tmp_path, "project", "name")


class _Share(Group):
    """One process of several, as far as its share of a batch goes."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_shares_of_several_processes_are_the_batch_of_one(size: int) -> None:
    table, _ = picture_table(6, np.random.default_rng(1), honest=True)
    table = replace(table, state=np.random.default_rng(2).standard_normal(table.state.shape, np.float32))
    config = replace(SMALL, batch_size=16, network=replace(SMALL.network, state_size=15))
    groups: Sequence[Group] = [Group(), *(_Share(rank, size) for rank in range(size))]
    frames = np.arange(len(table))
    streams = [
        TrainingBatches(table, frames, config, torch.ones(15), np.random.default_rng(7), group)
        for group in groups
    ]
    for _ in range(3):
        whole, *shares = [stream.draw() for stream in streams]
        assert len(whole.frames) == 16
        assert max(len(s.frames) for s in shares) - min(len(s.frames) for s in shares) <= 1
        for name in ("frames", "images", "state"):
            parts = [np.asarray(getattr(share, name)) for share in shares]
            np.testing.assert_array_equal(np.concatenate(parts), np.asarray(getattr(whole, name)))


def test_frozen_weights_are_neither_optimised_nor_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    from value_model import trainer as module
    from value_model.network import NetworkConfig, ValueNetwork, build_network

    def partly_frozen(config: NetworkConfig) -> ValueNetwork:
        network = build_network(config)
        network.get_submodule("patches").requires_grad_(False)
        return network

    monkeypatch.setattr(module, "build_network", partly_frozen)
    table, _ = picture_table(8, np.random.default_rng(1), honest=True)
    returns = np.full(len(table), -0.5, np.float32)
    config = replace(SMALL, steps=4, evaluate_every=4)
    ids = table.episode_ids
    made = Trainer(table, returns, config, ids[:6], ids[6:], np.random.default_rng(0), Group())
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    made.run(None, lambda: None)
    after = made.best.weights
    assert torch.equal(after["patches.weight"], before["patches.weight"])
    assert not torch.equal(after["middle.weight"], before["middle.weight"])
    optimised = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in made.network.parameters() if p.requires_grad}
    assert len(made.average) == len(optimised) < len(list(made.network.parameters()))


def test_the_kept_weights_are_the_running_mean_of_those_of_all_steps(tmp_path: Path) -> None:
    table, _ = picture_table(8, np.random.default_rng(1), honest=True)
    config = replace(SMALL, steps=5, evaluate_every=5, average=0.7)
    returns = np.full(len(table), -0.5, np.float32)
    ids = table.episode_ids
    torch.manual_seed(0)
    made = Trainer(table, returns, config, ids[:6], ids[6:], np.random.default_rng(0), Group())
    mean: list[Tensor] = []
    take = made._take_step

    def watched(batch: object) -> Tensor:
        loss = take(batch)  # type: ignore[arg-type]  # whatever it is given
        now = [p.detach().double() for p in made.parameters]
        mean[:] = [0.7 * m + 0.3 * n for m, n in zip(mean, now, strict=True)] if mean else now
        return loss

    made._take_step = watched  # type: ignore[method-assign]  # to see the weights after each step
    made.run(None, lambda: None)
    names = [name for name, p in made.network.named_parameters() if p.requires_grad]
    for name, expected in zip(names, mean, strict=True):
        torch.testing.assert_close(made.best.weights[name].double(), expected, atol=1e-6, rtol=1e-5)
    # Training itself goes on from the last weights, not from their mean.
    assert any(not torch.equal(p, made.best.weights[n]) for n, p in made.network.named_parameters())


IMAGES = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(5, 9), st.integers(5, 9), st.just(3)),
)


@given(IMAGES, st.integers(1, 4), st.integers(0, 99))
def test_shifts_are_what_padding_and_cutting_give(images: np.ndarray, pixels: int, seed: int) -> None:
    frames, cameras, height, width, _ = images.shape
    shifts = draw_shifts(frames, cameras, pixels, np.random.default_rng(seed))
    assert shifts.min() >= -pixels and shifts.max() <= pixels
    shifted = shift_images(images, shifts)
    assert shifted is not images
    for frame in range(frames):
        for camera in range(cameras):
            around = ((pixels, pixels), (pixels, pixels), (0, 0))
            padded = np.pad(images[frame, camera], around, mode="edge")
            down, right = shifts[frame, camera] + pixels
            expected = padded[down : down + height, right : right + width]
            np.testing.assert_array_equal(shifted[frame, camera], expected)
    np.testing.assert_array_equal(random_shift(images, pixels, np.random.default_rng(seed)), shifted)


def test_the_task_of_every_frame_goes_with_it(tmp_path: Path) -> None:
    table, _ = picture_table(8, np.random.default_rng(1), honest=True, tasks=(RED, BLUE))
    made = Trainer(
        table,
        np.zeros(len(table), np.float32),
        SMALL,
        table.episode_ids,
        [],
        np.random.default_rng(0),
        Group(),
    )
    expected = made.network.tokenize([table.tasks[i] for i in table.episode_index])
    torch.testing.assert_close(made.tokens[table.episode_index], expected)

"""Several processes that share batches take the steps that one alone takes, up to the order of sums."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lerobot.utils.constants import ACTION
from torch import nn

from pipeline.errors import Failure, InputError
from pipeline.process_group import Group, give_to_all, replace_together, seed_of
from tests.tiny_smolvla import TINY_ACT
from tests.workflows.killed_policy_training import CONFIG, INDICATORS, OPTIONS, TABLE, EveryStep
from tests.workflows.training_threads import in_threads, make_model, make_trainer
from workflows.policy_training import train_policy
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_group import counted, sum_gradients

# Nothing is drawn but the batches: no noise, no augmentation.
STILL: dict[str, Any] = {**OPTIONS, "action_head": "regression", "random_shift": 0, "color_jitter": 0.0}
# Of 7 rows, shares differ; at ends of episodes chunks are padded. Indicators are dropped: the same in all.
ALONE = replace(CONFIG, steps=6, batch_size=7, policy_options=STILL)
ACT = replace(
    ALONE,
    steps=2,
    policy_type="act",
    policy_options={**TINY_ACT, "use_vae": False, "dropout": 0.0},
    learning_rate=1e-4,
)


def weights_of(policy: nn.Module) -> torch.Tensor:
    """All numbers that a checkpoint holds, in one row."""
    return torch.cat([value.detach().double().reshape(-1) for value in policy.state_dict().values()])


def trained(config: PolicyTrainingConfig, workers: int) -> tuple[list[torch.Tensor], list[Any]]:
    """Each process's weights at the end, and its curve."""
    config = replace(config, workers=workers)
    # Not in the threads: torch's one generator makes the weights.
    models = [make_model(TABLE, config) for _ in range(workers)]

    def work(group: Group) -> Any:
        model = models[group.rank]
        trainer = make_trainer(group, TABLE, INDICATORS, config, model)
        trainer.run(None, lambda: None)
        return trainer.curve

    curves = in_threads(workers, work) if workers > 1 else [work(Group())]
    return [weights_of(model.policy) for model, _ in models], curves


@pytest.mark.parametrize(
    ("config", "workers"),
    [(ALONE, 2), (ALONE, 3), (replace(ALONE, accumulate=2), 2), (replace(ALONE, lora_rank=2), 2), (ACT, 2)],
    ids=["two", "three", "accumulated", "adapters", "act"],
)
def test_several_processes_take_the_steps_of_one(config: PolicyTrainingConfig, workers: int) -> None:
    [alone], [curve] = trained(config, 1)
    before = weights_of(make_model(TABLE, config)[0].policy)
    together, curves = trained(config, workers)
    assert all(torch.equal(one, together[0]) for one in together), "all have the same weights"
    assert all(one == curves[0] for one in curves)
    moved = float((alone - before).norm())
    # Measured: 1e-5 to 4e-5. Where every row counted alike, and not every step, it would be 0.3.
    assert float((together[0] - alone).norm()) < 2e-4 * moved
    assert [step for step, _ in curves[0]] == [step for step, _ in curve]
    np.testing.assert_allclose([loss for _, loss in curves[0]], [loss for _, loss in curve], rtol=1e-5)


@given(
    st.integers(1, 5),
    st.lists(st.integers(1, 4), min_size=5, max_size=9),
    st.sampled_from(["gen3_vla", "evo1", "pi0"]),
    st.integers(0, 2**32),
)
def test_weighted_shares_of_the_loss_are_the_loss_of_the_batch(
    workers: int, lengths: list[int], kind: str, seed: int
) -> None:
    errors = torch.from_numpy(np.random.default_rng(seed).random((len(lengths), 4)))
    padded = torch.arange(4) >= torch.tensor(lengths)[:, None]
    policy: Any = SimpleNamespace(config=SimpleNamespace(type=kind))

    def mean(rows: slice) -> float:
        """As the policy's own loss: over the steps that count, or over all."""
        counts = ~padded[rows] if kind != "pi0" else torch.ones_like(padded[rows])
        return float((errors[rows] * counts).sum() / counts.sum())

    total = 0.0
    counts = []
    for rank in range(workers):
        group = Group()
        group.rank, group.size = rank, workers
        mine = group.share(len(lengths))
        batch = {ACTION: errors[mine], f"{ACTION}_is_pad": padded[mine]}
        counts.append(float(counted(policy, batch)))
        total += counts[-1] * mean(mine)
    assert total / sum(counts) == pytest.approx(mean(slice(None)), rel=1e-6)


def test_padding_counts_for_a_diffusion_policy_only_where_it_is_masked() -> None:
    batch = {ACTION: torch.zeros(2, 3, 7), f"{ACTION}_is_pad": torch.tensor([[False, False, True]] * 2)}
    for masked, expected in ((False, 2.0), (True, 4.0)):
        config = SimpleNamespace(type="diffusion", do_mask_loss_for_padding=masked)
        policy: Any = SimpleNamespace(config=config)
        assert float(counted(policy, batch)) == expected


def test_gradients_that_some_processes_lack_are_zero_there_and_stay_none_where_all_do() -> None:
    sizes = (3, 1, 4)
    dtypes = (torch.float32, torch.float32, torch.bfloat16)

    def work(group: Group) -> list[torch.Tensor | None]:
        parameters = [
            nn.Parameter(torch.zeros(size, dtype=dtype)) for size, dtype in zip(sizes, dtypes, strict=True)
        ]
        if group.rank == 0:
            parameters[0].grad = torch.full_like(parameters[0], 2.0)
        parameters[2].grad = torch.full_like(parameters[2], 1.0 + group.rank)
        sum_gradients(parameters, group)
        return [parameter.grad for parameter in parameters]

    for first, second, third in in_threads(2, work):
        assert first.tolist() == [2.0] * 3 and second is None
        assert third.tolist() == [3.0] * 4 and third.dtype == torch.bfloat16


def test_buffers_of_any_kind_become_the_first_processs() -> None:
    def work(group: Group) -> list[torch.Tensor]:
        mine = float(group.rank + 1)
        tensors = [
            torch.full((2, 3), mine),
            torch.tensor(group.rank == 0),
            torch.tensor([group.rank + 2**40]),
            torch.full((3, 2), mine).t(),
        ]
        give_to_all(tensors, group)
        return tensors

    for grid, truth, number, turned in in_threads(3, work):
        assert grid.eq(1.0).all() and bool(truth) and number.item() == 2**40 and turned.eq(1.0).all()


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12))
def test_messages_hold_all_numbers_once_and_are_no_larger_than_need_be(sizes: list[int], most: int) -> None:
    tensors = [torch.arange(size, dtype=torch.float32) + 10 * i for i, size in enumerate(sizes)]
    expected = [tensor * 2 for tensor in tensors]
    sent: list[int] = []

    def double(flat: torch.Tensor) -> torch.Tensor:
        sent.append(len(flat))
        return flat * 2

    replace_together(tensors, double, most)
    assert all(torch.equal(one, other) for one, other in zip(tensors, expected, strict=True))
    assert sum(sent) == sum(sizes) and all(size <= max([most, *sizes]) for size in sent)


class OneOfTwo(Group):
    """A process that hears nothing of the other."""

    size = 2

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank


NOISY = replace(CONFIG, steps=12, workers=2)


def test_killed_and_continued_a_process_draws_the_same_noise_again(tmp_path: Path) -> None:
    whole, out, resume = tmp_path / "whole", tmp_path / "out", tmp_path / "resume"

    class GivesUp(EveryStep):
        def keep(self, write: Callable[[], object]) -> None:
            super().keep(write)
            if self.kept == 7:
                raise KeyboardInterrupt

    train_policy(TABLE, INDICATORS, NOISY, None, whole, group=OneOfTwo())
    with pytest.raises(KeyboardInterrupt):
        train_policy(TABLE, INDICATORS, NOISY, None, out, resume=resume, keeper=GivesUp(), group=OneOfTwo())
    keeper = EveryStep()
    train_policy(TABLE, INDICATORS, NOISY, None, out, resume=resume, keeper=keeper, group=OneOfTwo())
    assert keeper.kept == 5, "only what was lost is trained again"
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }
    assert json.loads((out / "training.json").read_text())["config"]["workers"] == 2
    # Of the others none writes anything.
    kept = resume.read_bytes()
    train_policy(
        TABLE, INDICATORS, NOISY, None, tmp_path / "no", resume=resume, keeper=keeper, group=OneOfTwo(1)
    )
    assert not (tmp_path / "no").exists() and resume.read_bytes() == kept


def test_each_process_draws_its_own_noise() -> None:
    class SameRows(OneOfTwo):
        def share(self, total: int) -> slice:
            return slice(0, total // 2)

    found = []
    for rank in (0, 0, 1):
        model = make_model(TABLE, NOISY)
        make_trainer(SameRows(rank), TABLE, INDICATORS, NOISY, model).run(None, lambda: None)
        found.append(weights_of(model[0].policy))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert len({seed_of(0, step, rank) for step in range(50) for rank in range(4)}) == 200


def test_processes_at_different_steps_do_not_go_on() -> None:
    config = replace(ALONE, workers=2)
    models = [make_model(TABLE, config) for _ in range(2)]

    def work(group: Group) -> str:
        trainer = make_trainer(group, TABLE, INDICATORS, config, models[group.rank])
        trainer.step = 3 * group.rank
        with pytest.raises(Failure, match="did not find the same state") as refused:
            trainer.run(None, lambda: None)
        return str(refused.value)

    assert len(in_threads(2, work)) == 2


def test_the_number_of_workers_is_told_apart_only_where_there_are_several(tmp_path: Path) -> None:
    assert "workers" not in PolicyTrainingConfig().as_json()
    assert PolicyTrainingConfig(workers=2).as_json()["workers"] == 2
    # Each of several has a GPU of its own, and all find the same state to go on from.
    for workers, device in ((1, "cuda:3"), (2, "cuda")):
        assert PolicyTrainingConfig(device="cuda:3", workers=workers).as_json()["device"] == device
    with pytest.raises(InputError, match="batches of 2 observations are too small for 3 workers"):
        PolicyTrainingConfig(batch_size=2, workers=3)
    with pytest.raises(InputError, match="workers is 0, must be at least 1"):
        PolicyTrainingConfig(workers=0)
    with pytest.raises(ValueError, match="2 workers, and 1 processes"):
        train_policy(TABLE, INDICATORS, NOISY, None, tmp_path)

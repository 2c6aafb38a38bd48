"""The running mean of the weights: only of those that are trained, and the same as a mean of them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from pipeline.policy.new_policy import new_checkpoint, table_facts
from pipeline.policy.policy_frames import PolicyFrames
from pipeline.policy.training_statistics import table_statistics
from pipeline.policy.tuning import prepare
from pipeline.prompts import NEGATIVE, POSITIVE
from tests.policy_tables import random_table
from tests.tiny_pi import tiny_pi
from tests.workflows.killed_policy_training import EveryStep
from workflows import policy_training_loop
from workflows.policy_training import PolicyTrainingConfig, train_policy
from workflows.policy_training_loop import PolicyTrainer, RunningMean

_BOTH = random_table()
# VQ-BeT takes one camera.
TABLE = replace(_BOTH, cameras=("table",), _episode_images=[i[:, :1] for i in _BOTH._episode_images])
INDICATORS = np.resize(np.array([POSITIVE, NEGATIVE], dtype=np.int8), len(TABLE))
# Its first steps train the VQ-VAE alone; all else has its first gradient later.
TINY_VQBET: dict[str, Any] = {
    "pretrained_backbone_weights": None,
    "n_obs_steps": 2,
    "n_action_pred_token": 2,
    "action_chunk_size": 2,
    "crop_shape": [24, 24],
    "use_group_norm": True,
    "n_vqvae_training_steps": 2,
    "vqvae_enc_hidden_dim": 8,
    "vqvae_embedding_dim": 8,
    "vqvae_n_embed": 4,
    "gpt_block_size": 16,
    "gpt_input_dim": 16,
    "gpt_output_dim": 16,
    "gpt_hidden_dim": 16,
    "gpt_n_layer": 1,
    "gpt_n_head": 2,
    "spatial_softmax_num_keypoints": 4,
}


class MeanOfAll(RunningMean):
    """As it was: a copy of every parameter, from the first step, and as the resume file held it."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        super().__init__(parameters, decay)
        self._means = {i: p.detach().float().clone() for i, p in enumerate(parameters)}


class GivesUp(EveryStep):
    """Keeps a state after each step and ends the training after some."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def keep(self, write: Callable[[], object]) -> None:
        """Raises ``KeyboardInterrupt`` in the end."""
        super().keep(write)
        if self.kept == self._at:
            raise KeyboardInterrupt


@pytest.fixture(params=["pi05", "vqbet"])
def config(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> PolicyTrainingConfig:
    """A policy with frozen weights and some that no loss reaches, and one with some that learn later."""
    options = TINY_VQBET
    if request.param == "pi05":
        tiny = tiny_pi(monkeypatch, tmp_path / "hub", "pi05")
        options = {**tiny, "dtype": "bfloat16", "freeze_vision_encoder": True}
    return PolicyTrainingConfig(
        policy_type=request.param, policy_options=options, steps=4, batch_size=4, warmup_steps=1
    )


def train(config: PolicyTrainingConfig, out: Path, resume: Path | None = None, stop: int = 0) -> None:
    if not stop:
        train_policy(TABLE, INDICATORS, config, None, out, resume=resume)
        return
    with pytest.raises(KeyboardInterrupt):
        train_policy(TABLE, INDICATORS, config, None, out, resume=resume, keeper=GivesUp(stop))


def means_in(resume: Path) -> tuple[set[str], set[str]]:
    """The places of the parameters in a resume file, and of those that have a mean there."""
    with safe_open(resume, framework="pt") as stored:
        names = list(stored.keys())
    return tuple(  # type: ignore[return-value]  # two of them
        {name.removeprefix(kind) for name in names if name.startswith(kind)}
        for kind in ("parameter/", "average/")
    )


def test_interrupted_it_is_the_mean_of_all_weights_to_the_last_byte(
    config: PolicyTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the first phase of VQ-BeT, whose end is counted from the first step.
    train(config, tmp_path / "new", tmp_path / "resume", stop=1)
    everything, with_mean = means_in(tmp_path / "resume")
    assert with_mean < everything and with_mean
    train(config, tmp_path / "new", tmp_path / "resume")
    with monkeypatch.context() as patch:
        patch.setattr(policy_training_loop, "RunningMean", MeanOfAll)
        train(config, tmp_path / "all")
        if config.policy_type == "pi05":
            train(config, tmp_path / "other", tmp_path / "kept", stop=2)
    if config.policy_type == "pi05":
        # A state with a mean of every weight, as it was once kept.
        everything, with_mean = means_in(tmp_path / "kept")
        assert with_mean == everything
        train(config, tmp_path / "other", tmp_path / "kept")
    for path in (tmp_path / "all").iterdir():
        for other in {"new", "other"} & {folder.name for folder in tmp_path.iterdir()}:
            assert path.read_bytes() == (tmp_path / other / path.name).read_bytes(), (other, path.name)


def test_a_weight_without_gradient_costs_no_mean_no_moments_and_does_not_decay(
    config: PolicyTrainingConfig,
) -> None:
    torch.manual_seed(0)
    model = new_checkpoint(
        config.policy_type, table_facts(TABLE), table_statistics(TABLE), config.policy_options
    )
    policy = model.policy
    before = {name: value.detach().clone() for name, value in policy.named_parameters()}
    frames = PolicyFrames(TABLE, policy.config).batch(np.arange(4), INDICATORS[:4])

    class Same:
        def draw(self) -> dict[str, Any]:
            return dict(model.preprocessor(frames))

        def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
            return {}, {}

        def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None: ...

    decaying = PolicyTrainingConfig(steps=1, weight_decay=0.5, learning_rate=0.1, warmup_steps=0)
    trainer = PolicyTrainer(policy, prepare(policy, config), Same(), decaying)
    had: set[str] = set()
    trainer.run(None, lambda: had.update(n for n, p in policy.named_parameters() if p.grad is not None))
    without = set(before) - had
    assert had and without, "there is something of each"
    named = dict(policy.named_parameters())
    for name in without:
        assert torch.equal(named[name], before[name]), name
    assert any(not torch.equal(named[name], before[name]) for name in had)
    moments = {id(p) for p, state in trainer._optimizer.state.items() if state}
    assert moments == {id(named[name]) for name in had}
    saved = trainer.state()
    means = {k: v for k, v in saved.tensors.items() if k.startswith("average/")}
    assert len(means) == len(had)
    assert sum(v.numel() for v in means.values()) == sum(named[name].numel() for name in had)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whenever_gradients_come_and_go_nothing_is_lost(data: st.DataObject) -> None:
    """Each weight has a gradient in some steps, or in none; one is bfloat16; a state comes between."""
    count, steps = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    decay = data.draw(st.sampled_from([0.0, 0.3, 0.995]))
    has = data.draw(
        st.lists(st.lists(st.booleans(), min_size=count, max_size=count), min_size=steps, max_size=steps)
    )
    stop = data.draw(st.integers(0, steps - 1))
    torch.manual_seed(data.draw(st.integers(0, 9)))
    parameters = [nn.Parameter(torch.randn(3).to(torch.bfloat16 if i == 0 else None)) for i in range(count)]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.3)
    mean, reference = RunningMean(parameters, decay), MeanOfAll(parameters, decay)
    for step in range(steps):
        optimizer.zero_grad()
        for parameter, one in zip(parameters, has[step], strict=True):
            if one:
                parameter.grad = torch.randn_like(parameter)
        mean.before_step()
        optimizer.step()
        for one_mean in (mean, reference):
            one_mean.after_step(step)
        if step == stop:
            state = {name: value.clone() for name, value in mean.state().items()}
            mean = RunningMean(parameters, decay)
            mean.restore(state)
    ever = {i for i in range(count) if any(row[i] for row in has)}
    assert set(mean.state()) == ({str(i) for i in ever} if decay else set())
    last = [parameter.detach().clone() for parameter in parameters]
    found: list[list[Tensor]] = []
    for one_mean in (mean, reference):
        with torch.no_grad():
            for parameter, value in zip(parameters, last, strict=True):
                parameter.copy_(value)
        one_mean.put()
        found.append([parameter.detach().clone() for parameter in parameters])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_last_weights_need_no_mean_at_all() -> None:
    weight = nn.Parameter(torch.ones(2))
    mean = RunningMean([weight], 0.0)
    weight.grad = torch.ones(2)
    mean.before_step()
    mean.after_step(0)
    mean.put()
    assert mean.state() == {} and torch.equal(weight, torch.ones(2))

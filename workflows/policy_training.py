"""Trains a policy on a table of frames: from scratch, or further from a checkpoint.

Reads frames and indicators, writes an ordinary LeRobot checkpoint and ``training.json`` (settings and
loss curve). Every run is a plain loop in one process, reproducible from its seed with one thread. The
output folder is filled in place: whoever needs it whole or not at all passes a folder set aside.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.action_statistics import action_statistics
from pipeline.errors import InputError
from pipeline.frame_dataset import FrameDataset
from pipeline.frame_table import FrameTable
from pipeline.policy.checkpoint import Checkpoint, load_checkpoint
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig, gen3_features
from pipeline.policy.modeling_gen3_vla import ACTION_IS_PAD, Gen3VLAPolicy
from pipeline.prompts import drop_indicators
from workflows.batch_sampling import make_sampler

Progress = Callable[[int, int, float], None]

_REPORT_EVERY = 10


@dataclass(frozen=True)
class PolicyTrainingConfig:
    """How a policy is trained; contradictions raise ``InputError`` when it is built."""

    steps: int = 2000
    """Gradient steps."""
    batch_size: int = 64
    """Observations a step; each is trained at several noise levels (``noise_samples`` of the policy)."""
    learning_rate: float = 1e-3
    """Peak, after the warm-up; a cosine takes it to zero."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    gradient_clip: float = 1.0
    """Largest gradient norm."""
    ema_decay: float = 0.995
    """Of the running mean of the weights, which is what gets saved; 0 saves the last weights."""
    indicator_dropout: float = 0.3
    """Chance that a sample's indicator is left out of its prompt."""
    positive_share: float | None = None
    """Share of each batch drawn from positive frames; ``None`` draws uniformly."""
    seed: int = 0
    """Of weights, batches, noise and augmentation."""
    threads: int = 1
    """CPU threads; only one is reproducible to the last bit."""
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Gen3VLAConfig`` to set, only for training from scratch."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("steps", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"policy training: {name} is {getattr(self, name)}, must be at least 1")
        if self.learning_rate <= 0 or self.gradient_clip <= 0 or self.weight_decay < 0:
            raise InputError("policy training: learning_rate and gradient_clip must be above 0")
        if not 0 <= self.ema_decay < 1 or not 0 <= self.indicator_dropout <= 1:
            raise InputError("policy training: ema_decay must lie in [0, 1), indicator_dropout in [0, 1]")
        if self.positive_share is not None and not 0 <= self.positive_share <= 1:
            raise InputError(f"policy training: positive_share is {self.positive_share}, must lie in [0, 1]")


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: ``loss_curve`` holds (step, mean loss since the entry before)."""

    checkpoint: Path
    steps: int
    frames: int
    final_loss: float
    seconds: float
    samples_per_s: float
    loss_curve: list[tuple[int, float]]


def train_policy(
    table: FrameTable,
    indicators: np.ndarray,
    config: PolicyTrainingConfig,
    start: Path | None,
    out: Path,
    progress: Progress | None = None,
    *,
    frame_mask: np.ndarray | None = None,
) -> TrainingResult:
    """Trains on ``table`` and writes the checkpoint and ``training.json`` into ``out``.

    ``indicators`` (N,) int8, one per frame (see :mod:`pipeline.prompts`). ``start`` is a checkpoint whose
    weights and normalisation statistics are kept, of any LeRobot policy type; ``None`` trains a new
    ``gen3_vla``. ``frame_mask`` (N,) bool restricts which frames are drawn, as in filtered behaviour
    cloning. ``progress(step, total, loss)`` is called every few steps. Raises ``InputError`` for
    arrays that do not fit, no frames, unknown policy options and folders that hold no checkpoint.
    """
    if indicators.shape != (len(table),):
        raise InputError(f"there are {len(table)} frames and indicators of shape {indicators.shape}")
    if start is not None and config.policy_options:
        raise InputError("policy options only apply from scratch: a checkpoint's network is fixed")
    rng = np.random.default_rng([config.seed, 0])
    sampler = make_sampler(indicators, frame_mask, config.positive_share, rng)
    used = np.ones(len(table), dtype=bool) if frame_mask is None else frame_mask
    began = time.perf_counter()
    with _seeded_torch(config.seed, config.threads):
        model = load_checkpoint(start) if start is not None else _new_model(table, used, config)
        batches = _Batches(table, indicators, config, model, rng)
        curve = _optimise(
            model.policy, lambda: batches.make(sampler.draw(config.batch_size)), config, progress
        )
        model.save(out)
    seconds = time.perf_counter() - began
    result = TrainingResult(
        checkpoint=out,
        steps=config.steps,
        frames=int(used.sum()),
        final_loss=curve[-1][1],
        seconds=seconds,
        samples_per_s=config.steps * config.batch_size / seconds,
        loss_curve=curve,
    )
    # Only what the same inputs give again goes into the file: times would change its hash.
    record = {
        "config": {**asdict(config), "policy_options": dict(config.policy_options)},
        "episodes": len(table.episode_ids),
        "frames": result.frames,
        "final_loss": result.final_loss,
        "loss_curve": result.loss_curve,
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return result


def _new_model(table: FrameTable, used: np.ndarray, config: PolicyTrainingConfig) -> Checkpoint:
    size = table.images(np.zeros(1, dtype=np.int64)).shape[2]
    inputs, outputs = gen3_features(size)
    try:
        policy_config = Gen3VLAConfig(
            input_features=inputs, output_features=outputs, device="cpu", **config.policy_options
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"policy options: {error}") from error
    stats = {ACTION: action_statistics(table.action[used])}
    preprocessor, postprocessor = make_pre_post_processors(policy_config, dataset_stats=stats)
    return Checkpoint(Gen3VLAPolicy(policy_config), preprocessor, postprocessor)


class _Batches:
    """Turns frame indices into what a policy's ``forward`` takes, through its own preprocessor."""

    def __init__(
        self,
        table: FrameTable,
        indicators: np.ndarray,
        config: PolicyTrainingConfig,
        model: Checkpoint,
        rng: np.random.Generator,
    ) -> None:
        self._indicators, self._rng = indicators, rng
        self._dropout = config.indicator_dropout
        self._preprocessor = model.preprocessor
        policy_config = model.policy.config
        self._frames = FrameDataset(table, chunk=len(policy_config.action_delta_indices or [0]))
        self._bytes = isinstance(model.policy, Gen3VLAPolicy)  # takes uint8 images, a quarter of the copying
        cameras = [key.removeprefix(f"{OBS_IMAGES}.") for key in policy_config.image_features]
        absent = sorted(set(cameras) - set(table.cameras))
        if absent:
            raise InputError(f"the policy needs camera {absent[0]!r}; these episodes have {table.cameras}")
        self._images = [f"{OBS_IMAGES}.{camera}" for camera in cameras]
        self._keys = (OBS_STATE, ACTION, ACTION_IS_PAD, "task", *self._images)

    def make(self, indices: np.ndarray) -> dict[str, Any]:
        """The preprocessed batch of these frames; indicators are dropped anew at every call."""
        codes = drop_indicators(self._indicators[indices], self._dropout, self._rng)
        everything = self._frames.batch(indices, codes)
        batch = {key: everything[key] for key in self._keys}
        if not self._bytes:
            batch |= {key: batch[key].float().div_(255.0) for key in self._images}
        return self._preprocessor(batch)


def _optimise(
    policy: PreTrainedPolicy,
    next_batch: Callable[[], dict[str, Any]],
    config: PolicyTrainingConfig,
    progress: Progress | None,
) -> list[tuple[int, float]]:
    """Runs the gradient steps in place, leaves the averaged weights in ``policy``, returns the curve."""
    policy.train()
    parameters = [p for p in policy.parameters() if p.requires_grad]
    averages = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        policy.get_optim_params(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    curve: list[tuple[int, float]] = []
    losses: list[float] = []
    for step in range(config.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * learning_rate_factor(step, config)
        loss, _ = policy.forward(next_batch())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimizer.step()
        # The mean forgets its first values faster, or it would remember the start for long.
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - decay)
        losses.append(float(loss.detach()))
        if (step + 1) % _REPORT_EVERY == 0 or step + 1 == config.steps:
            curve.append((step + 1, float(np.mean(losses))))
            losses.clear()
            if progress is not None:
                progress(step + 1, config.steps, curve[-1][1])
    if not math.isfinite(curve[-1][1]):
        raise InputError(f"policy training diverged (loss {curve[-1][1]}): lower learning_rate")
    with torch.no_grad():
        torch._foreach_copy_(parameters, averages)
    policy.eval()
    return curve


def learning_rate_factor(step: int, config: PolicyTrainingConfig) -> float:
    """The learning rate at a step (from 0) over its peak: linear warm-up, then a cosine to zero."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / config.steps))


@contextmanager
def _seeded_torch(seed: int, threads: int) -> Iterator[None]:
    """Within: torch's generator seeded and its thread count set; after: both as they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

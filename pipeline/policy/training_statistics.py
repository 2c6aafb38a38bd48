"""The statistics that LeRobot's normalisers ask for, of the frames that a policy is trained on."""

from __future__ import annotations

import numpy as np
import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.action_statistics import action_statistics
from pipeline.frame_table import FrameTable
from pipeline.lerobot_statistics import QUANTILES, statistics

Statistics = dict[str, dict[str, torch.Tensor]]

# What lerobot-train puts in place of a dataset's own (``use_imagenet_stats``), per channel: backbones
# that were trained on ImageNet expect it, and the rest does not mind.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A component that hardly moved is not blown up: its spread counts as this at least (rad, m or 1).
LEAST_SPREAD = 1e-3
_IMAGE_FRAMES = 256


def table_statistics(table: FrameTable, used: np.ndarray | None = None) -> Statistics:
    """Of actions (7,), states (15,) and each camera's images (3, 1, 1) of the ``used`` (N,) frames.

    Each has ``mean``, ``std``, ``min``, ``max`` and the quantiles ``q01`` ... ``q99``, float32: whatever
    normalisation a policy asks for. Actions are those of :func:`pipeline.action_statistics`; images, in
    [0, 1], of up to 256 evenly spaced frames, their mean and deviation ImageNet's.
    """
    rows = np.arange(len(table)) if used is None else np.flatnonzero(used)
    found = {
        ACTION: _tensors(table.action[rows]) | action_statistics(table.action[rows]),
        OBS_STATE: widened(_tensors(table.state[rows])),
    }
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _IMAGE_FRAMES)).astype(np.int64))]
    images = table.images(some)
    for i, camera in enumerate(table.cameras):
        pixels = images[:, i].reshape(-1, 3)
        measured = {name: v / 255.0 for name, v in _tensors(pixels).items()}
        measured |= {"mean": torch.tensor(IMAGENET_MEAN), "std": torch.tensor(IMAGENET_STD)}
        found[f"{OBS_IMAGES}.{camera}"] = {name: v.view(3, 1, 1) for name, v in measured.items()}
    return found


def with_indicator(stats: Statistics) -> Statistics:
    """``stats`` for states that end in the advantage: every normalisation leaves -1, 0 and 1 as they are."""
    extra = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0, "q50": 0.0}
    extra |= {"q01": -1.0, "q10": -1.0, "q90": 1.0, "q99": 1.0}
    state = {name: torch.cat([v, torch.tensor([extra[name]])]) for name, v in stats[OBS_STATE].items()}
    return {**stats, OBS_STATE: state}


def _tensors(values: np.ndarray) -> dict[str, torch.Tensor]:
    names = ("mean", "std", "min", "max", *QUANTILES)
    found = statistics(values)
    return {name: torch.from_numpy(found[name]).float() for name in names}


def widened(stats: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``stats`` with deviations of at least :data:`LEAST_SPREAD`, and ranges of at least twice that."""
    found = {**stats, "std": stats["std"].clamp_min(LEAST_SPREAD)}
    for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
        centre = (stats[low] + stats[high]) / 2
        half = ((stats[high] - stats[low]) / 2).clamp_min(LEAST_SPREAD)
        found |= {low: centre - half, high: centre + half}
    return found

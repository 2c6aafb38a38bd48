"""The baselines' values of a turn, kept with its advantages: who judges them need not read images again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame_table import FrameTable
from workflows.array_files import read_arrays

if TYPE_CHECKING:  # loads torch
    from value_model.returns import Outcomes
    from value_model.training_config import ValueTrainingConfig

RIVALS_FILE = "rivals.npz"


def write_rivals(
    out: Path, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig
) -> dict[str, np.ndarray]:
    """Computes each baseline's value of every frame, float32 ``(N,)`` by name, and keeps them in ``out``."""
    from value_model.comparators import BASELINES

    rivals = {baseline.name: baseline.score(table, outcomes, config) for baseline in BASELINES}
    kept: dict[str, Any] = rivals
    np.savez(out / RIVALS_FILE, **kept)
    return rivals


def read_rivals(
    advantages: Path, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig
) -> dict[str, np.ndarray]:
    """The same from an advantages step's folder, which must be of these frames, outcomes and settings.

    Computed where the folder has none, being from before they were kept, or has those of other baselines.
    """
    from value_model.comparators import BASELINES

    kept: dict[str, np.ndarray] = {}
    if (advantages / RIVALS_FILE).exists():
        stored = read_arrays(advantages / RIVALS_FILE)
        kept = {name: values for name, values in stored.items() if values.shape == (len(table),)}
    return {
        baseline.name: kept[baseline.name]
        if baseline.name in kept
        else baseline.score(table, outcomes, config)
        for baseline in BASELINES
    }

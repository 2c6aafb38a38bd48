"""The gate as a durable step: judges what an advantages step holds, under the bounds of ``[gate]``.

It is a step of its own so that another bound asks the gate again and nothing else: advantages and all that
is fine-tuned on them have keys without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import Failure
from workflows.array_files import read_arrays
from workflows.json_documents import read_json
from workflows.snapshot_table import snapshot_outcomes, snapshot_table
from workflows.step_files import ADVANTAGES_FILE, GATE_FILE, PENALTY_FILE, THRESHOLDS_FILE

if TYPE_CHECKING:
    from value_model.advantages import FrameAdvantages
    from value_model.gate_report import GateReport


def judge_values(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    advantages: Path,
    image_size: int,
    training: dict[str, Any],
    gate: dict[str, float],
    positive_fraction: float,
) -> dict[str, Any]:
    """Writes the gate's report into ``gate.json``.

    The verdict stops nothing here: what follows from it is the driver's to say.
    """
    report = judge_advantages(
        workspace,
        snapshot,
        advantages,
        image_size=image_size,
        training=training,
        gate=gate,
        positive_fraction=positive_fraction,
    )
    (out / GATE_FILE).write_text(report.to_json())
    return {"passed": report.passed, "headline": report.words()[0]}


def judge_advantages(
    workspace: Path,
    snapshot: Path,
    advantages: Path,
    *,
    image_size: int,
    training: Mapping[str, Any],
    gate: Mapping[str, float],
    positive_fraction: float,
) -> GateReport:
    """What the gate says about the values and indicators in an advantages step's folder.

    ``training``: how the values were trained (``ValueTrainingConfig``'s parameters). ``gate``: bounds that
    differ from the built-in ones, by name. ``positive_fraction``: what the thresholds were set to. Raises
    ``InputError`` for bounds that make no sense, ``Failure`` where the episodes' frames have changed since.
    """
    from value_model.gate import EpisodeFacts, GateConfig, judge
    from value_model.training_config import ValueTrainingConfig
    from workflows.rival_values import read_rivals

    bounds = GateConfig.from_site(dict(gate))
    table, rows = snapshot_table(workspace, snapshot, image_size, preload=False)
    config = ValueTrainingConfig.from_parameters(dict(training))
    if (advantages / PENALTY_FILE).exists():  # not of an earlier version
        config = replace(config, failure_penalty=read_json(advantages / PENALTY_FILE))
    outcomes = snapshot_outcomes(rows)
    values, labelled = _labelled(advantages, table.episode_ids, table.episode_index)
    return judge(
        table,
        values,
        outcomes,
        labelled,
        config.failure_penalty,
        read_rivals(advantages, table, outcomes, config),
        EpisodeFacts.of_rows(rows),
        bounds,
        positive_fraction,
    )


def _labelled(
    advantages: Path, episode_ids: list[str], episode_index: np.ndarray
) -> tuple[np.ndarray, FrameAdvantages]:
    """The values, and what was made of them, of exactly these frames."""
    from value_model.advantages import FrameAdvantages

    columns = read_arrays(advantages / ADVANTAGES_FILE)
    same = columns["episode_ids"].tolist() == list(episode_ids)
    if not same or not np.array_equal(columns["episode"], episode_index):
        raise Failure(
            "the episodes' frames are not those that have advantages, they have been changed meanwhile: "
            f"remove {advantages} and try again"
        )
    thresholds: dict[str, float] = read_json(advantages / THRESHOLDS_FILE)
    return columns["value"], FrameAdvantages(
        columns["returns"], columns["advantage"], columns["indicator"], columns["reason"], thresholds
    )

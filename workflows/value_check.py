"""``recap value check``: what the gate says about the values that the workspace has now.

The verdict is on the models in ``value-model.json``, under the labels, episodes, ``[value]`` and ``[gate]``
of now. A report that is stored is repeated only where it was made from exactly those, by the same code: then
the step that would make it has its key. Otherwise the gate is asked now, after scoring what has no values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from value_model.gate_config import GateConfig
from value_model.gate_report import EpisodeFacts, GateReport
from workflows.settings import FULL, ValueSettings, settings_from_site
from workflows.step_store import StepResult, StepStore
from workflows.turn_labels import freeze_labels
from workflows.value_ensemble import ValueEnsemble, load_ensemble
from workflows.value_gate import read_gate
from workflows.value_graph import ValueGraph, trained_models
from workflows.value_judgement import judge_advantages

PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class JudgedValues:
    """What a verdict belongs to. ``trained``: when the newest of the models was written, ISO 8601, UTC."""

    value: ValueSettings
    bounds: GateConfig
    ensemble: ValueEnsemble
    snapshot: Snapshot
    trained: str

    def words(self) -> str:
        """One line for a person."""
        episodes = len(self.snapshot.rows)
        return (
            f"{look_ahead(self.value)}, the best {self.value.positive_fraction:.0%} positive, {episodes} "
            f"episode{'' if episodes == 1 else 's'} (labels {self.snapshot.digest[:16]}), models trained "
            f"{self.trained[:16].replace('T', ' ')} UTC (labels {self.ensemble.snapshot[:16]})"
        )

    def document(self) -> dict[str, Any]:
        """The same as JSON; ``n_step`` and ``n_seconds`` are both null where all look to the end."""
        return {
            "n_step": self.value.n_step,
            "n_seconds": self.value.n_seconds,
            "positive_fraction": self.value.positive_fraction,
            "episodes": len(self.snapshot.rows),
            "labels": self.snapshot.digest,
            "trained": self.trained,
            "trained_on_labels": self.ensemble.snapshot,
        }


def look_ahead(value: ValueSettings) -> str:
    """How far advantages look ahead, in words."""
    if value.n_step is not None:
        return f"{value.n_step} frame{'' if value.n_step == 1 else 's'} ahead"
    return f"{value.n_seconds:g} s ahead" if value.n_seconds is not None else "to the end of every episode"


def check_values(workspace: Workspace, *, as_json: bool = False, say: Callable[[str], None] = print) -> int:
    """Says what the gate found; 0 where the values passed (warnings allowed), else 1.

    ``as_json``: one JSON object instead of words. Raises ``InputError`` for a ``recap.toml`` that cannot be
    used, for models that are gone or damaged, and where there is no episode with an outcome.
    """
    judged = _judged_now(workspace)
    report, origin = _report(workspace, judged)
    if as_json:
        document = {**json.loads(report.to_json()), "origin": origin, "judged": judged.document()}
        say(json.dumps(document, allow_nan=False, indent=1))
    else:
        say(f"{origin}:\n  {judged.words()}")
        for line in report.words():
            say(line)
    return PASSED if report.passed else FAILED


def _judged_now(workspace: Workspace) -> JudgedValues:
    """What there is to judge, after looking at every input: settings, models with their weights, labels."""
    from value_model.advantages import AdvantageConfig
    from value_model.checkpoint import verify_weights

    site = load_site_config(workspace.config_path)
    value = settings_from_site(FULL, site).value
    with site.named_in_errors():
        bounds = GateConfig.from_site(site.gate)
        AdvantageConfig(value.n_step, value.positive_fraction, value.n_seconds)
    ensemble = load_ensemble(workspace)
    for member in ensemble.members:
        verify_weights(member)
    ids = [entry.id for entry in workspace.list_episodes()]
    if not ids:
        raise InputError(f"there are no episodes in {workspace.episodes}: record some with 'recap record'")
    snapshot = freeze_labels(workspace, ids)
    if all(row.outcome is None for row in snapshot.rows):
        raise InputError("no episode is labelled success or failure: label some with 'recap label'")
    return JudgedValues(value, bounds, ensemble, snapshot, _trained_at(workspace, ensemble))


def _trained_at(workspace: Workspace, ensemble: ValueEnsemble) -> str:
    """When the last of the models was finished: by its step's manifest, or else by its record's file."""
    from value_model.checkpoint import RECORD_NAME

    times = []
    for member, source in zip(
        ensemble.members, trained_models(StepStore(workspace.steps), ensemble), strict=True
    ):
        if isinstance(source, StepResult):
            times.append(datetime.fromisoformat(str(source.manifest["finished"])))
        else:
            times.append(datetime.fromtimestamp((member / RECORD_NAME).stat().st_mtime, UTC))
    return max(time.astimezone(UTC) for time in times).isoformat(timespec="seconds")


def _report(workspace: Workspace, judged: JudgedValues) -> tuple[GateReport, str]:
    settings = replace(
        FULL,
        value=judged.value,
        recording=replace(FULL.recording, image_size=judged.ensemble.image_size),
    )
    graph, store, training = (
        ValueGraph(workspace, settings),
        StepStore(workspace.steps),
        judged.ensemble.training,
    )
    scoring = graph.score_values(judged.snapshot, trained_models(store, judged.ensemble), training)
    labelling = graph.advantages(judged.snapshot, scoring, training)
    stored = store.find(graph.judgement(judged.snapshot, labelling, training))
    report = read_gate(stored.path) if stored is not None else None
    if stored is not None and report is not None:
        return report, f"The gate's report in {stored.path}"
    labelled = store.find(labelling)
    if labelled is None:
        return _judge_models(workspace, judged), "The workspace's value models, judged now"
    report = judge_advantages(
        workspace.root,
        judged.snapshot.path,
        labelled.path,
        image_size=judged.ensemble.image_size,
        training=training,
        gate=load_site_config(workspace.config_path).gate,
        positive_fraction=judged.value.positive_fraction,
    )
    return report, f"The values in {labelled.path}, judged now"


def _judge_models(workspace: Workspace, judged: JudgedValues) -> GateReport:
    """Scores what the models have not scored, and asks the gate, under the labels of now.

    The same as the steps of ``recap advantages`` compute, without leaving any.
    """
    from pipeline.frame_cache import FrameCache
    from value_model.advantages import AdvantageConfig, label_frames
    from value_model.checkpoint import agreed_scales, read_record
    from value_model.comparators import BASELINES
    from value_model.gate import judge
    from value_model.returns import present_units
    from value_model.training_config import ValueTrainingConfig
    from workflows.scoring_pool import score_workspace
    from workflows.snapshot_table import snapshot_outcomes, snapshot_table

    ensemble, value = judged.ensemble, judged.value
    scored = score_workspace(workspace, ensemble, [row.episode_id for row in judged.snapshot.rows])
    scored.require_all()
    table, rows = snapshot_table(workspace.root, judged.snapshot.path, ensemble.image_size, preload=False)
    values = table.scores(FrameCache(workspace.cache, ensemble.image_size), scored.run, "value")
    outcomes = snapshot_outcomes(rows)
    config = ValueTrainingConfig.from_parameters(ensemble.training)
    trained = agreed_scales([read_record(member) for member in ensemble.members])
    penalty, factors = present_units(table, outcomes, config.failure_penalty, trained)
    config = replace(config, failure_penalty=penalty)
    values = np.clip(np.asarray(values) * factors, -1.0, 0.0)
    advantage = AdvantageConfig(value.n_step, value.positive_fraction, value.n_seconds)
    return judge(
        table,
        values,
        outcomes,
        label_frames(table, values, outcomes, penalty, advantage),
        penalty,
        {rival.name: rival.score(table, outcomes, config) for rival in BASELINES},
        EpisodeFacts.of_rows(rows),
        judged.bounds,
        value.positive_fraction,
    )


def snapshot_path(workspace: Workspace, digest: str) -> Path | None:
    """The file of the frozen labels with that digest; ``None`` where it is gone."""
    for path in sorted((workspace.root / "snapshots").glob("labels-*.parquet")):
        if digest.startswith(path.stem.removeprefix("labels-")):
            return path
    return None

"""``recap value check``: what the gate says about the values that the workspace has.

The workspace's value models (``value-model.json``) are judged by the newest advantages that they were
scored for: the gate's report on those, where there is one under the bounds that ``recap.toml`` has now, else
the gate is asked now. Where there are no such advantages, what is not scored yet is scored first. Without
value models the newest advantages speak for themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.site_config import SiteConfig, load_site_config
from pipeline.workspace import Workspace
from value_model.gate_config import GateConfig
from value_model.gate_report import EpisodeFacts, GateReport
from workflows.settings import FULL, ValueSettings, settings_from_site
from workflows.step_files import JUDGEMENT
from workflows.step_recipe import ExternalInput, StepAddress
from workflows.step_store import StepResult, StepStore
from workflows.value_ensemble import ValueEnsemble, ensemble_path, load_ensemble
from workflows.value_gate import read_gate
from workflows.value_graph import trained_models
from workflows.value_judgement import judge_advantages

PASSED, FAILED = 0, 1


def check_values(workspace: Workspace, *, as_json: bool = False, say: Callable[[str], None] = print) -> int:
    """Says what the gate found; 0 where the values passed (warnings allowed), else 1.

    ``as_json``: one JSON object instead of words. Raises ``InputError`` where there is nothing to judge: no
    value models and no advantages, or no episode with an outcome.
    """
    report, origin = _report(workspace)
    if as_json:
        say(report.to_json())
    else:
        say(origin)
        for line in report.words():
            say(line)
    return PASSED if report.passed else FAILED


def _report(workspace: Workspace) -> tuple[GateReport, str]:
    ensemble = load_ensemble(workspace) if ensemble_path(workspace).exists() else None
    for step in _newest(workspace, "advantages"):
        if ensemble is not None and not _is_of(workspace, step, ensemble):
            continue
        found = _of_advantages(workspace, step)
        if found is not None:
            return found
    if ensemble is None:
        raise InputError(
            f"{workspace.root} has no values to judge: train value models with 'recap value train', or run "
            "'recap improve'"
        )
    return judge_ensemble(workspace, ensemble), "The workspace's value models, judged now:"


def newest_judgements(workspace: Workspace) -> list[StepResult]:
    """The published steps that hold a report of the gate's, the newest first."""
    return _newest(workspace, JUDGEMENT)


def _newest(workspace: Workspace, name: str) -> list[StepResult]:
    found = StepStore(workspace.steps).published(name)
    return sorted(found, key=lambda step: str(step.manifest["finished"]), reverse=True)


def _of_advantages(workspace: Workspace, advantages: StepResult) -> tuple[GateReport, str] | None:
    """The gate's report on an advantages step and where it is from; ``None`` where it cannot be asked."""
    site = load_site_config(workspace.config_path)
    with site.named_in_errors():
        bounds = GateConfig.from_site(site.gate)
    address = f"{advantages.name}/{advantages.key}"
    judged = [
        step for step in newest_judgements(workspace) if step.manifest["inputs"].get("advantages") == address
    ]
    # Advantages from before the gate was a step of its own hold the report themselves.
    for step in [*judged, advantages]:
        report = read_gate(step.path)
        if report is not None and _bounds(step.manifest["parameters"].get("gate")) == bounds:
            return report, f"The gate's report in {step.path}:"
    parameters = advantages.manifest["parameters"]
    digest = advantages.manifest["inputs"].get("snapshot", "").removeprefix("external:")
    snapshot = snapshot_path(workspace, digest)
    if snapshot is None or not {"training", "advantage", "image_size"} <= set(parameters):
        return None
    report = judge_advantages(
        workspace.root,
        snapshot,
        advantages.path,
        image_size=parameters["image_size"],
        training=parameters["training"],
        gate=site.gate,
        positive_fraction=parameters["advantage"]["positive_fraction"],
    )
    return report, f"The values in {advantages.path}, judged now, by the bounds that hold now:"


def _bounds(said: dict[str, float] | None) -> GateConfig | None:
    """The bounds that a step was given; ``None`` where they are those of another version."""
    try:
        return GateConfig.from_site(said or {})
    except InputError:
        return None


def judge_ensemble(workspace: Workspace, ensemble: ValueEnsemble) -> GateReport:
    """Scores what the ensemble has not scored, and asks the gate, under the labels that it was trained on.

    Those labels decided which models an episode is held out from. Raises ``InputError`` where the snapshot
    of them is gone.
    """
    from pipeline.frame_cache import FrameCache
    from pipeline.label_snapshot import read_snapshot
    from value_model.advantages import AdvantageConfig, label_frames
    from value_model.comparators import BASELINES
    from value_model.gate import judge
    from value_model.returns import usable_outcomes
    from value_model.training_config import ValueTrainingConfig
    from workflows.scoring_pool import score_workspace
    from workflows.snapshot_table import snapshot_table

    snapshot = snapshot_of(workspace, ensemble)
    ids = [row.episode_id for row in read_snapshot(snapshot)]
    scored = score_workspace(workspace, ensemble, ids)
    scored.require_all()
    table, rows = snapshot_table(workspace.root, snapshot, ensemble.image_size, preload=False)
    values = table.scores(FrameCache(workspace.cache, ensemble.image_size), scored.run, "value")
    outcomes = usable_outcomes(
        {row.episode_id: row.outcome for row in rows}, [row.episode_id for row in rows if row.truncated]
    )
    config = ValueTrainingConfig.from_parameters(ensemble.training)
    site = load_site_config(workspace.config_path)
    asked = _value_settings(site)
    advantage = AdvantageConfig(
        horizon=asked.n_step, horizon_s=asked.n_seconds, positive_fraction=asked.positive_fraction
    )
    labelled = label_frames(table, values, outcomes, config.failure_penalty, advantage)
    with site.named_in_errors():
        bounds = GateConfig.from_site(site.gate)
    return judge(
        table,
        np.asarray(values),
        outcomes,
        labelled,
        config.failure_penalty,
        {rival.name: rival.score(table, outcomes, config) for rival in BASELINES},
        EpisodeFacts.of_rows(rows),
        bounds,
        asked.positive_fraction,
    )


def snapshot_of(workspace: Workspace, ensemble: ValueEnsemble) -> Path:
    """The frozen labels that the models were trained on. Raises ``InputError`` where they are gone."""
    path = snapshot_path(workspace, ensemble.snapshot)
    if path is None:
        raise InputError(
            f"the labels that the value models were trained on ({ensemble.snapshot[:16]}) are not in "
            f"{workspace.root / 'snapshots'}: train new ones with 'recap value train'"
        )
    return path


def snapshot_path(workspace: Workspace, digest: str) -> Path | None:
    """The file of the frozen labels with that digest; ``None`` where it is gone."""
    for path in sorted((workspace.root / "snapshots").glob("labels-*.parquet")):
        if digest.startswith(path.stem.removeprefix("labels-")):
            return path
    return None


def _value_settings(site: SiteConfig) -> ValueSettings:
    return settings_from_site(FULL, site).value


def _is_of(workspace: Workspace, step: StepResult, ensemble: ValueEnsemble) -> bool:
    """Whether the step's values are those of these models: its scores name them."""
    store = StepStore(workspace.steps)
    scores = store.find(StepAddress.parse(step.manifest["inputs"].get("scores", "/")))
    if scores is None:
        return False
    members = {
        f"external:{model.digest}" if isinstance(model, ExternalInput) else f"{model.name}/{model.key}"
        for model in trained_models(store, ensemble)
    }
    return members == set(scores.manifest["inputs"]["members"])

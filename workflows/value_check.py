"""``recap value check``: what the gate says about the values that the workspace has.

The workspace's value models (``value-model.json``) are judged: by the report of the newest advantages step
that they were scored for, where there is one, else by scoring what is not scored yet and asking the gate
now. Without value models the newest advantages step speaks for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.site_config import SiteConfig, load_site_config
from pipeline.workspace import Workspace
from value_model.gate_report import EpisodeFacts, GateReport
from workflows.settings import FULL, ValueSettings, settings_from_site
from workflows.step_store import StepResult, StepStore
from workflows.value_ensemble import ValueEnsemble, ensemble_path, load_ensemble
from workflows.value_gate import read_gate

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
    for step in newest_advantages(workspace):
        report = read_gate(step.path)
        if report is None or (ensemble is not None and not _is_of(workspace, step, ensemble)):
            continue
        return report, f"The gate's report in {step.path}:"
    if ensemble is None:
        raise InputError(
            f"{workspace.root} has no values to judge: train value models with 'recap value train', or run "
            "'recap improve'"
        )
    return judge_ensemble(workspace, ensemble), "The workspace's value models, judged now:"


def newest_advantages(workspace: Workspace) -> list[StepResult]:
    """The published advantages steps, the newest first."""
    found = StepStore(workspace.steps).published("advantages")
    return sorted(found, key=lambda step: str(step.manifest["finished"]), reverse=True)


def judge_ensemble(workspace: Workspace, ensemble: ValueEnsemble) -> GateReport:
    """Scores what the ensemble has not scored, and asks the gate, under the labels that it was trained on.

    Those labels decided which models an episode is held out from. Raises ``InputError`` where the snapshot
    of them is gone.
    """
    from pipeline.frame_cache import FrameCache
    from pipeline.label_snapshot import read_snapshot
    from value_model.advantages import AdvantageConfig, label_frames
    from value_model.comparators import BASELINES
    from value_model.gate import GateConfig, judge
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
    for path in sorted((workspace.root / "snapshots").glob("labels-*.parquet")):
        if ensemble.snapshot.startswith(path.stem.removeprefix("labels-")):
            return path
    raise InputError(
        f"the labels that the value models were trained on ({ensemble.snapshot[:16]}) are not in "
        f"{workspace.root / 'snapshots'}: train new ones with 'recap value train'"
    )


def _value_settings(site: SiteConfig) -> ValueSettings:
    return settings_from_site(FULL, site).value


def _is_of(workspace: Workspace, step: StepResult, ensemble: ValueEnsemble) -> bool:
    """Whether the step's values are those of these models: its scores name their training steps."""
    members = {f"{member.parent.parent.name}/{member.parent.name}" for member in ensemble.members}
    scores = step.manifest["inputs"].get("scores", "")
    return any(
        f"{found.name}/{found.key}" == scores and members == set(found.manifest["inputs"]["members"])
        for found in StepStore(workspace.steps).published("score_values")
    )

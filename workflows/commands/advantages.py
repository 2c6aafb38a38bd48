"""``recap advantages``: from the value models there are and the labels as they are now to indicators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import InputError
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    existing_workspace,
    table,
    workspace_option,
)
from workflows.json_documents import read_json

if TYPE_CHECKING:
    from pipeline.label_snapshot import Snapshot
    from pipeline.workspace import EpisodeEntry, Workspace
    from workflows.settings import ValueSettings
    from workflows.step_store import StepResult
    from workflows.value_ensemble import ValueEnsemble

TO_THE_END = "end"


def advantages(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    n_step: Annotated[
        str | None, typer.Option(metavar="N", help="Look so many frames ahead, or to the 'end'.")
    ] = None,
    n_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Look so many seconds ahead; not with --n-step.")
    ] = None,
    positive_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="Share of each task's frames, corrections apart, that becomes positive."
        ),
    ] = None,
) -> None:
    """Advantages, thresholds and indicators from the value models and the labels as they are now.

    Reads value-model.json, episodes/, labels.sqlite and [value] and [gate] of recap.toml, which the options
    override; scores what has no value yet; writes snapshots/, cache/ and steps/. Nothing is trained: a new
    label changes returns, advantages and thresholds at once, values only after 'recap value train'. What the
    gate finds is said, but the exit status stays 0: only 'recap value check' sets it by the verdict.
    """
    from dataclasses import replace

    from pipeline.site_config import load_site_config
    from value_model.checkpoint import verify_weights
    from workflows.improvement import freeze_labels
    from workflows.settings import FULL, settings_from_site
    from workflows.value_ensemble import load_ensemble
    from workflows.value_requirements import penalty_warning

    found = existing_workspace(workspace)
    settings = settings_from_site(FULL, load_site_config(found.config_path))
    value = _with_options(settings.value, n_step, n_seconds, positive_fraction)
    ensemble = load_ensemble(found)
    for member in ensemble.members:
        verify_weights(member)
    entries = found.list_episodes()
    if not entries:
        raise InputError(f"there are no episodes in {found.episodes}: record some with 'recap record'")
    snapshot = freeze_labels(found, [entry.id for entry in entries])
    if all(row.outcome is None for row in snapshot.rows):
        raise InputError("no episode is labelled success or failure: label some with 'recap label'")
    if warning := penalty_warning(ensemble.training.get("failure_penalty", 1.0)):
        typer.echo(warning, err=True)
    if (size := settings.recording.image_size) != ensemble.image_size:
        seen = f"{ensemble.image_size}×{ensemble.image_size}"
        told = f"the value models see images of {seen}, not the {size}×{size} of recap.toml"
        typer.echo(f"{told}: 'recap value train' trains them anew", err=True)
    recording = replace(settings.recording, image_size=ensemble.image_size)
    scored, labelled, judged = _compute(
        found, ensemble, snapshot, replace(settings, value=value, recording=recording)
    )
    episodes = len(snapshot.rows)
    print(
        f"values: {scored} of {episodes} episode{'' if episodes == 1 else 's'} scored now"
        f"{', the rest before' if scored < episodes else ''}"
    )
    for line in summary(labelled, judged, value, entries):
        print(line)
    for line in label_changes(found, ensemble, snapshot):
        print(line)
    print(f"next: recap value check{workspace_option(found.root)}")


def _with_options(
    value: ValueSettings, n_step: str | None, n_seconds: float | None, positive_fraction: float | None
) -> ValueSettings:
    """The settings with the options that were given. Raises ``InputError`` for what makes no sense."""
    from dataclasses import replace

    from value_model.advantages import AdvantageConfig

    if n_step is not None and n_seconds is not None:
        raise InputError(f"--n-step {n_step} and --n-seconds {n_seconds}: look ahead by one of them")
    if n_step is not None:
        if n_step != TO_THE_END and not n_step.isdigit():
            raise InputError(f"--n-step {n_step}: give a number of frames, or {TO_THE_END!r}")
        value = replace(value, n_step=None if n_step == TO_THE_END else int(n_step), n_seconds=None)
    if n_seconds is not None:
        value = replace(value, n_step=None, n_seconds=n_seconds)
    if positive_fraction is not None:
        value = replace(value, positive_fraction=positive_fraction)
    AdvantageConfig(value.n_step, value.positive_fraction, value.n_seconds)  # refuses what cannot be
    return value


def _compute(
    found: Workspace, ensemble: ValueEnsemble, snapshot: Snapshot, settings: Any
) -> tuple[int, StepResult, StepResult]:
    """How many episodes had to be scored, the advantages, the judgement; what is there is not computed."""
    from workflows.steps import StepRunner
    from workflows.value_graph import ValueGraph, trained_models

    graph = ValueGraph(found, settings)
    # Done before Ray would have started. Where there is much to score, that starts its own workers.
    with StepRunner(found, inline=True) as runner:
        members = trained_models(runner.store, ensemble)
        scoring = graph.score_values(snapshot, members, ensemble.training)
        labelling = graph.advantages(snapshot, scoring, ensemble.training)
        judging = graph.judgement(snapshot, labelling, ensemble.training)
        scores, labelled, judged = runner.run_all([scoring, labelling, judging])
        now = any(result.key == scores.key for result in runner.computed)
    return int(scores.result["scored"]) if now else 0, labelled, judged


def summary(
    labelled: StepResult, judged: StepResult, value: ValueSettings, entries: Sequence[EpisodeEntry]
) -> list[str]:
    """What was computed, per task, where it is, and the gate's verdict with every check that failed."""

    from value_model.gate_report import VERDICT_WORDS
    from workflows.step_files import ADVANTAGES_FILE, QUALITY_FILE
    from workflows.value_gate import read_gate
    from workflows.value_steps import scoring_run

    quality = read_json(labelled.path / QUALITY_FILE)
    shares: dict[str, dict[str, float]] = quality["positive_share"]
    sources = [s for s in ("teleop", "policy", "intervention") if any(s in of for of in shares.values())]
    rows = [
        [
            task,
            round(threshold, 4),
            *(f"{shares[task][s]:.0%}" if s in shares.get(task, {}) else "-" for s in sources),
        ]
        for task, threshold in labelled.result["thresholds"].items()
    ]
    report = read_gate(judged.path)
    failed = report.of("fail") if report is not None else []
    return [
        f"advantages: {effective_look_ahead(value, entries)}, the best {value.positive_fraction:.0%} of each "
        "task's frames are positive, corrections always",
        *table(["task", "threshold", *(f"{source} positive" for source in sources)], rows).splitlines(),
        f"written: {labelled.path / ADVANTAGES_FILE}, and run {scoring_run(labelled.path)} for 'recap label'",
        str(judged.result["headline"]),
        *(f"  {VERDICT_WORDS['fail']}  {check.name}: {check.sentence}" for check in failed),
    ]


def effective_look_ahead(value: ValueSettings, entries: Sequence[EpisodeEntry]) -> str:
    """How far the advantages of these episodes look ahead, in words.

    A time is rounded to whole frames of an episode, one at least: what it comes to is said where it differs.
    """
    from dataclasses import replace

    from value_model.advantages import AdvantageConfig
    from workflows.value_check import look_ahead

    asked = AdvantageConfig(value.n_step, value.positive_fraction, value.n_seconds)
    frames = [(asked.frames_ahead(entry.info.rate_hz), entry) for entry in entries]
    if all(ahead is None or ahead >= entry.length for ahead, entry in frames):
        return look_ahead(replace(value, n_step=None, n_seconds=None))
    if value.n_seconds is None:
        return look_ahead(value)
    found = {(ahead, ahead / entry.info.rate_hz) for ahead, entry in frames if ahead is not None}
    rounded = [
        f"{ahead} frame{'' if ahead == 1 else 's'} = {seconds:.3g} s"
        for ahead, seconds in sorted(found)
        if not math.isclose(seconds, value.n_seconds, rel_tol=1e-6)
    ]
    return look_ahead(value) + (f" ({', '.join(rounded)})" if rounded else "")


def label_changes(found: Workspace, ensemble: ValueEnsemble, snapshot: Snapshot) -> list[str]:
    """What is labelled otherwise than when the value models were trained, and what follows from it."""
    from pipeline.label_snapshot import read_snapshot
    from workflows.value_check import snapshot_path

    if ensemble.snapshot == snapshot.digest:
        return ["labels: the same as when the value models were trained"]
    path = snapshot_path(found, ensemble.snapshot)
    if path is None:
        return ["labels: which ones the value models were trained on is no longer known"]
    before = {row.episode_id: row.outcome for row in read_snapshot(path)}
    now = {row.episode_id: row.outcome for row in snapshot.rows}
    new = [i for i in now if i not in before]
    gone = [i for i in before if i not in now]
    other = [i for i in now if i in before and now[i] != before[i]]
    if not (new or gone or other):
        return ["labels: the outcomes are the same as when the value models were trained"]
    lines = ["since the value models were trained:"]
    for ids, what in (
        (other, "with another outcome: returns, advantages and thresholds follow it, values do not yet"),
        (new, "more: scored by every model, none of which has seen them"),
        (gone, "fewer (excluded, disputed or removed): they still are in the models"),
    ):
        if ids:
            lines.append(f"  {len(ids)} {what} ({', '.join(sorted(ids)[:3])}{', …' if len(ids) > 3 else ''})")
    return [*lines, "  'recap value train' lets the values follow"]

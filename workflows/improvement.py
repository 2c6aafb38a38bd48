"""The tour: the whole loop in plain calls. Read this file first.

:func:`improve` is one turn, from whatever episodes and labels there are to a decision; the demo puts
scripted people in front of it. All work is durable steps; what happens here, in the driver, is what
must happen once and in order: labels, the decision, the champion, the ledger, links for people.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot, freeze
from pipeline.labels import LabelStore
from pipeline.workspace import EpisodeEntry, Workspace
from workflows import film_steps
from workflows.comparison import PairedDifference, Performance, paired_difference, performance
from workflows.evaluation import read_attempts
from workflows.ledger import Ledger
from workflows.loop_graph import LoopGraph, TurnSteps
from workflows.settings import LoopSettings
from workflows.simulated_labelling import label_from_notes
from workflows.step_files import DATASET
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepResult
from workflows.steps import StepRunner

CANDIDATE = "RECAP"
SIGNIFICANCE = 0.05
# A candidate that is faster but fails more often by over this share is not promoted.
LARGEST_SUCCESS_LOSS = 0.05
FILMED_STARTS = 3
_REPORTING = tuple(f"workflows.report{part}" for part in ("", "_data", "_figures", "_tables", "_words"))


@dataclass(frozen=True)
class Decision:
    """Whether the candidate replaces the champion, and the reason in one sentence."""

    promoted: bool
    reason: str


@dataclass(frozen=True)
class TurnResult:
    """What one turn of the loop gave."""

    iteration: int
    performances: dict[str, Performance]
    against: dict[str, PairedDifference]
    decision: Decision
    reference: str
    report: Path
    dataset: Path
    checkpoint: Path


@dataclass(frozen=True)
class Loop:
    """A workspace at work: what every part of a turn needs."""

    workspace: Workspace
    settings: LoopSettings
    runner: StepRunner
    ledger: Ledger

    @property
    def graph(self) -> LoopGraph:
        """The steps of this workspace under these settings."""
        return LoopGraph(self.workspace, self.settings)


def run_demo(loop: Loop) -> TurnResult:
    """Everything, people included: demonstrations, a base policy, rollouts with corrections, one turn."""
    graph, recording = loop.graph, loop.settings.recording
    demonstrations = _record(
        loop,
        graph.demonstrations("skilled", recording.skilled_demonstrations)
        + graph.demonstrations("sloppy", recording.sloppy_demonstrations),
    )
    label_simulated(loop, demonstrations)
    base = train_base(loop, demonstrations)
    rollouts = _record(
        loop,
        graph.rollouts("observer", recording.autonomous_rollouts, base)
        + graph.rollouts("supervisor", recording.supervised_rollouts, base),
    )
    label_simulated(loop, rollouts)
    return improve(loop, demonstrations + rollouts, base)


def train_base(loop: Loop, episode_ids: Sequence[str]) -> StepResult:
    """Trains the base policy and makes it the first champion."""
    snapshot = freeze_labels(loop.workspace, episode_ids)
    loop.runner.run_all(loop.graph.cache(snapshot))
    base = loop.runner.run(loop.graph.base(snapshot))
    loop.ledger.set_base(base.name, base.key, reason="trained on every demonstration")
    return base


def improve(loop: Loop, episode_ids: Sequence[str], base: StepResult) -> TurnResult:
    """One turn: learns values, conditions, fine-tunes from ``base``, evaluates, decides, reports."""
    snapshot = freeze_labels(loop.workspace, episode_ids)
    require_both_outcomes(snapshot)
    turn = loop.graph.turn(snapshot, base)
    results = dict(zip(_addresses(turn.all()), loop.runner.run_all(turn.all()), strict=True))
    attempts = {
        name: read_attempts(*(results[_address(part)].path for part in parts))
        for name, parts in turn.evaluations.items()
    }
    against = {
        name: paired_difference(attempts[CANDIDATE], found)
        for name, found in attempts.items()
        if name != CANDIDATE
    }
    reference = "base"
    decision = decide(against[reference], reference)
    iteration = loop.ledger.iteration_of(results[_address(turn.recap)].key)
    report = _report(loop, snapshot, turn, base, iteration, reference, decision)
    result = TurnResult(
        iteration=iteration,
        performances={name: performance(found) for name, found in attempts.items()},
        against=against,
        decision=decision,
        reference=reference,
        report=_link(loop.workspace.reports / f"iteration-{iteration}.html", report / "report.html"),
        dataset=_link(
            loop.workspace.datasets / f"iteration-{iteration}",
            results[_address(turn.dataset)].path / DATASET,
        ),
        checkpoint=results[_address(turn.recap)].path,
    )
    _conclude(loop, turn, results[_address(turn.recap)], result)
    return result


def decide(difference: PairedDifference, reference: str) -> Decision:
    """Promotes a candidate that is faster beyond chance on the same starts and not much less reliable.

    The rule: more successes per hour with p < 0.05 (one-sided paired bootstrap), and a success rate at
    most five points below the reference's.
    """
    gain, p = difference.successes_per_hour, difference.p_value
    loss = -difference.success_rate.value
    facts = f"{gain.value:+.0f} successes per hour [{gain.low:+.0f}, {gain.high:+.0f}], p = {p:.3f}"
    if loss > LARGEST_SUCCESS_LOSS:
        return Decision(False, f"kept {reference}: the candidate succeeds {100 * loss:.0f} points less often")
    if p < SIGNIFICANCE:
        return Decision(True, f"promoted: better than {reference} on the same starts ({facts})")
    return Decision(False, f"kept {reference}: not better beyond chance on the same starts ({facts})")


def freeze_labels(workspace: Workspace, episode_ids: Sequence[str]) -> Snapshot:
    """Freezes the labels of these episodes into ``snapshots/``."""
    wanted = set(episode_ids)
    entries = [entry for entry in workspace.list_episodes() if entry.id in wanted]
    missing = wanted - {entry.id for entry in entries}
    if missing:
        raise InputError(
            f"episode {min(missing)} was recorded but is gone from {workspace.episodes}: "
            "put it back, or start in a new workspace"
        )
    with LabelStore(workspace.labels_path) as store:
        return freeze(store, entries, workspace.root / "snapshots")


def label_simulated(loop: Loop, episode_ids: Sequence[str]) -> int:
    """Lets the scripted annotator label what nobody has labelled yet."""
    with LabelStore(loop.workspace.labels_path) as store:
        labelled = store.current()
    if all(episode_id in labelled for episode_id in episode_ids):
        return 0
    wanted = set(episode_ids)
    entries: list[EpisodeEntry] = [e for e in loop.workspace.list_episodes() if e.id in wanted]
    return label_from_notes(loop.workspace, episode_ids, {e.id: e.info.task for e in entries})


def require_both_outcomes(snapshot: Snapshot) -> None:
    """A value model needs successes and failures; says which are missing."""
    found = {row.outcome for row in snapshot.rows}
    for outcome in ("success", "failure"):
        if outcome not in found:
            raise InputError(
                f"no episode is labelled {outcome}: a value model needs successes and failures; "
                "label some with 'recap label'"
            )


def _record(loop: Loop, steps: list[Step]) -> list[str]:
    results = loop.runner.run_all(steps)
    return sorted(episode for result in results for episode in result.result["episodes"])


def _report(
    loop: Loop,
    snapshot: Snapshot,
    turn: TurnSteps,
    base: StepResult,
    iteration: int,
    reference: str,
    decision: Decision,
) -> Path:
    evaluation = turn.evaluations[CANDIDATE][0].parameters["evaluation"]
    film = Step(
        "film",
        film_steps.film_side_by_side,
        {"evaluation": evaluation, "labels": [reference, CANDIDATE], "starts": FILMED_STARTS},
        {
            "base": base,
            "candidate": turn.recap,
            "base_evaluation": turn.evaluations["base"],
            "candidate_evaluation": turn.evaluations[CANDIDATE],
        },
        ("collectors", "workflows.report_films"),
    )
    named = [(name, part) for name, parts in turn.evaluations.items() for part in parts]
    step = Step(
        "report",
        film_steps.report,
        {
            "evaluation_names": [name for name, _ in named],
            "training_names": ["base", CANDIDATE, "filtered BC"],
            "iteration": iteration,
            "title": f"Iteration {iteration}",
            "reference": reference,
            **asdict_decision(decision),
        },
        {
            "workspace": ExternalInput(loop.workspace.root, "workspace"),
            "snapshot": ExternalInput(snapshot.path, snapshot.digest),
            "evaluations": [part for _, part in named],
            "trainings": [base, turn.recap, turn.filtered],
            "advantages": turn.advantages,
            "members": turn.members,
            "dataset": turn.dataset,
            "film": film,
        },
        _REPORTING,
    )
    return loop.runner.run(step).path


def asdict_decision(decision: Decision) -> dict[str, Any]:
    """A decision as the report's parameters."""
    return {"promoted": decision.promoted, "decision": decision.reason}


def _conclude(loop: Loop, turn: TurnSteps, candidate: StepResult, result: TurnResult) -> None:
    """Writes the iteration into the ledger, once, and moves the champion's pointer where that was decided."""
    loop.ledger.record_iteration(
        result.iteration,
        candidate.key,
        {
            "performances": {name: asdict(found) for name, found in result.performances.items()},
            "promoted": result.decision.promoted,
            "reason": result.decision.reason,
            "report": os.path.relpath(result.report, loop.workspace.root),
        },
    )
    if result.decision.promoted:
        loop.ledger.promote(candidate.name, candidate.key, result.iteration, result.decision.reason)


def _link(link: Path, target: Path) -> Path:
    """Makes ``link`` point to ``target`` by a relative symbolic link, in one rename."""
    relative = os.path.relpath(target, link.parent)
    if not (link.is_symlink() and str(link.readlink()) == relative):
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(relative)
        temporary.replace(link)
    return link


def _address(step: Step) -> tuple[str, str]:
    return step.name, step.key


def _addresses(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return [_address(step) for step in steps]

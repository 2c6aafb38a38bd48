"""The tour: the whole loop in plain calls. Read this file first.

:func:`improve` is one turn, from whatever episodes and labels there are to a decision; the demo puts
scripted people in front of it. All work is durable steps; what happens here, in the driver, is what
must happen once and in order: labels, the gate, the decision, the champion, the ledger, links for people.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.errors import Failure, InputError, one_line
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from workflows.base_policy import require_base_policy
from workflows.comparison import PairedDifference, Performance, performance
from workflows.gpu_share import require_threads, require_workers
from workflows.labelled_subtasks import names_of, subtask_problems, trained_rows
from workflows.ledger import Champion, Ledger
from workflows.loop_graph import BASE, CANDIDATE, CHAMPION, LoopGraph, TurnSteps
from workflows.promotion import compared
from workflows.promotion_rounds import attempts_of, evaluate_until_decided
from workflows.promotion_standing import StandingDecision, plan_turn
from workflows.report_graph import Decision, report_step, values_report_step
from workflows.report_iterations import write_iterations_report
from workflows.settings import LoopSettings
from workflows.step_files import CHECKPOINT, DATASET, REPORT_FILE
from workflows.step_recipe import Step
from workflows.step_store import StepResult, StepStore
from workflows.steps import StepRunner
from workflows.turn_labels import freeze_labels, label_simulated, require_both_outcomes
from workflows.value_ensemble import ValueEnsemble
from workflows.value_gate import GateClosed, GateVerdict, keep_ensemble, read_gate, verdict
from workflows.value_graph import AnyStep

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TurnResult:
    """What one turn of the loop gave; ``candidate`` is its key, ``champion`` who holds after it.

    ``round_starts`` is how long the rounds of the evaluation were. ``stands``: the decision was made before.
    ``history`` is the page over all iterations; ``history_fault`` why it could not be written.
    """

    iteration: int
    gate: GateVerdict
    performances: dict[str, Performance]
    against: dict[str, PairedDifference]
    decision: Decision
    reference: str
    report: Path
    dataset: Path
    checkpoint: Path
    candidate: str
    champion: Champion | None = None
    round_starts: int | None = None
    stands: StandingDecision | None = None
    history: Path | None = None
    history_fault: str = ""


@dataclass(frozen=True)
class Loop:
    """A workspace at work: what every part of a turn needs.

    ``accept_values``: a person answers for values that do not pass the gate.
    """

    workspace: Workspace
    settings: LoopSettings
    runner: StepRunner
    ledger: Ledger
    accept_values: bool = False

    @property
    def graph(self) -> LoopGraph:
        """The steps of this workspace under these settings."""
        return LoopGraph(self.workspace, self.settings)


def run_demo(loop: Loop) -> TurnResult:
    """Everything, people included: demonstrations, a base policy, rollouts with corrections, one turn."""
    graph, recording = loop.graph, loop.settings.recording
    demonstrations = record(
        loop,
        graph.demonstrations("skilled", recording.skilled_demonstrations)
        + graph.demonstrations("sloppy", recording.sloppy_demonstrations),
    )
    label_simulated(loop.workspace, demonstrations)
    base = train_base(loop, demonstrations)
    rollouts = record(
        loop,
        graph.rollouts("observer", recording.autonomous_rollouts, base)
        + graph.rollouts("supervisor", recording.supervised_rollouts, base),
    )
    label_simulated(loop.workspace, rollouts)
    return improve(loop, demonstrations + rollouts, base)


def train_base(loop: Loop, episode_ids: Sequence[str]) -> StepResult:
    """Trains the base policy and makes it the first champion."""
    snapshot = freeze_labels(loop.workspace, episode_ids)
    loop.runner.run_all(loop.graph.cache(snapshot))
    base = loop.runner.run(loop.graph.base(snapshot))
    loop.ledger.set_base(base.name, base.key, reason="trained on every demonstration")
    return base


def base_of(loop: Loop, demonstrations: Sequence[str]) -> StepResult:
    """The base policy that fine-tunes start from: the ledger's, or one trained on the demonstrations."""
    if loop.runner.address is None:
        for training in (loop.settings.value, loop.settings.policy):
            require_workers(training.device, training.workers)
        require_threads(loop.settings.policy.threads)
    base = known_base(loop.runner.store, loop.ledger)
    require_base_policy(loop.settings, base, here=loop.runner.address is None)
    return base if base is not None else train_base(loop, require_demonstrations(demonstrations))


def known_base(store: StepStore, ledger: Ledger) -> StepResult | None:
    """The ledger's base policy; ``None`` before there is one. Raises ``InputError`` where it is gone."""
    history = ledger.champions()
    if not history:
        return None
    base = store.find(history[0])
    if base is None:
        raise InputError(f"the base policy {history[0].path} is gone: put it back, or start a new workspace")
    require_whole(store, base, "or start a new workspace")
    return base


def require_demonstrations(demonstrations: Sequence[str]) -> Sequence[str]:
    """The demonstrations to train a base policy on; ``InputError`` where there are none."""
    if not demonstrations:
        raise InputError(
            "there are no demonstrations to train a base policy on: record some with 'recap record'"
        )
    return demonstrations


def improve(loop: Loop, episode_ids: Sequence[str], base: StepResult) -> TurnResult:
    """One turn: learns values, has them judged, fine-tunes from ``base``, evaluates until decided, reports.

    What was decided about this candidate before stands: a repeat completes what is missing. Raises
    ``GateClosed`` where the values cannot be trusted; nothing is then fine-tuned on them, the ledger and the
    champion stay as they are, and ``reports/values-<iteration>.html`` shows why.
    """
    snapshot = freeze_labels(loop.workspace, episode_ids)
    require_both_outcomes(snapshot)
    for line in subtask_problems(trained_rows(snapshot.rows), names_of(base.path / CHECKPOINT)):
        _LOG.warning("%s", line)
    graph, turn, iteration, stands = plan_turn(loop.graph, loop.workspace, loop.ledger, snapshot, base)
    reference = add_champion(graph, loop.runner.store, loop.ledger, turn, base, iteration)
    gate = learn_values(loop, snapshot, turn)
    if not gate.goes_on:
        page = loop.runner.run(values_report_step(loop.workspace, snapshot, turn, iteration))
        link = _link(loop.workspace.reports / f"values-{iteration}.html", page.path / REPORT_FILE)
        _history(loop)
        raise GateClosed(gate.report, link)
    results, decision = evaluate_until_decided(
        loop.runner, graph, turn, reference, stands.decision if stands is not None else None
    )
    attempts = attempts_of(turn, results)
    page = loop.runner.run(
        report_step(loop.workspace, snapshot, turn, base, iteration, reference, decision, gate.note)
    )
    result = TurnResult(
        iteration=iteration,
        gate=gate,
        performances={name: performance(found) for name, found in attempts.items()},
        against=compared(attempts, CANDIDATE, reference, decision),
        decision=decision,
        reference=reference,
        report=_link(loop.workspace.reports / f"iteration-{iteration}.html", page.path / REPORT_FILE),
        dataset=_link(
            loop.workspace.datasets / f"iteration-{iteration}", results[turn.dataset.key].path / DATASET
        ),
        checkpoint=results[turn.recap.key].path / CHECKPOINT,
        candidate=turn.recap.key,
        round_starts=graph.settings.promotion.round_starts,
        stands=stands,
    )
    champion = _conclude(loop, results[turn.recap.key], list(results.values()), result)
    history, fault = _history(loop)
    return replace(result, champion=champion, history=history, history_fault=fault)


def learn_values(loop: Loop, snapshot: Snapshot, turn: TurnSteps) -> GateVerdict:
    """Trains the value models, scores every frame and has the values judged: the gate of the turn.

    Nothing else of the turn is started before: where the gate closes, nothing else is needed.
    """
    loop.runner.run_all(turn.cache)
    members = loop.runner.run_all(turn.members)
    judged = loop.runner.run(turn.gate)
    parameters = turn.scores.parameters
    keep_ensemble(
        loop.workspace,
        ValueEnsemble(
            members=tuple(member.path / CHECKPOINT for member in members),
            training=parameters["training"],
            image_size=parameters["image_size"],
            snapshot=snapshot.digest,
        ),
    )
    report = read_gate(judged.path)
    if report is None:
        raise Failure(f"{judged.path} holds no judgement of the values: remove it and try again")
    return verdict(report, quick=loop.settings.quick, accepted=loop.accept_values)


def require_whole(store: StepStore, policy: StepResult, otherwise: str) -> None:
    """Raises ``InputError`` where a policy's files are gone or changed: now, not after a night's work."""
    damaged = store.verify(policy)
    if damaged:
        raise InputError(f"{damaged[0]} is gone or was changed: put it back from a copy, {otherwise}")


def add_champion(
    graph: LoopGraph, store: StepStore, ledger: Ledger, turn: TurnSteps, base: AnyStep, iteration: int
) -> str:
    """Has the champion so far evaluated too, unless it is the base; returns who is to be beaten."""
    before = [c for c in ledger.champions() if c.since < iteration]
    if not before or before[-1].key == base.key:
        return BASE
    champion = store.find(before[-1])
    if champion is None:
        raise InputError(f"the champion {before[-1].path} is gone: put it back, or see 'recap rollback'")
    require_whole(store, champion, "or see 'recap rollback'")
    graph.add_champion(turn, champion)
    return CHAMPION


def record(loop: Loop, steps: Sequence[Step]) -> list[str]:
    """Has sessions recorded that are not there yet; the ids of their episodes, sorted."""
    results = loop.runner.run_all(steps)
    return sorted(episode for result in results for episode in result.result["episodes"])


def _conclude(
    loop: Loop, candidate: StepResult, used: list[StepResult], result: TurnResult
) -> Champion | None:
    """Writes the iteration into the ledger, once, and moves the champion's pointer where that was decided.

    Returns who is champion now: of a turn that was repeated after a rollback, not its candidate.
    """
    loop.ledger.decide(
        result.iteration,
        candidate,
        {
            "performances": {name: asdict(found) for name, found in result.performances.items()},
            "promoted": result.decision.promoted,
            "reason": result.decision.reason,
            "decision": {
                "rule": result.decision.rule,
                "looks": [dict(look) for look in result.decision.looks],
                "guards": [dict(guard) for guard in result.decision.guards],
                **({"round_starts": result.round_starts} if result.round_starts else {}),
            },
            "values_passed": result.gate.report.passed,
            "report": os.path.relpath(result.report, loop.workspace.root),
        },
        used,
    )
    return loop.ledger.champion()


def _history(loop: Loop) -> tuple[Path | None, str]:
    """Writes the page over all iterations; the page, or why there is none."""
    try:
        return write_iterations_report(loop.workspace, loop.ledger, loop.runner.store), ""
    except Exception as error:  # the turn is done and noted: no fault of a page may undo that
        return None, one_line(error)


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

"""What was decided about a candidate before: the first decision stands.

A turn that is given again has the same candidate, and so the number of its iteration. To decide anew would
let a candidate replace a newer champion that it never met, and asking with more and more starts until the
answer is yes spends the test's error again and again. So a repeat takes the decision from the ledger, and
evaluates the rounds that it took. Whoever wants another decision needs another candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.loop_graph import CANDIDATE, LoopGraph, TurnSteps
from workflows.report_graph import Decision
from workflows.settings import LoopSettings
from workflows.step_recipe import StepAddress
from workflows.step_store import StepResult, StepStore
from workflows.value_graph import AnyStep

ANOTHER = "for another decision it takes another candidate: new labels, or another --seed"


@dataclass(frozen=True)
class StandingDecision:
    """What was decided about the candidate of an iteration, and when (UTC).

    ``starts`` is how many starts the decision took and ``round_starts`` the length of their rounds; ``None``
    where that is not known.
    """

    iteration: int
    decided: str
    decision: Decision
    starts: int | None
    round_starts: int | None

    def settings(self, now: LoopSettings) -> LoopSettings:
        """``now``, but evaluating just the rounds that the decision took."""
        if self.starts is None:
            return now
        length = self.round_starts or now.promotion.round_starts
        rule = replace(now.promotion, stop_early=False, round_starts=length)
        return replace(now, promotion=rule, evaluation_starts=self.starts)

    def words(self, since: str = "") -> str:
        """One line that says what stands; ``since``: what became of a promotion."""
        moment = datetime.fromisoformat(self.decided).astimezone(UTC)
        after = f" after {self.starts} starts" if self.starts else ""
        return (
            f"iteration {self.iteration} was decided on {moment:%Y-%m-%d %H:%M} UTC{after}: "
            f"{self.decision.reason}{since}; that stands ({ANOTHER})"
        )


def plan_turn(
    graph: LoopGraph, workspace: Workspace, ledger: Ledger, snapshot: Snapshot, base: AnyStep
) -> tuple[LoopGraph, TurnSteps, int, StandingDecision | None]:
    """The turn's steps, its number, and what was decided about its candidate before.

    Where that stands, the graph evaluates just the rounds that it took, whatever is set now.
    """
    turn = graph.turn(snapshot, base)
    iteration = ledger.iteration_of(turn.recap.key)
    stands = standing_decision(workspace, ledger, iteration, turn.recap.key)
    if stands is not None:
        graph = LoopGraph(workspace, stands.settings(graph.settings))
        turn = graph.turn(snapshot, base)
    return graph, turn, iteration, stands


def standing_decision(
    workspace: Workspace, ledger: Ledger, iteration: int, candidate: str
) -> StandingDecision | None:
    """What was decided about this candidate (its step's key); ``None`` where nothing was.

    The ledger's entry counts. Where a kill came between the report and the ledger, the report's does, as
    long as nobody else became champion since.
    """
    for noted in ledger.iterations():
        if (noted.n, noted.candidate) == (iteration, candidate) and "promoted" in noted.summary:
            return _noted(iteration, noted.recorded, noted.summary)
    return _reported(workspace, ledger, iteration, candidate)


def _noted(iteration: int, decided: str, summary: Mapping[str, Any]) -> StandingDecision:
    told = summary.get("decision") or {}
    decision = Decision(
        promoted=bool(summary["promoted"]),
        reason=str(summary.get("reason", "")),
        rule=str(told.get("rule", "")),
        looks=tuple(told.get("looks", ())),
        guards=tuple(told.get("guards", ())),
    )
    attempts = summary.get("performances", {}).get(CANDIDATE, {}).get("attempts")
    starts = decision.looks[-1]["starts"] if decision.looks else attempts
    return StandingDecision(iteration, decided, decision, starts, _round_starts(told, decision))


def _round_starts(told: Mapping[str, Any], decision: Decision) -> int | None:
    """How long the rounds were; a ledger of before tells it by the looks, where there were several."""
    if "round_starts" in told:
        return int(told["round_starts"])
    return int(decision.looks[0]["starts"]) if len(decision.looks) > 1 else None


def _reported(
    workspace: Workspace, ledger: Ledger, iteration: int, candidate: str
) -> StandingDecision | None:
    """What the first report about this candidate says, if nobody became champion since."""
    store, champions = StepStore(workspace.steps), ledger.champions()
    found = [
        report
        for report in _reports(store)
        if report.manifest["parameters"].get("iteration") == iteration
        and candidate in {StepAddress.parse(text).key for text in report.manifest["inputs"]["trainings"]}
        and all(champion.promoted <= _finished(report) for champion in champions)
    ]
    if not found:
        return None
    first = min(found, key=_finished)
    told = first.manifest["parameters"]["decision"]
    ends = _ends(store, first)
    lengths = {"round_starts": max(2, min(ends))} if ends else {}
    summary = {"promoted": told["promoted"], "reason": told["reason"], "decision": {**told, **lengths}}
    return _noted(iteration, _finished(first), summary)


def _reports(store: StepStore) -> Iterator[StepResult]:
    """The reports of turns; a damaged one is no reason to stop a turn."""
    for address in store.addresses():
        if address.name != "report":
            continue
        try:
            report = store.find(address)
        except InputError:
            continue
        # Those of earlier versions told the decision as a sentence.
        if report is not None and isinstance(report.manifest["parameters"].get("decision"), dict):
            yield report


def _finished(report: StepResult) -> str:
    return str(report.manifest["finished"])


def _ends(store: StepStore, report: StepResult) -> set[int]:
    """After how many starts the rounds ended that a report was written from; empty where one is gone."""
    ends = set()
    for address in report.manifest["inputs"]["evaluations"]:
        try:
            part = store.find(StepAddress.parse(address))
        except InputError:
            part = None
        if part is None:
            return set()
        ends.add(int(part.manifest["parameters"]["evaluation"]["starts"]))
    return ends

"""What ``recap improve`` would do now, and why: told from keys alone. Starts no Ray and writes nothing.

The labels are frozen into a temporary folder, since a step's key depends on what was frozen and not on where.
What a turn leads to is known as far as its results are there: the gate's verdict once it was asked, whether
another round of starts is needed once a round is there, the report once it is decided.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.label_snapshot import Snapshot, SnapshotRow, read_snapshot
from pipeline.workspace import EpisodeEntry, Workspace
from workflows.base_policy import require_base_policy
from workflows.improvement import add_champion, known_base, require_demonstrations
from workflows.label_loss import require_labels_not_lost
from workflows.ledger import Ledger
from workflows.loop_graph import CANDIDATE, LoopGraph, TurnSteps
from workflows.promotion_rounds import attempts_of, judged
from workflows.promotion_standing import plan_turn
from workflows.report_graph import Decision, report_step, values_report_step
from workflows.settings import LoopSettings
from workflows.step_explanation import PlannedStep, plan
from workflows.step_recipe import Step
from workflows.step_store import StepResult, StepStore
from workflows.turn_labels import freeze_labels, require_both_outcomes
from workflows.value_check import snapshot_path
from workflows.value_gate import GateVerdict, read_gate, verdict
from workflows.value_graph import AnyStep

_LABELS = "input snapshot changed"
_ROUNDS = ("evaluation.first ", "evaluation.starts ")


def dry_run(
    workspace: Workspace,
    settings: LoopSettings,
    entries: Sequence[EpisodeEntry],
    *,
    accept_values: bool = False,
) -> list[str]:
    """The lines that say which steps of a turn are done, and which would run and why.

    Raises ``InputError`` for what the turn itself would refuse: labels of one outcome only, no demonstration
    to train a base policy on, a champion that is gone.
    """
    with TemporaryDirectory(prefix="recap-dry-run-") as folder:
        turn = _Turn(workspace, settings, Path(folder), accept_values)
        return list(turn.lines(entries))


@dataclass(frozen=True)
class _Turn:
    workspace: Workspace
    settings: LoopSettings
    folder: Path
    accept_values: bool

    def lines(self, entries: Sequence[EpisodeEntry]) -> Iterator[str]:
        store, ledger = StepStore(self.workspace.steps), Ledger(self.workspace)
        graph = LoopGraph(self.workspace, self.settings)
        base, steps = self._base(store, ledger, graph, entries)
        snapshot = self._frozen([entry.id for entry in entries])
        require_both_outcomes(snapshot)
        graph, turn, iteration, stands = plan_turn(graph, self.workspace, ledger, snapshot, base)
        reference = add_champion(graph, store, ledger, turn, base, iteration)
        gate = self._gate(store, turn)
        closed = gate is not None and not gate.goes_on
        if closed:
            page = values_report_step(self.workspace, snapshot, turn, iteration)
            steps += [*turn.cache, *turn.members, turn.scores, turn.advantages, turn.gate, page]
        else:
            steps += turn.all()
        decision = (
            None
            if closed
            else self._decided(
                store, graph, turn, reference, steps, stands.decision if stands is not None else None
            )
        )
        planned = plan(store, steps)
        whole = gate is not None and decision is not None
        if gate is not None and decision is not None:
            page = report_step(
                self.workspace, snapshot, turn, base, iteration, reference, decision, gate.note
            )
            planned = plan(store, [*steps, page])
        noted = any(one.candidate == turn.recap.key for one in ledger.iterations())
        yield f"iteration {iteration}, {len(snapshot.rows)} episodes; to be beaten: {reference}"
        if stands is not None:
            yield stands.words()
        yield from self._told(store, planned, snapshot)
        if closed and gate is not None:
            failed = ", ".join(check.name for check in gate.report.of("fail"))
            yield f"the gate is closed ({failed}): nothing is fine-tuned, see 'recap value check'"
        elif not whole:
            yield from self._rounds(graph, turn)
            yield "then: the report and, where a policy is new, the film"
            if gate is None and not self.settings.quick and not self.accept_values:
                yield "where the gate finds that the values cannot be trusted, it stops after judge_values"
        elif not noted:
            yield "then: the turn is noted in runs.sqlite"

    def _decided(
        self,
        store: StepStore,
        graph: LoopGraph,
        turn: TurnSteps,
        reference: str,
        steps: list[Step],
        stands: Decision | None,
    ) -> Decision | None:
        """The decision where everything is there; adds to ``turn`` and ``steps`` the rounds that it takes."""
        while True:
            found = {step.key: done for step in steps if (done := store.find(step)) is not None}
            if len(found) < len({step.key for step in steps}):
                return None
            if stands is not None:
                return stands
            verdict = judged(self.settings, attempts_of(turn, found), reference)
            if not verdict.is_open:
                return verdict.decision()
            steps += graph.add_round(turn)

    def _rounds(self, graph: LoopGraph, turn: TurnSteps) -> Iterator[str]:
        """Which round the evaluations are at, where there may be more."""
        rule, most = graph.settings.promotion, graph.settings.evaluation_starts
        ends = rule.rounds(most)
        planned = turn.evaluations[CANDIDATE][-1].parameters["evaluation"]["starts"]
        if rule.stop_early and planned < ends[-1]:
            k = ends.index(planned)
            starts = planned - [0, *ends][k]
            yield (
                f"evaluation: round {k + 1} of at most {len(ends)}, {starts} starts of each policy; further "
                f"rounds, up to {ends[-1]} starts, only while the decision is open"
            )

    def _base(
        self, store: StepStore, ledger: Ledger, graph: LoopGraph, entries: Sequence[EpisodeEntry]
    ) -> tuple[AnyStep, list[Step]]:
        """The base policy, there or to be trained, and the steps that train it."""
        base = known_base(store, ledger)
        require_base_policy(self.settings, base)
        if base is not None:
            return base, []
        shown = [entry.id for entry in entries if entry.info.policy_checkpoint is None]
        snapshot = self._frozen(require_demonstrations(shown))
        training = graph.base(snapshot)
        return training, [*graph.cache(snapshot), training]

    def _frozen(self, episode_ids: Sequence[str]) -> Snapshot:
        if not self.workspace.labels_path.exists():
            # Opening the labels would make the file: nobody has said anything, so no outcome is there.
            require_labels_not_lost(self.workspace)
            return Snapshot(self.folder, "", ())
        return freeze_labels(self.workspace, episode_ids, self.folder)

    def _gate(self, store: StepStore, turn: TurnSteps) -> GateVerdict | None:
        """What follows from the gate's report; ``None`` before the gate was asked."""
        judged = store.find(turn.gate)
        report = read_gate(judged.path) if judged is not None else None
        if report is None:
            return None
        return verdict(report, quick=self.settings.quick, accepted=self.accept_values)

    def _told(self, store: StepStore, planned: Sequence[PlannedStep], snapshot: Snapshot) -> Iterator[str]:
        """What is done on one line, and a line for all steps of a name that run for the same reason."""
        waiting = {p.step.key for p in planned if p.state == "to run"}
        done = Counter(p.step.name for p in planned if p.state == "done")
        if done:
            yield f"done: {_steps(done.total())} ({', '.join(f'{n} {name}' for name, n in done.items())})"
        if not waiting:
            yield "nothing to do"
            return
        groups: Counter[tuple[str, str]] = Counter()
        for one in planned:
            if one.state == "to run":
                groups[one.step.name, self._why(store, one, waiting, snapshot)] += 1
        yield f"to run: {_steps(len(waiting))}"
        for (name, why), number in groups.items():
            yield f"{number:4} x {name}: {why}"

    def _why(self, store: StepStore, one: PlannedStep, waiting: set[str], snapshot: Snapshot) -> str:
        needed = dict.fromkeys(step.name for step in one.step.upstream() if step.key in waiting)
        if needed:
            return f"follows {', '.join(needed)}"
        if one.step.name == "evaluate":
            return _round_of(one)
        if _LABELS not in one.why.split("; "):
            return one.why
        said = _labels_since(self.workspace, store.published(one.step.name), snapshot)
        return re.sub(rf"(^|; ){_LABELS}(?=;|$)", rf"\g<1>{said}", one.why)


def _round_of(one: PlannedStep) -> str:
    """Why an evaluation runs, but for the numbers of its starts: they differ from round to round."""
    asked = one.step.parameters["evaluation"]
    rest = [why for why in one.why.split("; ") if not why.startswith(_ROUNDS)]
    return "; ".join(rest) or f"round of starts {asked['first'] + 1} to {asked['starts']}"


def _labels_since(workspace: Workspace, published: Sequence[StepResult], snapshot: Snapshot) -> str:
    """What changed since the labels that such a step was last computed for."""
    for step in sorted(published, key=lambda found: str(found.manifest["finished"]), reverse=True):
        digest = str(step.manifest["inputs"].get("snapshot", "")).removeprefix("external:")
        path = snapshot_path(workspace, digest)
        if digest != snapshot.digest and path is not None:
            return f"labels changed ({_difference(read_snapshot(path), snapshot.rows)})"
    return "labels changed"


def _difference(before: Sequence[SnapshotRow], now: Sequence[SnapshotRow]) -> str:
    old, new = ({row.episode_id: row for row in rows} for rows in (before, now))
    both = [(old[name], new[name]) for name in new if name in old]
    counted = {
        "new episode": len(new.keys() - old.keys()),
        "episode less": len(old.keys() - new.keys()),
        "other outcome": sum(left.outcome != right.outcome for left, right in both),
    }
    said = [_number(number, what) for what, number in counted.items() if number]
    return ", ".join(said) or "who labelled, quality or marks, or the episodes' descriptions"


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _number(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    words = {
        "new episode": "new episodes",
        "episode less": "episodes less",
        "other outcome": "other outcomes",
    }
    return f"{number} {words[what]}"

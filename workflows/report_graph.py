"""The last steps of a turn: a film of two policies side by side, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from workflows import film_steps
from workflows.iteration_steps import IterationSteps, snapshot_path
from workflows.ledger import Ledger
from workflows.loop_graph import BASE, CANDIDATE, FILTERED, AnyStep, TurnSteps
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepStore
from workflows.value_graph import LoopStep

FILMED_STARTS = 3
_FILMING = ("collectors", "pipeline.policy", "workflows.report_films")
_REPORTING = (
    "pipeline.iteration_records",
    "workflows.comparison",
    "workflows.iteration_data",
    "workflows.paired_comparison",
    "workflows.promotion",
    "workflows.promotion_looks",
    *(
        f"workflows.report{part}"
        for part in (
            "",
            "_alarm_figures",
            "_came_in",
            "_data",
            "_decision",
            "_episodes",
            "_figures",
            "_page",
            "_tables",
            "_theme",
            "_value_figures",
            "_values",
            "_words",
        )
    ),
)


@dataclass(frozen=True)
class Decision:
    """Whether the candidate replaces the champion, and the reason in one sentence.

    ``rule`` says in words by what rule. ``looks`` are the evaluation's looks at the data, in order, and
    ``guards`` the guard rails, each plain JSON: numbers, strings and booleans by name. Reports show every
    name that they find; ``starts``, ``difference``, ``p``, ``bound`` and ``verdict`` of a look by their
    meaning.
    """

    promoted: bool
    reason: str
    rule: str = ""
    looks: tuple[Mapping[str, Any], ...] = ()
    guards: tuple[Mapping[str, Any], ...] = ()


def report_step(
    workspace: Workspace,
    snapshot: Snapshot,
    turn: TurnSteps,
    base: AnyStep,
    iteration: int,
    reference: str,
    decision: Decision,
    values_note: str,
) -> Step:
    """The report of a turn in which the candidate met ``reference``, and before it the film.

    ``values_note``: why the turn went on, where the gate's report alone does not say so.
    """
    first, before = labels_before(workspace, iteration)
    named = [(name, part) for name, parts in turn.evaluations.items() for part in parts]
    return LoopStep(
        "report",
        film_steps.report,
        {
            "evaluation_names": [name for name, _ in named],
            "training_names": [BASE, CANDIDATE, FILTERED],
            "iteration": iteration,
            "title": "kinova-recap",
            "reference": reference,
            "decision": asdict(decision),
            "values_note": values_note,
            "first": first,
        },
        {
            "workspace": ExternalInput(workspace.root, "workspace"),
            "snapshot": ExternalInput(snapshot.path, snapshot.digest),
            "evaluations": [part for _, part in named],
            "trainings": [base, turn.recap, turn.filtered],
            "advantages": turn.advantages,
            "gate": turn.gate,
            "scores": turn.scores,
            "members": turn.members,
            "dataset": turn.dataset,
            "film": _film_step(turn, reference),
            "before": before,
        },
        _REPORTING,
        title="write the report",
    )


def labels_before(workspace: Workspace, iteration: int) -> tuple[bool, list[ExternalInput]]:
    """Whether no iteration is before this one, and that one's frozen labels, if they are still there."""
    ledger = Ledger(workspace)
    earlier = [known.n for known in ledger.iterations() if known.n < iteration]
    if not earlier:
        return True, []
    steps = IterationSteps.of(workspace, StepStore(workspace.steps), ledger, max(earlier))
    try:
        digest = steps.labels_digest()
    except InputError:
        # A damaged manifest of an earlier turn is no reason to stop this one: the report says what it lacks.
        return False, []
    path = snapshot_path(workspace, digest)
    return False, [ExternalInput(path, digest)] if path.is_file() else []


def values_report_step(workspace: Workspace, snapshot: Snapshot, turn: TurnSteps, iteration: int) -> Step:
    """The page about values that did not pass the gate."""
    return LoopStep(
        "values_report",
        film_steps.values_report,
        {"iteration": iteration, "title": "kinova-recap"},
        {
            "workspace": ExternalInput(workspace.root, "workspace"),
            "snapshot": ExternalInput(snapshot.path, snapshot.digest),
            "advantages": turn.advantages,
            "gate": turn.gate,
            "scores": turn.scores,
            "members": turn.members,
        },
        _REPORTING,
        title="write the report on the values",
    )


def _film_step(turn: TurnSteps, reference: str) -> Step:
    asked = [turn.evaluations[name][0].parameters["evaluation"] for name in (reference, CANDIDATE)]
    return LoopStep(
        "film",
        film_steps.film_side_by_side,
        {"evaluations": asked, "labels": [reference, CANDIDATE], "starts": FILMED_STARTS},
        {
            "reference": turn.checkpoints[reference],
            "candidate": turn.checkpoints[CANDIDATE],
            "reference_attempts": turn.evaluations[reference],
            "candidate_attempts": turn.evaluations[CANDIDATE],
        },
        _FILMING,
        title="film both policies",
    )

"""What was recorded of an evaluation on the robot, and what it comes to: from the episodes and their labels.

Nothing else is kept: an evaluation that was killed knows from its episodes where it was, and a label that is
corrected in the app corrects the evaluation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collectors.episode_log import End
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from pipeline.label_types import LabelEvent
from pipeline.labels import LabelStore
from pipeline.workspace import EpisodeEntry, Workspace
from workflows.commands.episodes_list import Listed, current_outcomes
from workflows.commands.label_store import opened_store
from workflows.comparison import Attempt
from workflows.film_steps import choose_starts
from workflows.policy_evaluation import difference, figures
from workflows.policy_evaluation_course import (
    EVALUATION,
    EXCLUDE,
    FAILURE,
    SUCCESS,
    Label,
    outcome_of,
)
from workflows.policy_evaluation_plan import EvaluationPlan, PlannedAttempt
from workflows.recorded_evaluation import attempt_of, was_stopped
from workflows.report_films import Clip, comparison_gif

_FILM_FRAMES = 100  # of an attempt at most: a minute on the arm is then a film that can be sent around


@dataclass(frozen=True)
class Run:
    """One recorded episode of the evaluation; ``outcome`` is the label that holds, or ``disputed``.

    ``by_clock``: it is a failure because its time was up, and nobody has said anything of it.
    """

    attempt: PlannedAttempt
    entry: EpisodeEntry
    outcome: str | None
    annotator: str | None
    by_clock: bool = False

    @property
    def counts(self) -> bool:
        """Whether it was judged a success or a failure."""
        return self.outcome in (SUCCESS, FAILURE)

    def as_attempt(self) -> Attempt:
        """For :mod:`workflows.comparison`."""
        return attempt_of(self.entry, self.attempt.start, self.outcome == SUCCESS)


def named_episodes(workspace: Workspace, name: str) -> list[EpisodeEntry]:
    """All episodes of evaluations of that name, oldest first."""
    return [entry for entry in workspace.list_episodes() if _facts(entry).get("name") == name]


def runs_of(workspace: Workspace, plan: EvaluationPlan) -> list[Run]:
    """Every episode of the plan, oldest first."""
    known = {(attempt.start, "AB"[attempt.policy]): attempt for attempt in plan.attempts}
    outcomes = current_outcomes(workspace)
    annotators: dict[str, str] = {}
    events: list[LabelEvent] = []
    if workspace.labels_path.exists():
        with LabelStore(workspace.labels_path) as store:
            annotators = {name: label.annotator for name, label in store.current().items()}
            events = store.events()
    times = Counter(event.episode_id for event in events)
    first_words = {event.episode_id: event for event in events if times[event.episode_id] == 1}
    found = []
    for entry in named_episodes(workspace, plan.name):
        facts = _facts(entry)
        attempt = known.get((facts.get("start"), facts.get("policy")))  # type: ignore[arg-type]  # any JSON
        if attempt is not None and facts.get("id") == plan.id:
            by_clock = _is_by_clock(first_words.get(entry.id), entry, plan, attempt)
            found.append(Run(attempt, entry, outcomes.get(entry.id), annotators.get(entry.id), by_clock))
    return found


def settle(workspace: Workspace, plan: EvaluationPlan) -> None:
    """Labels what was recorded and not labelled any more: the process was killed, or the session broken off.

    By the key or the time that ended the attempt; one that was cut short does not count.
    """
    if workspace.unfinished():
        workspace.recover()
    with opened_store(workspace) as store:
        for run in runs_of(workspace, plan):
            if run.outcome is None and not store.history(run.entry.id):
                info = run.entry.info
                outcome = outcome_of(_end(run.entry, plan), info.operator_mark)
                note = _note(plan, run.attempt) + ("" if outcome is not None else ", cut short")
                store.set(run.entry.id, outcome or EXCLUDE, info.operator, note)


def labels_to(store: LabelStore, workspace: Workspace, plan: EvaluationPlan, person: str) -> Label:
    """Labels finished episodes of the plan in ``store`` as what ``person`` says."""

    def label(episode_id: str, attempt: PlannedAttempt, outcome: str) -> None:
        task = plan.task(attempt.start)
        if workspace.episode_path(task, episode_id).exists():  # else it could not be finished
            store.sync([(episode_id, task)])
            store.set(episode_id, outcome, person, _note(plan, attempt))

    return label


def done(runs: Sequence[Run]) -> set[PlannedAttempt]:
    """The attempts that need not be run again; of what is disputed somebody has to decide."""
    return {run.attempt for run in runs if run.counts or run.outcome == Listed.DISPUTED}


def results(plan: EvaluationPlan, runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """Figures of each policy, the difference over the starts that both have run, who judged, what is left.

    As plain JSON. A policy that nothing was judged of has only its counts.
    """
    counted = _counted(runs)
    policies = []
    for number, (policy, name) in enumerate(zip(plan.policies, names, strict=True)):
        attempts = [run.as_attempt() for run in counted.values() if run.attempt.policy == number]
        tried = sum(run.attempt.policy == number for run in runs)
        facts: dict[str, Any] = {
            "name": name,
            "given": policy.given,
            "checkpoint": policy.recorded,
            "sha256": policy.digest,
        }
        facts |= {"asked_for": policy.asked_for, "left_out": tried - len(attempts)}
        stops = sum(run.attempt.policy == number and was_stopped(run.entry) for run in runs)
        facts |= {"emergency_stops": stops}
        policies.append({**facts, "attempts": 0, **(figures(attempts) if attempts else {})})
    pairs = _pairs(counted)
    people = [run.annotator for run in counted.values() if not run.by_clock]
    judges = Counter(person for person in people if person is not None)
    return {
        "evaluation": plan.name,
        "robot": plan.robot,
        "starts": plan.starts,
        "policies": policies,
        "difference": difference(*_attempts(pairs)) if pairs else None,
        "judged_by": dict(sorted(judges.items())),
        "judged_by_clock": sum(run.by_clock for run in counted.values()),
        "left": len(plan.attempts) - len(done(runs)),
    }


def film(out: Path, runs: Sequence[Run], labels: tuple[str, str], starts: int = 3) -> None:
    """Writes a GIF of both policies side by side, from what was recorded at starts that tell them apart.

    By the episodes' first camera, in their own time. Raises ``InputError`` where both have run no start.
    """
    pairs = _pairs(_counted(runs))
    if not pairs:
        raise InputError("no film: there is no start yet that both policies have run")
    candidates, references = _attempts(pairs)
    chosen = {attempt.start_seed for attempt in choose_starts(references, candidates, starts)}
    shown = [pair for pair in pairs if pair[0].attempt.start in chosen]
    longest = max(run.entry.length for pair in shown for run in pair)
    stride = math.ceil(longest / _FILM_FRAMES)
    left, right = ([_clip(pair[side], stride) for pair in shown] for side in (0, 1))
    out.parent.mkdir(parents=True, exist_ok=True)
    comparison_gif(left, right, labels, out, fps=shown[0][0].entry.info.rate_hz / stride)


def _note(plan: EvaluationPlan, attempt: PlannedAttempt) -> str:
    """What a label says besides; it names no policy, since others may be asked about the episode too."""
    return f"evaluation {plan.name}, start {attempt.start}"


def _facts(entry: EpisodeEntry) -> dict[str, Any]:
    facts = entry.info.extra.get(EVALUATION)
    return facts if isinstance(facts, dict) else {}


def _is_by_clock(
    only: LabelEvent | None, entry: EpisodeEntry, plan: EvaluationPlan, attempt: PlannedAttempt
) -> bool:
    """Whether ``only``, all that was ever said of an episode, is what its end alone made of it."""
    if only is None or (only.outcome, only.note) != (FAILURE, _note(plan, attempt)):
        return False
    return entry.info.operator_mark is None and _end(entry, plan) is End.TIME


def _end(entry: EpisodeEntry, plan: EvaluationPlan) -> End:
    """How an episode ended, as far as its file tells."""
    ended = entry.info.extra.get("ended")
    if isinstance(ended, dict) and ended.get("by") in set(End):
        return End(ended["by"])
    if entry.info.truncated:
        return End.ERROR
    return End.TIME if entry.length >= round(plan.max_seconds * plan.rate_hz) else End.OPERATOR


def _counted(runs: Sequence[Run]) -> dict[PlannedAttempt, Run]:
    """The run that counts of each attempt, the newest, in the order of the starts."""
    newest = {run.attempt: run for run in runs if run.counts}
    return dict(sorted(newest.items(), key=lambda item: (item[0].start, item[0].policy)))


def _pairs(counted: dict[PlannedAttempt, Run]) -> list[tuple[Run, Run]]:
    """(A's run, B's run) of each start that both have run."""
    by_policy = [{a.start: run for a, run in counted.items() if a.policy == policy} for policy in (0, 1)]
    return [(run, by_policy[1][start]) for start, run in by_policy[0].items() if start in by_policy[1]]


def _attempts(pairs: Sequence[tuple[Run, Run]]) -> tuple[list[Attempt], list[Attempt]]:
    """B's attempts, the candidate's, and A's, which it is compared with."""
    return [b.as_attempt() for _, b in pairs], [a.as_attempt() for a, _ in pairs]


def _clip(run: Run, stride: int) -> Clip:
    with EpisodeReader(run.entry.path) as reader:
        camera = reader.info.cameras[0]
        frames = [reader.image(camera, row) for row in range(0, len(reader), stride)]
    return Clip(np.stack(frames), run.outcome == SUCCESS, run.entry.info.task)

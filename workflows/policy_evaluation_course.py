"""An evaluation on the robot as a session's course: who is next, what the person is told, what they said.

The person never learns which of two policies drives. What they say becomes a label at once; what does not
count is kept, labelled so, and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from collectors.episode_log import End, EpisodeSummary
from collectors.operator_keys import OperatorKey
from collectors.policy_thread import Planner
from collectors.session_course import Submit, Turn
from workflows.policy_evaluation_plan import EvaluationPlan, PlannedAttempt

EVALUATION = "evaluation"
"""The key in an episode's ``extra`` under which the facts of :func:`facts_of` lie."""

SUCCESS, FAILURE, EXCLUDE = "success", "failure", "exclude"
_WORDS = {SUCCESS: "success", FAILURE: "failure", EXCLUDE: "does not count"}
_SAID = {
    OperatorKey.SUCCESS: SUCCESS,
    OperatorKey.FAILURE: FAILURE,
    OperatorKey.DISCARD: EXCLUDE,
}
_ASK = "how did it end? S success · F failure · D does not count, again"

Label = Callable[[str, PlannedAttempt, str], None]
"""Labels the episode of that id, a run of the attempt, with an outcome."""


def facts_of(plan: EvaluationPlan, attempt: PlannedAttempt) -> dict[str, Any]:
    """What an episode keeps of the evaluation that it is part of, as JSON."""
    policy = plan.policies[attempt.policy]
    return {
        "name": plan.name,
        "id": plan.id,
        "start": attempt.start,
        "place": attempt.place,
        "policy": "AB"[attempt.policy],
        "sha256": policy.digest,
        "asked_for": policy.asked_for,
    }


def outcome_of(end: End, mark: str | None) -> str | None:
    """What an attempt came to by itself: a key pressed, or its time over; ``None``: somebody has to say.

    After a stop always: a mark made in the same moment was not made looking at how it ended.
    """
    if end is End.DISCARDED:
        return EXCLUDE
    if end in (End.EMERGENCY_STOP, End.ARM_STOPPED):
        return None
    if mark is not None:
        return mark
    return FAILURE if end is End.TIME else None


@dataclass
class _Last:
    """The attempt that has ended last, which can still be judged otherwise."""

    attempt: PlannedAttempt
    episode_id: str
    outcome: str | None


class EvaluationCourse:
    """A ``collectors.session_course.Course``: the attempts of a plan that are not done yet."""

    def __init__(
        self,
        plan: EvaluationPlan,
        planners: Sequence[Planner],
        done: Collection[PlannedAttempt],
        tried: Collection[PlannedAttempt],
        label: Label,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """``done`` attempts are not run again, ``tried`` ones were begun at least once.

        ``label`` is called in the background, when the episode's file is finished; ``begin`` before the first
        attempt of this session.
        """
        self.planners = planners
        self._plan, self._attempts, self._label = plan, plan.attempts, label
        self._done, self._tried = set(done), set(tried)
        self._last: _Last | None = None
        self._begin: Callable[[], None] | None = begin

    def turn(self) -> Turn | None:
        """The first attempt of the plan that is not done."""
        attempt = self._next()
        if attempt is None:
            return None
        return Turn(
            self._plan.task(attempt.start),
            attempt.start,
            attempt.policy,
            self._plan.policies[attempt.policy].recorded,
            {EVALUATION: facts_of(self._plan, attempt)},
        )

    def words(self) -> str:
        """The question that is open, or how to lay out the scene."""
        refusal, attempt = self.refusal(), self._next()
        if refusal is not None:
            return refusal
        if attempt is None:
            return "all attempts are done: S F D to correct the last, Q ends"
        place, again = "", attempt in self._tried
        if len(self._plan.policies) == 2:
            place = f", {('first', 'second')[attempt.place - 1]} of two"
        task = self._plan.task(attempt.start)
        scene = f"lay out the scene as for start {attempt.start}"
        if again or attempt.place == 2:
            scene = "put everything back as it was"
        where = f"start {attempt.start} of {self._plan.starts}{place}{', again' if again else ''}"
        other = attempt.start > 1 and task != self._plan.task(attempt.start - 1)
        what = f"ANOTHER TASK: {task}" if other and attempt.place == 1 else task
        return f"{where}: {what}; {scene}, then ENTER"

    def refusal(self) -> str | None:
        """Nothing goes on before it was said how the last attempt ended."""
        return _ASK if self._last is not None and self._last.outcome is None else None

    def began(self) -> None:
        """From now on a word is about the next attempt, also if nothing of that one can be kept."""
        self._last = None
        if self._begin is not None:
            self._begin()
            self._begin = None

    def last(self) -> str | None:
        """The attempt before, until the next one is begun."""
        return None if self._last is None else self._last.episode_id

    def ended(self, episode_id: str, summary: EpisodeSummary, submit: Submit) -> str:
        """Labels the attempt by the key that ended it, or as a failure when its time was over."""
        attempt = self._next()
        assert attempt is not None  # it was that of the turn
        self._tried.add(attempt)
        mark = None if summary.mark is None else summary.mark.value
        self._last = _Last(attempt, episode_id, outcome_of(summary.end, mark))
        said = summary.end.value
        if self._last.outcome is not None:
            time_up = "time was up: " if summary.end is End.TIME else ""
            said = time_up + self._settle(self._last, submit)
        return f"start {attempt.start}: {said}, after {summary.seconds:.1f} s ({episode_id})"

    def judge(self, key: OperatorKey, submit: Submit) -> str:
        """The person's word on the last attempt, also in place of an earlier one."""
        last = self._last
        if last is None:
            return f"{key.value} counts when an attempt has been run"
        last.outcome = _SAID[key]
        return f"start {last.attempt.start}: {self._settle(last, submit)}"

    def _settle(self, last: _Last, submit: Submit) -> str:
        outcome, attempt, episode_id = last.outcome, last.attempt, last.episode_id
        assert outcome is not None  # as both callers see to
        submit(lambda: self._label(episode_id, attempt, outcome))
        if outcome == EXCLUDE:
            self._done.discard(attempt)
        else:
            self._done.add(attempt)
        return _WORDS[outcome]

    def _next(self) -> PlannedAttempt | None:
        return next((attempt for attempt in self._attempts if attempt not in self._done), None)

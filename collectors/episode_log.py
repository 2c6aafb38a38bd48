"""What happens during an episode, noted while it runs: kept also where the episode breaks off."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from collectors.control_pace import PaceReport
from collectors.policy_timing import PlanReport
from pipeline.episode import Outcome, Source


class End(StrEnum):
    """Why an episode ended; the value is the word in ``EpisodeInfo.extra`` and on the screen."""

    OPERATOR = "ended by the operator"
    TIME = "time was up"
    DISCARDED = "discarded by the operator"
    STOPPED = "session stopped by the operator"
    EMERGENCY_STOP = "emergency stop"
    ARM_STOPPED = "the arm stopped"
    POLICY_FAILED = "the policy failed"
    ERROR = "broken off by an error"


# After these the attempt was over; after the others the recording says that it was cut short.
_WHOLE = (End.OPERATOR, End.TIME)


@dataclass(frozen=True)
class EpisodeSummary:
    """What happened. ``mark`` is the operator's own success/failure key, ``None`` where none was pressed.

    ``take_overs`` counts the times that a person took over from the policy; ``seconds`` is robot time.
    ``why`` says more of an ``end`` that was not asked for. ``stop_asked``: the operator wants no more
    episodes. ``starved_steps``: the policy drove but had no action, and the arm was held still;
    ``replanning_steps`` of them came after a person had let go, or a pause, where the plan was dropped;
    ``failing_steps`` at the end, before a policy that failed was known to have.
    """

    steps: int
    seconds: float
    mark: Outcome | None
    ended_by_operator: bool
    take_overs: int
    intervention_steps: int
    end: End = End.TIME
    why: str | None = None
    stop_asked: bool = False
    starved_steps: int = 0
    replanning_steps: int = 0
    failing_steps: int = 0
    pace: PaceReport = field(default_factory=PaceReport)
    plans: PlanReport | None = None

    @property
    def truncated(self) -> bool:
        """Whether the episode was cut short."""
        return self.end not in _WHOLE

    @property
    def empty_queue_steps(self) -> int:
        """For how many steps the policy should have had an action and had none: it was too slow."""
        return self.starved_steps - self.replanning_steps - self.failing_steps


@dataclass
class EpisodeLog:
    """The same while the episode runs, plus what goes into its file's ``extra``."""

    steps: int = 0
    mark: Outcome | None = None
    take_overs: int = 0
    intervention_steps: int = 0
    starved_steps: int = 0
    replanning_steps: int = 0  # of these; see EpisodeSummary
    empty_run: int = 0  # starved steps, not of replanning, since the policy gave its last action
    stop_asked: bool = False
    end: End | None = None
    why: str | None = None
    driver: Source | None = None
    paused: bool = False
    gripper_target: float | None = None  # the latest sent, also of before the episode
    pauses: list[dict[str, float]] = field(default_factory=list)
    subtask: str | None = None  # what the policy said last that it does, of one that says so
    subtasks: list[dict[str, Any]] = field(default_factory=list)
    cameras_lost: dict[str, dict[str, Any]] = field(default_factory=dict)
    rate_hz: float = 0.0  # measured lately
    overruns: int = 0
    pace: PaceReport | None = None  # only of an episode in real time, at its end
    plans: PlanReport | None = None  # likewise, of a policy that plans ahead

    def note_lost_cameras(self, lost: dict[str, str]) -> None:
        """Notes with which frame a camera was lost or came back, and why; call it before each frame."""
        for camera, why in lost.items():
            known = self.cameras_lost.setdefault(camera, {"first_frame": self.steps, "why": why})
            known.pop("back_at_frame", None)
        for camera, known in self.cameras_lost.items():
            if camera not in lost:
                known.setdefault("back_at_frame", self.steps)

    def note_subtask(self, subtask: str | None) -> None:
        """Notes with which frame the policy went over to another sub-task; call it before each frame."""
        if subtask != self.subtask:
            self.subtask = subtask
            self.subtasks.append({"from_frame": self.steps, "subtask": subtask})

    def extra(self) -> dict[str, Any]:
        """Marks for ``EpisodeInfo.extra``; none for an uneventful episode in simulated time."""
        marks: dict[str, Any] = {}
        if self.end is not None and self.end not in _WHOLE:
            marks["ended"] = {"by": self.end.value} | ({} if self.why is None else {"why": self.why})
        if self.subtasks:
            marks["subtasks"] = [dict(said) for said in self.subtasks]
        if self.pauses:
            marks["pauses"] = [dict(pause) for pause in self.pauses]
        if self.cameras_lost:
            marks["cameras_lost"] = {camera: dict(known) for camera, known in self.cameras_lost.items()}
        if self.starved_steps:
            marks["starved_steps"] = self.starved_steps
        if self.replanning_steps:
            marks["replanning_steps"] = self.replanning_steps
        if self.plans is not None:
            marks["plans"] = self.plans.as_json()
        if self.pace is not None:
            marks["pace"] = self.pace.as_json()
        return marks

    def summary(self, rate_hz: float) -> EpisodeSummary:
        """The end of an episode at ``rate_hz``."""
        end = self.end or End.TIME
        return EpisodeSummary(
            steps=self.steps,
            seconds=self.steps / rate_hz,
            mark=self.mark,
            ended_by_operator=end in (End.OPERATOR, End.DISCARDED, End.STOPPED, End.EMERGENCY_STOP),
            take_overs=self.take_overs,
            intervention_steps=self.intervention_steps,
            end=end,
            why=self.why,
            stop_asked=self.stop_asked,
            starved_steps=self.starved_steps,
            replanning_steps=self.replanning_steps,
            failing_steps=self.empty_run if end is End.POLICY_FAILED else 0,
            pace=self.pace or PaceReport(),
            plans=self.plans,
        )

"""How good policies were on the robot: from the rollouts that were recorded and the labels that people gave.

Every rollout episode names the checkpoint that drove; people label what came of it, on the robot or later
in the app. So an evaluation on the arm is nothing but rollouts and labels, and can be asked for afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from collectors.episode_log import End
from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.workspace import EpisodeEntry, Workspace
from workflows.comparison import Attempt
from workflows.policy_evaluation import figures

_SUCCESS, _FAILURE = "success", "failure"


@dataclass(frozen=True)
class RecordedPolicy:
    """One checkpoint on one robot: its judged episodes as attempts, and how many could not be counted."""

    checkpoint: str
    robot: str
    attempts: tuple[Attempt, ...]
    unlabelled: int
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """Figures, as of an evaluation in simulation; ``None`` in their place where nothing was judged."""
        found = figures(self.attempts) if self.attempts else None
        facts = {"checkpoint": self.checkpoint, "robot": self.robot, "unlabelled": self.unlabelled}
        return {**facts, "left_out": self.left_out, "figures": found}


def recorded_policies(
    workspace: Workspace, task: str | None = None, use_marks: bool = False
) -> list[RecordedPolicy]:
    """Every checkpoint that drove, by name and robot.

    An episode counts by the label that holds, or with ``use_marks`` by the operator's own mark where nobody
    has labelled it. Disputed and excluded episodes are left out; what ran out of time counts as labelled.
    An intervention is one stretch of frames that a person drove. Seconds are those of the recording.
    """
    from workflows.commands.episodes_list import current_outcomes

    outcomes = current_outcomes(workspace)
    entries = [
        entry
        for entry in workspace.list_episodes()
        if entry.info.policy_checkpoint is not None and task in (None, entry.info.task)
    ]
    entries.sort(key=_whose)
    return [_recorded(key, list(group), outcomes, use_marks) for key, group in groupby(entries, key=_whose)]


def _whose(entry: EpisodeEntry) -> tuple[str, str]:
    return str(entry.info.policy_checkpoint), entry.info.robot


def _recorded(
    key: tuple[str, str], entries: list[EpisodeEntry], outcomes: dict[str, str], use_marks: bool
) -> RecordedPolicy:
    attempts, unlabelled, left_out = [], 0, 0
    for number, entry in enumerate(entries):
        outcome = outcomes.get(entry.id)
        if outcome is None and use_marks:
            outcome = entry.info.operator_mark
        if outcome is None:
            unlabelled += 1
        elif outcome in (_SUCCESS, _FAILURE):
            attempts.append(attempt_of(entry, number, outcome == _SUCCESS))
        else:
            left_out += 1
    return RecordedPolicy(*key, tuple(attempts), unlabelled, left_out)


def attempt_of(entry: EpisodeEntry, number: int, success: bool) -> Attempt:
    """A judged episode as the attempt at start ``number``."""
    return Attempt(
        entry.info.task,
        number,
        success,
        entry.length,
        entry.length / entry.info.rate_hz,
        interventions(entry.path) + was_stopped(entry),
    )


def was_stopped(entry: EpisodeEntry) -> bool:
    """Whether a person ended the episode by the emergency stop: they had to intervene, driving or not."""
    ended = entry.info.extra.get("ended")
    return isinstance(ended, dict) and ended.get("by") == End.EMERGENCY_STOP


def interventions(path: Path) -> int:
    """How often a person took over in an episode: stretches of frames that they drove."""
    with EpisodeReader(path) as reader:
        corrected = (reader.sources == Source.INTERVENTION).tolist()
    return sum(1 for driving, _ in groupby(corrected) if driving)

"""Sessions of scripted people at the simulated arm: demonstrations and (supervised) rollouts.

Every episode's scene, person and noise follow from its number and the session's seed, so a session
that was interrupted continues with the first episode that is missing. An annotator watches and
keeps notes; the notes become labels only later, through the label store that people use.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collectors.clumsy_operator import ClumsyOperator, ClumsySkill, Drop
from collectors.collection_loop import EpisodeSummary, LoopConfig, SimulatedClock
from collectors.recording import record_episode
from collectors.scripted_operators import ScriptedOperator, SkilledSkill, SloppySkill
from collectors.scripted_supervisor import ScriptedAnnotator, ScriptedSupervisor, SupervisorConfig
from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
from pipeline.episode import CAMERAS, EpisodeInfo, Outcome
from pipeline.prompts import Indicator
from pipeline.workspace import Workspace

if TYPE_CHECKING:  # takes seconds to load, which demonstrations need not wait for
    from pipeline.policy.runner import PolicyRunner

# Simulated episodes live in simulated time, ten minutes apart, so that repeating one gives the same frames.
_SIMULATED_EPOCH_NS = 1_700_000_000_000_000_000
_EPISODE_SPACING_NS = 600_000_000_000

PEOPLE = ("skilled", "sloppy", "clumsy", "observer", "supervisor")


@dataclass(frozen=True)
class SessionConfig:
    """One person's session. ``name`` begins every episode's id, so it must be unique in a workspace.

    ``indicator`` is what a policy is asked for: ``positive``, ``negative`` or nothing.
    """

    name: str
    person: str
    episodes: int
    tasks: tuple[str, ...]
    seed: int
    first_scene_seed: int
    max_steps: int = 80
    rate_hz: float = 10.0
    image_size: int = 84
    indicator: Indicator | None = None

    def __post_init__(self) -> None:
        """Rejects a person that does not exist."""
        if self.person not in PEOPLE:
            raise ValueError(f"person is {self.person!r}; it is one of {', '.join(PEOPLE)}")

    def episode_id(self, i: int) -> str:
        """The id of episode ``i``."""
        return f"{self.name}-{i:04d}"


class AnnotatorNotes:
    """What the scripted annotator saw, one JSON line an episode, appended before the episode is published."""

    def __init__(self, workspace: Workspace) -> None:
        """Reads and writes ``simulation/annotator-notes.jsonl`` of the workspace."""
        self.path = workspace.root / "simulation" / "annotator-notes.jsonl"

    def write(self, episode_id: str, succeeded: bool, drop: Drop | None = None) -> None:
        """Appends one note; one write call, so that sessions side by side do not mix their lines."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        note: dict[str, Any] = {"episode": episode_id, "success": succeeded}
        if drop is not None:
            note["drop"] = drop.as_json()
        line = json.dumps(note) + "\n"
        descriptor = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def read(self) -> dict[str, bool]:
        """Whether each episode succeeded; a line that a killed session left unfinished is skipped."""
        return {note["episode"]: note["success"] for note in self._notes()}

    def drops(self) -> dict[str, Drop]:
        """The dropped cubes that were planted, by episode; a clumsy person's others have none."""
        # An episode that was repeated has two notes; the last tells of what is on the disk.
        last = {note["episode"]: note.get("drop") for note in self._notes()}
        return {episode_id: Drop(**drop) for episode_id, drop in last.items() if drop is not None}

    def _notes(self) -> Iterator[dict[str, Any]]:
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    note: dict[str, Any] = json.loads(line)
                except json.JSONDecodeError:
                    continue
                yield note


def run_session(
    workspace: Workspace,
    config: SessionConfig,
    checkpoint: Path | None = None,
    checkpoint_name: str | None = None,
    part: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Records part ``k`` of ``n`` of a session; returns the ids of that part's episodes.

    Episodes that are there already are kept: recorded data is never overwritten.
    """
    numbers = list(range(part[0], config.episodes, part[1]))
    missing = [i for i in numbers if not _path(workspace, config, i).exists()]
    if missing:
        robot_config = SimulatedGen3Config(rate_hz=config.rate_hz, image_size=config.image_size)
        policy = _policy(checkpoint, config.indicator) if checkpoint is not None else None
        with SimulatedGen3(robot_config) as robot:
            for i in missing:
                _record(workspace, config, i, robot, policy, checkpoint_name)
                if progress is not None:
                    progress(numbers.index(i) + 1, len(numbers))
    return [config.episode_id(i) for i in numbers]


def _policy(checkpoint: Path, indicator: Indicator | None) -> PolicyRunner:
    from pipeline.policy.runner import PolicyRunner

    return PolicyRunner(checkpoint, indicator=indicator)


def _path(workspace: Workspace, config: SessionConfig, i: int) -> Path:
    return workspace.episode_path(config.tasks[i % len(config.tasks)], config.episode_id(i))


def _record(
    workspace: Workspace,
    config: SessionConfig,
    i: int,
    robot: SimulatedGen3,
    policy: PolicyRunner | None,
    checkpoint_name: str | None,
) -> None:
    task = config.tasks[i % len(config.tasks)]
    scene_seed = config.first_scene_seed + i
    clock = SimulatedClock(config.rate_hz, _SIMULATED_EPOCH_NS + i * _EPISODE_SPACING_NS)
    robot.prepare(task, scene_seed)
    if policy is not None:
        policy.reset(task, seed=scene_seed)
    person_seed = [config.seed, zlib.crc32(config.person.encode()), i]
    operator = _person(config.person, robot, np.random.default_rng(person_seed))
    operator.begin(task)
    info = EpisodeInfo(
        id=config.episode_id(i),
        task=task,
        operator=f"scripted {config.person}",
        robot=robot.name,
        rate_hz=config.rate_hz,
        cameras=CAMERAS,
        created=_created(i),
        software_version=version("kinova-recap"),
        policy_checkpoint=checkpoint_name,
        extra={"scene_seed": scene_seed},
    )
    annotator = ScriptedAnnotator(robot)

    def take_note(_: EpisodeSummary) -> None:
        drop = operator.drop if isinstance(operator, ClumsyOperator) else None
        AnnotatorNotes(workspace).write(info.id, annotator.judge() is Outcome.SUCCESS, drop)

    record_episode(
        workspace,
        info,
        robot,
        operator,
        LoopConfig(config.rate_hz, config.max_steps, real_time=False),
        policy=policy,
        clock_ns=clock,
        before_close=take_note,
        # What a killed session left of this episode need not be recovered: it is repeated exactly.
        replace_unfinished=True,
    )


def _created(i: int) -> str:
    seconds = (_SIMULATED_EPOCH_NS + i * _EPISODE_SPACING_NS) // 1_000_000_000
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _person(
    person: str, robot: SimulatedGen3, rng: np.random.Generator
) -> ScriptedOperator | ScriptedSupervisor:
    if person == "observer":
        return observer(robot)
    if person == "supervisor":
        return ScriptedSupervisor(robot, rng)
    if person == "clumsy":
        return ClumsyOperator(robot, ClumsySkill(), rng)
    return ScriptedOperator(robot, SkilledSkill() if person == "skilled" else SloppySkill(), rng)


def observer(robot: SimulatedGen3) -> ScriptedSupervisor:
    """A person who only watches, and ends the episode when it is decided."""
    return ScriptedSupervisor(robot, np.random.default_rng(0), SupervisorConfig(intervene=False))

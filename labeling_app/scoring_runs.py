"""What value models said of the episodes: values, advantages and thresholds, as scoring runs left them.

A scoring run publishes each episode's scores beside the frame cache (``pipeline.frame_scores``), under a
name that is the beginning of its step's key; the step's folder ``steps/<name>/<key>/`` records the
threshold of each task in ``thresholds.json``. Runs that hold an ensemble's values alone, whose names begin
with ``values-``, are what those are made from and not shown. Everything here only reads.

An advantage above its task's threshold makes a frame positive. A person's corrections are positive whatever
their advantage, and have no say in the threshold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache
from pipeline.frame_scores import VALUES_PREFIX, read_scores
from pipeline.guarded_reading import guarded_map
from pipeline.workspace import IndexedEpisode, Workspace

THRESHOLDS = "thresholds.json"
VALUE, ADVANTAGE = "value", "advantage"
ANY_SIZE = 16  # pixels: scores lie beside the frames of every image size


@dataclass(frozen=True)
class ScoringRun:
    """One run: its name, when it was published (s since 1970), each task's threshold (empty if unknown)."""

    name: str
    published: float
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class TaskFrames:
    """All scored frames of one task: N frames of M episodes.

    advantage float32 ``(N,)``; source int8 ``(N,)`` of ``Source``; episode int32 ``(N,)``, an index into
    ``episode_ids``; frame int32 ``(N,)``, counted from 0 in its episode.
    """

    episode_ids: tuple[str, ...]
    advantage: np.ndarray
    source: np.ndarray
    episode: np.ndarray
    frame: np.ndarray


@dataclass(frozen=True)
class Moment:
    """One frame of an episode and its advantage."""

    episode_id: str
    frame: int
    advantage: float


def scoring_runs(workspace: Workspace) -> list[ScoringRun]:
    """The runs whose advantages are there, newest first."""
    folder = workspace.cache / "scores"
    names = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    runs = [
        ScoringRun(path.name, path.stat().st_mtime, recorded_thresholds(workspace, path.name))
        for path in names
        if not path.name.startswith((".", VALUES_PREFIX))
    ]
    return sorted(runs, key=lambda run: run.published, reverse=True)


def recorded_thresholds(workspace: Workspace, run: str) -> dict[str, float]:
    """The thresholds that the run's step recorded; empty if there is no such step."""
    for path in workspace.steps.glob(f"*/*/{THRESHOLDS}"):
        if path.parent.name.startswith(run):
            try:
                found = json.loads(path.read_text())
                return {str(task): float(value) for task, value in found.items()}
            except (OSError, ValueError, TypeError, AttributeError):
                continue
    return {}


def episode_scores(workspace: Workspace, run: str, episode_id: str) -> dict[str, np.ndarray]:
    """Value and advantage of one episode's frames, ``(T,)`` float32 each; empty where it was not scored.

    An episode without an outcome has no advantage.
    """
    try:
        found = read_scores(FrameCache(workspace.cache, ANY_SIZE), run, episode_id)
    except (InputError, OSError):
        return {}
    return {name: np.asarray(found[name]) for name in (VALUE, ADVANTAGE) if name in found}


def task_frames(workspace: Workspace, run: str, episodes: Iterable[IndexedEpisode]) -> TaskFrames:
    """All frames of these episodes that the run gave an advantage."""
    scored = []
    for item in episodes:
        advantage = episode_scores(workspace, run, item.entry.id).get(ADVANTAGE)
        if advantage is not None and len(advantage) == item.entry.length:
            scored.append((item, advantage))
    sources = frame_sources([item for item, _ in scored])
    parts = [
        (item.entry.id, advantage, sources[item.entry.id])
        for item, advantage in scored
        if item.entry.id in sources
    ]
    lengths = [len(advantage) for _, advantage, _ in parts]
    return TaskFrames(
        tuple(id_ for id_, _, _ in parts),
        np.concatenate([np.zeros(0, np.float32), *(advantage for _, advantage, _ in parts)]),
        np.concatenate([np.zeros(0, np.int8), *(source for _, _, source in parts)]),
        np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        np.concatenate([np.zeros(0, np.int32), *(np.arange(length, dtype=np.int32) for length in lengths)]),
    )


def frame_sources(items: Sequence[IndexedEpisode]) -> dict[str, np.ndarray]:
    """Who drove in each frame of the episodes that can be read: id -> int8 ``(T,)``.

    Most episodes have one source only, which the list of episodes knows without opening the file; the others
    are opened in a guarded child.
    """
    found: dict[str, np.ndarray] = {}
    mixed: dict[Path, str] = {}
    for item in items:
        length = item.entry.length
        if item.sources is not None and max(item.sources) == length:
            found[item.entry.id] = np.full(length, item.sources.index(length), dtype=np.int8)
        else:
            mixed[item.entry.path] = item.entry.id
    for path, sources in guarded_map(read_sources, mixed):
        if not isinstance(sources, InputError):
            found[mixed[path]] = sources
    return found


def read_sources(path: Path) -> np.ndarray:
    """An episode file's sources, int8 ``(T,)``. Raises ``InputError`` if it is damaged."""
    with EpisodeReader(path) as reader:
        return np.asarray(reader.sources, dtype=np.int8)


def positive_counts(frames: TaskFrames, threshold: float) -> dict[Source, tuple[int, int]]:
    """For each source that occurs: its frames, and how many of them this threshold would make positive."""
    counts = {}
    for source in Source:
        own = frames.source == source
        if own.any():
            forced = source is Source.INTERVENTION
            positive = own if forced else own & (frames.advantage > threshold)
            counts[source] = (int(own.sum()), int(positive.sum()))
    return counts


def free_advantages(frames: TaskFrames) -> np.ndarray:
    """The advantages that have a say in the threshold: all but those of corrections; float32 ``(N,)``."""
    return frames.advantage[frames.source != Source.INTERVENTION]


def moments(frames: TaskFrames, number: int, *, best: bool) -> list[Moment]:
    """The ``number`` best or worst frames, one an episode: neighbours of a frame look like it."""
    order = np.argsort(-frames.advantage if best else frames.advantage, kind="stable")
    _, first = np.unique(frames.episode[order], return_index=True)
    return [
        Moment(frames.episode_ids[frames.episode[i]], int(frames.frame[i]), float(frames.advantage[i]))
        for i in order[np.sort(first)[:number]]
    ]

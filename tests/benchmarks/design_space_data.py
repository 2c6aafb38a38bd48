"""What the design-space benchmark trains on: demonstrations by scripted people, in the simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from collectors.simulated_sessions import SessionConfig, run_session
from pipeline.frame_cache import FrameCache
from pipeline.frame_table import FrameTable
from pipeline.policy.gen3.subtasks import with_subtask
from pipeline.prompts import NEGATIVE, POSITIVE
from pipeline.workspace import Workspace
from tests.benchmarks.design_space_rows import SUBTASKS

TASKS = ("pick up the red cube", "pick up the blue cube")
IMAGE_SIZE = 84
_CLOSING = 0.5  # a gripper target above it closes the gripper


def demonstrations(folder: Path, each: int) -> tuple[FrameTable, np.ndarray]:
    """Frames of ``each`` skilled and ``each`` sloppy episodes, recorded into ``folder`` where they lack.

    The indicators (N,) int8 call the skilled person's frames positive and the sloppy one's negative.
    """
    workspace = Workspace(folder).create()
    ids: dict[str, list[str]] = {}
    for seed, person in enumerate(("skilled", "sloppy")):
        session = SessionConfig(f"design-{person}", person, each, TASKS, seed, 500_000 + 10_000 * seed)
        ids[person] = run_session(workspace, session)
    everything = [*ids["skilled"], *ids["sloppy"]]
    cache = FrameCache(workspace.cache, IMAGE_SIZE)
    cache.build_many([workspace.find(episode_id).path for episode_id in everything])
    table = FrameTable.load(cache, everything, preload=True)
    sloppy = table.episode_index >= len(ids["skilled"])
    return table, np.where(sloppy, NEGATIVE, POSITIVE).astype(np.int8)


def with_subtasks(table: FrameTable) -> FrameTable:
    """The same frames, with the sub-task in the prompt: each episode cut in two where the gripper closes.

    A chunk ends at the cut, as at an episode's end.
    """
    parts: list[tuple[int, int, int, str]] = []  # episode, its first and last frame, task
    for episode, task in enumerate(table.tasks):
        gripper = table.action[table.frames_of(episode), -1]
        length = len(gripper)
        closing = np.flatnonzero(gripper > _CLOSING)
        cut = int(closing[0]) if len(closing) else length
        for first, last, subtask in ((0, cut, SUBTASKS[0]), (cut, length, SUBTASKS[1])):
            if last > first:
                parts.append((episode, first, last, with_subtask(task, subtask)))
    lengths = np.array([last - first for _, first, last, _ in parts], dtype=np.int64)
    names = [f"{table.episode_ids[episode]}@{first}" for episode, first, _, _ in parts]
    return replace(
        table,
        episode_ids=names,
        tasks=[task for *_, task in parts],
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        episode_index=np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        frame_index=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        rates=np.array([table.rates[episode] for episode, *_ in parts]),
        contents=names,
        _episode_images=[table._episode_images[e][first:last] for e, first, last, _ in parts],
        _image_files=[],
    )

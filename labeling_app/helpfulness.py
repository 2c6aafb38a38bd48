"""Where a label would help most: where the value model contradicts the label, or cannot tell the outcome.

Let v be the mean value of an episode's last 5 frames in the newest scoring run; with cross-fitted values no
model has seen the label of an episode that it scores. For each task, let F and S be the medians of v over the
episodes labelled failure and success (over all tasks' episodes where the task lacks one of them). How much an
episode's end looks like a success is ``p = (v - F) / (S - F)``, cut to 0..1. Its priority is

* labelled success or failure: the contradiction is ``c = 1 - p`` or ``c = p``; priority ``2 c`` where
  ``c > 0.5``, so from 1 to 2, and else 0. From 1 on the queue asks a second person, see
  :mod:`pipeline.label_queue`;
* unlabelled: ``0.99 max(1 - |2 p - 1|, s)``: nearest to the middle first. ``s`` is the mean of the score
  ``value_spread`` over the same frames (standard deviation over the models that scored them), relative to
  ``(S - F) / 2`` and at most 1; 0 in runs that do not publish a spread;
* unlabelled without a value, or where S and F are unknown or S is not above F: 0.5, as nothing is known;
* excluded, disputed and settled by a reviewer: 0.

What is read of each episode is remembered in ``.ends.json`` beside the scores, under the inode and the time
of change of its folder, so that only new and replaced scores are opened.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from pipeline.durable_files import write_file
from pipeline.frame_scores import VALUES_PREFIX
from pipeline.labels import Label, LabelStore
from pipeline.mapped_arrays import map_array
from pipeline.workspace import Workspace

LAST_FRAMES = 5
UNKNOWN = 0.5
_SUMMARY = ".ends.json"  # no episode has such a name
_FORMAT = 1


@dataclass(frozen=True)
class ValueEnd:
    """An episode's end in one scoring run: mean value, and mean spread (0 where none was published)."""

    value: float
    spread: float


@dataclass(frozen=True)
class Scale:
    """The median end values of failures and of successes."""

    failure: float
    success: float

    def success_likeness(self, value: float) -> float:
        """0 for an end like a failure's, 1 for one like a success's."""
        return min(1.0, max(0.0, (value - self.failure) / (self.success - self.failure)))


def refresh_priorities(workspace: Workspace, store: LabelStore) -> int:
    """Gives the store the priorities of all its episodes; returns how many episodes have a value.

    Without any scores nothing is changed.
    """
    run = newest_run(workspace.cache)
    if run is None:
        return 0
    ends = read_ends(workspace.cache, run)
    with store.moment():
        labels, states, tasks = store.current(), store.states(), store.tasks()
    open_labels = {i: label for i, label in labels.items() if states[i] in {"single", "agreed"}}
    unlabelled = [i for i, state in states.items() if state == "unlabelled"]
    store.set_priorities(priorities(ends, open_labels, unlabelled, tasks))
    return len(ends.keys() & tasks.keys())


def priorities(
    ends: Mapping[str, ValueEnd],
    labels: Mapping[str, Label],
    unlabelled: Iterable[str],
    tasks: Mapping[str, str],
) -> dict[str, float]:
    """The priority of each episode of ``labels`` and ``unlabelled``, by the formula above."""
    scales, of_all = _scales(ends, labels, tasks)
    found = {}
    for episode_id, label in labels.items():
        scale = scales.get(tasks[episode_id], of_all)
        contradiction = 0.0
        if scale is not None and episode_id in ends and label.outcome != "exclude":
            likeness = scale.success_likeness(ends[episode_id].value)
            contradiction = 1 - likeness if label.outcome == "success" else likeness
        found[episode_id] = 2 * contradiction if contradiction > 0.5 else 0.0
    for episode_id in unlabelled:
        scale = scales.get(tasks[episode_id], of_all)
        found[episode_id] = UNKNOWN
        if scale is not None and episode_id in ends:
            end = ends[episode_id]
            closeness = 1 - abs(2 * scale.success_likeness(end.value) - 1)
            spread = min(1.0, 2 * end.spread / (scale.success - scale.failure))
            found[episode_id] = 0.99 * max(closeness, spread)
    return found


def newest_run(cache: Path) -> str | None:
    """The scoring run that was written last; ``None`` where there is none.

    One that holds an ensemble's values alone counts only where there is no other: it may be in the making.
    """
    runs = []
    with suppress(OSError):
        for folder in (cache / "scores").iterdir():
            if folder.is_dir() and not folder.name.startswith("."):
                whole = not folder.name.startswith(VALUES_PREFIX)
                runs.append((whole, folder.stat().st_mtime_ns, folder.name))
    return max(runs)[-1] if runs else None


def read_ends(cache: Path, run: str) -> dict[str, ValueEnd]:
    """The end of every episode that the run scored; one that cannot be read is left out."""
    folder = cache / "scores" / run
    known = _remembered(folder)
    found: dict[str, tuple[int, int, ValueEnd]] = {}
    changed = False
    with suppress(OSError), os.scandir(folder) as children:  # half the time of Path.iterdir
        for child in children:
            if child.name.startswith("."):
                continue
            status = child.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if child.name in known and known[child.name][:2] == stamp:
                found[child.name] = known[child.name]
            elif (end := _read_end(Path(child.path))) is not None:
                found[child.name] = (*stamp, end)
                changed = True
    if changed or known.keys() - found.keys():
        document = {"format": _FORMAT, "ends": {i: [*row[:2], *astuple(row[2])] for i, row in found.items()}}
        with suppress(OSError):  # it is only a cache
            _remember(folder, document)
    return {episode_id: end for episode_id, (_, _, end) in found.items()}


def _remember(folder: Path, document: Mapping[str, object]) -> None:
    status = folder.stat()
    write_file(folder / _SUMMARY, json.dumps(document).encode())
    # The folder's time says when the run was written, see newest_run.
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remembered(folder: Path) -> dict[str, tuple[int, int, ValueEnd]]:
    try:
        document = json.loads((folder / _SUMMARY).read_bytes())
        if document["format"] != _FORMAT:
            return {}
        return {i: (ino, time_ns, ValueEnd(*end)) for i, (ino, time_ns, *end) in document["ends"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _read_end(folder: Path) -> ValueEnd | None:
    try:
        value = float(map_array(folder / "value")[-LAST_FRAMES:].mean())
        spread = folder / "value_spread"
        return ValueEnd(value, float(map_array(spread)[-LAST_FRAMES:].mean()) if spread.is_dir() else 0.0)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _scales(
    ends: Mapping[str, ValueEnd], labels: Mapping[str, Label], tasks: Mapping[str, str]
) -> tuple[dict[str, Scale], Scale | None]:
    """The scale of each task that has one, and that of all tasks together."""
    values: dict[str | None, dict[str, list[float]]] = {}
    for episode_id, label in labels.items():
        if episode_id in ends and math.isfinite(ends[episode_id].value):
            for task in (tasks[episode_id], None):
                values.setdefault(task, {}).setdefault(label.outcome, []).append(ends[episode_id].value)
    scales = {}
    for task, by_outcome in values.items():
        if by_outcome.get("success") and by_outcome.get("failure"):
            scale = Scale(median(by_outcome["failure"]), median(by_outcome["success"]))
            if scale.success > scale.failure:
                scales[task] = scale
    return {task: scale for task, scale in scales.items() if task is not None}, scales.get(None)

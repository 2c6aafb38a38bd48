"""Whether two workspaces came to the same: champions, ledger, steps with every file, labels, episodes.

What may differ is told apart by name: times and speeds, which say how a run went and not what it found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.step_files import REPORT_FILE
from workflows.step_result import StepResult
from workflows.step_store import StepStore

# Of a manifest: when and how fast it was computed.
_TIMES = ("seconds", "finished")
# Of a step's result: how fast, and how much of the work had been done before a kill.
_HOW_IT_WENT = {"samples_per_s", "scored", "reused", "frames", "workers"}
# "7 s", "1.5 s", "2 min 5 s", "1 h 3 min": the report says how long each step took.
_DURATION = re.compile(r"\b\d+(\.\d+)? (s|min|h)\b( \d+ (s|min)\b)?")
# What only exists while something is being written has a hidden name; these folders stay, empty.
_LASTING = {".locks", ".progress", ".resume"}


def differences(one: Workspace, other: Workspace) -> list[str]:
    """What the two did not come to alike, one line each; empty where all is equal."""
    found = []
    for what, left, right in (
        ("champions", champions(one), champions(other)),
        ("ledger", ledger(one), ledger(other)),
        ("episodes", episodes(one), episodes(other)),
        ("labels", labels(one), labels(other)),
        ("snapshots", snapshots(one), snapshots(other)),
        ("links", links(one), links(other)),
        ("published steps", steps(one), steps(other)),
    ):
        found += [f"{what}: {line}" for line in _unequal(left, right)]
    return found


def champions(workspace: Workspace) -> dict[str, Any]:
    """Every entry of the champions' history, in order, without its time."""
    history = Ledger(workspace).champions()
    return {str(i): [c.name, c.key, c.iteration, c.kind, c.since, c.reason] for i, c in enumerate(history)}


def ledger(workspace: Workspace) -> dict[str, Any]:
    """Each iteration's candidate and summary, and the steps that it used."""
    book = Ledger(workspace)
    return {
        str(i.n): [i.candidate, i.summary, sorted((name, key) for name, key, _ in book.steps(i.n))]
        for i in book.iterations()
    }


def episodes(workspace: Workspace) -> dict[str, str]:
    """A hash of all that each recorded file holds.

    Not of its bytes: where in a file HDF5 puts a piece depends on when it was flushed.
    """
    return {
        path.relative_to(workspace.episodes).as_posix(): _content(path)
        for path in sorted(workspace.episodes.rglob("*.h5"))
    }


def labels(workspace: Workspace) -> dict[str, Any]:
    """What each episode is labelled, and by whom."""
    with LabelStore(workspace.labels_path) as store:
        return {name: [label.outcome, label.annotator] for name, label in store.current().items()}


def snapshots(workspace: Workspace) -> dict[str, str]:
    """The frozen labels."""
    return {path.name: "" for path in (workspace.root / "snapshots").glob("*.parquet")}


def links(workspace: Workspace) -> dict[str, str]:
    """Where the links for people point to."""
    folders = (workspace.reports, workspace.datasets)
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return {path.name: str(path.readlink()) for path in found if path.is_symlink()}


def steps(workspace: Workspace) -> dict[str, Any]:
    """Every published step: its manifest without times, its files' hashes, the report's without durations."""
    return {
        f"{result.name}/{result.key}": dict(_facts(result))
        for result in StepStore(workspace.steps).published()
    }


def published_twice(workspace: Workspace) -> int:
    """How many computations were carried to their end though their step had been published before."""
    counts = Counter((line["name"], line["key"]) for line in StepStore(workspace.steps).completions())
    return sum(count - 1 for count in counts.values())


def faults(workspace: Workspace) -> list[str]:
    """What is wrong with one workspace by itself: damage, leftovers, a log that does not fit."""
    store = StepStore(workspace.steps)
    published = {(result.name, result.key) for result in store.published()}
    completed = {(line["name"], line["key"]) for line in store.completions()}
    found = [f"damaged: {damage}" for result in store.published() for damage in store.verify(result)]
    found += [f"left over: {path}" for path in leftovers(workspace)]
    if published != completed:
        found.append(f"published and completed differ by {sorted(published ^ completed)}")
    return found


def leftovers(workspace: Workspace) -> list[Path]:
    """What only exists while something is being written."""
    return [path for path in workspace.root.rglob(".*") if path.name not in _LASTING] + [
        path for name in _LASTING for path in (workspace.steps / name).glob("*")
    ]


def _facts(result: StepResult) -> Iterator[tuple[str, Any]]:
    for name, value in result.manifest.items():
        if name == "result" and isinstance(value, dict):
            yield name, {k: v for k, v in value.items() if k not in _HOW_IT_WENT}
        elif name == "files":
            yield name, {k: v["sha256"] for k, v in value.items() if k != REPORT_FILE}
        elif name not in _TIMES:
            yield name, value
    page = result.path / REPORT_FILE
    if page.is_file():
        yield REPORT_FILE, hashlib.sha256(_DURATION.sub("TIME", page.read_text()).encode()).hexdigest()


def _unequal(left: dict[str, Any], right: dict[str, Any]) -> Iterator[str]:
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            yield f"{name} is only in the {'second' if name not in left else 'first'}"
        elif isinstance(left[name], dict) and isinstance(right[name], dict):
            yield from (f"{name}: {line}" for line in _unequal(left[name], right[name]))
        elif json.dumps(left[name]) != json.dumps(right[name]):
            yield f"{name}: {str(left[name])[:300]} and {str(right[name])[:300]}"


def _content(path: Path) -> str:
    """SHA-256 over the names, types and values of every attribute and data set of an HDF5 file."""
    hasher = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        array = np.asarray(value)
        hasher.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        for item in array.ravel() if array.dtype == object else [array]:
            hasher.update(item.tobytes() if isinstance(item, np.ndarray) else repr(item).encode())

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for attribute in sorted(item.attrs):
            add(f"{name}@{attribute}", item.attrs[attribute])
        if isinstance(item, h5py.Dataset):
            add(name, item[()])

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return hasher.hexdigest()

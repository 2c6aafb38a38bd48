"""From a step, such as the champion's, back to every step, label and episode that it came from.

Manifests name a step's inputs: other steps, or label snapshots by their digest; a snapshot's rows name
episodes, who labelled them, and which policy drove. What 'recap gc' or a person has removed since is in
the lineage all the same, and said to be gone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.step_recipe import Keyed, StepAddress
from workflows.step_store import StepResult, StepStore

_EXTERNAL = "external:"
_SHOWN = 5  # of the steps that a short key may mean
_NAME_DIGITS = 16  # of its digest, in a snapshot's file name


@dataclass(frozen=True)
class LineageStep:
    """A step by its address ``name/key``, and its inputs: addresses, and digests of label snapshots.

    ``result`` is ``None`` where the step is gone; then its own inputs are not known.
    """

    address: str
    result: StepResult | None
    inputs: tuple[str, ...]
    snapshots: tuple[str, ...]

    @property
    def name(self) -> str:
        """The step's name."""
        return self.address.partition("/")[0]


@dataclass(frozen=True)
class LineageSnapshot:
    """Frozen labels: ``path`` is ``None``, and the rest empty, where the file is gone or cannot be read.

    ``episodes`` are ids; ``outcomes``, ``annotators`` and ``policies`` (those that drove) count them.
    """

    digest: str
    path: Path | None
    episodes: tuple[str, ...] = ()
    outcomes: tuple[tuple[str, int], ...] = ()
    annotators: tuple[tuple[str, int], ...] = ()
    policies: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Lineage:
    """What ``root`` came from: ``steps`` by address, ``root`` first; ``gone`` are episodes without a file.

    ``labels`` is each episode's outcome in the newest snapshot that has it, for those that have one.
    """

    root: str
    steps: dict[str, LineageStep]
    snapshots: dict[str, LineageSnapshot]
    episodes: tuple[str, ...]
    labels: dict[str, str]
    gone: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "root": self.root,
            "steps": [
                {
                    "step": step.address,
                    "gone": step.result is None,
                    "finished": step.result.manifest["finished"] if step.result else None,
                    "inputs": list(step.inputs),
                    "snapshots": list(step.snapshots),
                }
                for step in self.steps.values()
            ],
            "snapshots": [
                {
                    "digest": snapshot.digest,
                    "path": str(snapshot.path) if snapshot.path else None,
                    "episodes": len(snapshot.episodes),
                    "outcomes": dict(snapshot.outcomes),
                    "annotators": dict(snapshot.annotators),
                    "policies": dict(snapshot.policies),
                }
                for snapshot in self.snapshots.values()
            ],
            "episodes": list(self.episodes),
            "labels": self.labels,
            "gone": list(self.gone),
        }


def trace(store: StepStore, roots: Iterable[Keyed]) -> dict[str, LineageStep]:
    """``roots`` and every step that they came from, by address; reads one manifest for each."""
    found: dict[str, LineageStep] = {}
    waiting = deque(str(StepAddress(root.name, root.key)) for root in roots)
    while waiting:
        address = waiting.popleft()
        if address not in found:
            found[address] = _step(store, address)
            waiting += found[address].inputs
    return found


def step_named(workspace: Workspace, text: str) -> StepAddress:
    """The published step that ``text`` means: ``name/key``, the key or both cut short, or a key's beginning.

    Raises ``InputError`` where there is none, or more than one.
    """
    name, slash, key = text.rpartition("/")
    found = [
        StepAddress(step.name, step.key)
        for step in StepStore(workspace.steps).listed()
        if step.key.startswith(key) and (not slash or step.name == name)
    ]
    exact = [address for address in found if address.key == key]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise InputError(f"there is no step {text} in {workspace.steps}")
    shown = ", ".join(str(address) for address in found[:_SHOWN])
    raise InputError(f"{text} may be any of {len(found)} steps ({shown}): give more of the key")


def lineage(workspace: Workspace, root: Keyed) -> Lineage:
    """Everything that ``root`` came from. Raises ``InputError`` where it is not published."""
    store = StepStore(workspace.steps)
    if store.find(root) is None:
        raise InputError(f"there is no step {root.name}/{root.key} in {workspace.steps}")
    steps = trace(store, [root])
    digests = dict.fromkeys(digest for step in steps.values() for digest in step.snapshots)
    snapshots = {}
    labels: dict[str, str] = {}
    tasks: dict[str, str] = {}
    # The root's own snapshot, which is the newest, comes last and so has the last word.
    for digest in reversed(digests):
        snapshots[digest] = _snapshot(workspace, digest, tasks, labels)
    gone = [name for name, task in tasks.items() if not workspace.episode_path(task, name).exists()]
    return Lineage(
        f"{root.name}/{root.key}",
        steps,
        {digest: snapshots[digest] for digest in digests},
        tuple(sorted(tasks)),
        dict(sorted(labels.items())),
        tuple(sorted(gone)),
    )


def _step(store: StepStore, address: str) -> LineageStep:
    result = store.find(StepAddress.parse(address))
    identities = list(_flat(result.manifest["inputs"].values())) if result is not None else []
    return LineageStep(
        address,
        result,
        tuple(identity for identity in identities if not identity.startswith(_EXTERNAL)),
        # The workspace itself is an input, too, under a name that is no digest.
        tuple(d for i in identities if _is_digest(d := i.removeprefix(_EXTERNAL)) and d != i),
    )


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _flat(values: Iterable[str | Sequence[str]]) -> Iterator[str]:
    for value in values:
        yield from [value] if isinstance(value, str) else value


def _snapshot(
    workspace: Workspace, digest: str, tasks: dict[str, str], labels: dict[str, str]
) -> LineageSnapshot:
    """Reads one snapshot; adds each episode's task and outcome to ``tasks`` and ``labels``."""
    from pipeline.label_snapshot import read_snapshot

    path = workspace.root / "snapshots" / f"labels-{digest[:_NAME_DIGITS]}.parquet"
    try:
        rows = read_snapshot(path)
    except InputError:
        return LineageSnapshot(digest, None)
    for row in rows:
        tasks[row.episode_id] = row.task
        labels.pop(row.episode_id, None)
        if row.outcome is not None:
            labels[row.episode_id] = row.outcome
    return LineageSnapshot(
        digest,
        path,
        tuple(row.episode_id for row in rows),
        _counted(row.outcome or "unlabelled" for row in rows),
        _counted(row.annotator for row in rows if row.annotator is not None),
        _counted(row.policy_checkpoint for row in rows if row.policy_checkpoint is not None),
    )


def _counted(words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(words).most_common())

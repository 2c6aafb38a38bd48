"""What of a workspace's derived data no kept champion needs any more. Only reads, and little of it.

Kept are the steps that these came from: the champion, the champions before it (as many as asked for), the
base policy, the last iteration, the value models in use, and whatever was computed since the last
iteration, which an interrupted run goes on with. Kept in any case are the pages that ``reports/`` links to
and all evaluations, which are small and tell the history, and steps without files. Recorded episodes,
labels, snapshots and the ledger are never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.completion_log import ListedStep
from workflows.disk_usage import usage_of
from workflows.ledger import Champion, Iteration, Ledger
from workflows.lineage import LineageStep, trace
from workflows.step_recipe import Keyed, StepAddress
from workflows.step_store import MANIFEST, TRASH, StepStore

KEPT_BEFORE = 2
VALUE_MODEL = "value-model.json"
# The name of the steps that hold evaluations.
_EVALUATION = "evaluate"
RESUMED = ".resume"
"""Below ``steps/``: states of value trainings that were interrupted, by the key of their step."""

_RUN_DIGITS = 16  # of a step's key, in the name of its scoring run
_VALUES = "values-"


@dataclass(frozen=True)
class Garbage:
    """One thing to remove: a file, folder or link, and how large it is if nothing else links its files."""

    kind: str
    path: Path
    bytes: int


WHY = {
    "steps": "neither a kept champion nor the last iteration came from them",
    "unfinished steps": "left by killed processes",
    "scoring runs": "scores of models that are not in use; can be computed again",
    "training left-overs": "of value models whose training was given up before the last iteration",
    "dataset links": "lead to steps that go",
    "trash": "left by a 'recap gc' that was killed",
}
"""The kinds of garbage, in the order in which they are told."""


@dataclass(frozen=True)
class GcPlan:
    """What would go, and what stays: champions (newest first), and the number and bytes of steps."""

    garbage: tuple[Garbage, ...]
    champions: tuple[Champion, ...]
    last_iteration: int | None
    kept_steps: int
    kept_bytes: int

    @property
    def bytes(self) -> int:
        """The size of all that would go; what it frees is less where other names link the files."""
        return sum(one.bytes for one in self.garbage)


def plan_gc(
    workspace: Workspace, keep: int = KEPT_BEFORE, listed: Sequence[ListedStep] | None = None
) -> GcPlan:
    """What can go when ``keep`` champions before the present one stay.

    ``listed`` are the published steps, for who has the list already. Raises ``InputError`` where it cannot
    be told which value models are in use.
    """
    store, ledger = StepStore(workspace.steps), Ledger(workspace)
    champions = _kept_champions(ledger.champions(), keep)
    iterations = ledger.iterations()
    last = iterations[-1] if iterations else None
    listed = store.listed() if listed is None else listed
    roots: list[Keyed] = [*champions, *_value_models(workspace)]
    if last is not None:
        roots += [step for step in listed if step.finished >= last.recorded]
        roots += [StepAddress(name, key) for name, key, _ in ledger.steps(last.n)]
        names = (f"iteration-{last.n}", f"iteration-{last.n}.html")
        for folder in (workspace.reports, workspace.datasets):
            linked = _links_to_steps(workspace, folder)
            roots += [address for link, address in linked.items() if link.name in names]
    needed = trace(store, roots) if last is not None else {}
    pages = set(_links_to_steps(workspace, workspace.reports).values())

    def stays(step: ListedStep) -> bool:
        address = StepAddress(step.name, step.key)
        # Before the first iteration everything may be of it.
        told = step.name == _EVALUATION or address in pages
        return last is None or step.bytes == 0 or told or str(address) in needed

    kept = [step for step in listed if stays(step)]
    gone = [step for step in listed if not stays(step)]
    garbage = [
        *(Garbage("steps", store.path(step), step.bytes) for step in gone),
        *_unfinished(store),
        *_scoring_runs(workspace, needed, last),
        *_training_left_overs(store, last),
        *_links(workspace, {StepAddress(step.name, step.key) for step in gone}),
        *_trash(workspace),
    ]
    number = last.n if last is not None else None
    return GcPlan(tuple(garbage), tuple(champions), number, len(kept), sum(step.bytes for step in kept))


def trash_folders(workspace: Workspace) -> tuple[Path, Path]:
    """Where things are moved before they are deleted: each on the disk of what it takes."""
    return workspace.steps / TRASH, workspace.cache / TRASH


def _kept_champions(history: list[Champion], keep: int) -> list[Champion]:
    """The champion, ``keep`` others that were it before, newest first, and the base."""
    distinct = {(champion.name, champion.key): champion for champion in reversed(history)}
    newest = list(distinct.values())[: keep + 1]
    base = history[:1]
    return newest + [champion for champion in base if champion.key not in {c.key for c in newest}]


def _value_models(workspace: Workspace) -> list[Keyed]:
    """The steps that trained the value models in use."""
    path = workspace.root / VALUE_MODEL
    try:
        members = json.loads(path.read_text())["members"]
        places = [Path(member).parts for member in members]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}), so it is not known which value models are in use: train one "
            "with 'recap value train', or remove the file"
        ) from error
    return [StepAddress(parts[1], parts[2]) for parts in places if len(parts) > 2 and parts[0] == "steps"]


def _links_to_steps(workspace: Workspace, folder: Path) -> dict[Path, StepAddress]:
    """The links for people in a folder that lead to steps, there or not."""
    steps = workspace.steps.resolve()
    found = {}
    for link in sorted(folder.glob("[!.]*")):
        target = link.resolve()
        if link.is_symlink() and target.is_relative_to(steps):
            parts = target.relative_to(steps).parts
            if len(parts) > 1:
                found[link] = StepAddress(*parts[:2])
    return found


def _unfinished(store: StepStore) -> Iterator[Garbage]:
    for partial in store.partials():
        # A complete one is published, not removed.
        if not (partial / MANIFEST).exists():
            yield Garbage("unfinished steps", partial, usage_of(partial).bytes)


def _scoring_runs(
    workspace: Workspace, needed: dict[str, LineageStep], last: Iteration | None
) -> Iterator[Garbage]:
    """Runs of neither a kept step nor, as far as their age tells, the value models in use."""
    folder = workspace.cache / "scores"
    runs = sorted(
        (path for path in folder.glob("[!.]*") if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    kept = {step.address.partition("/")[2][:_RUN_DIGITS] for step in needed.values()}
    for step in needed.values():
        if step.result is not None:
            kept |= {str(value) for value in step.result.result.values() if isinstance(value, str)}
    kept |= {path.name for path in [path for path in runs if path.name.startswith(_VALUES)][-1:]}
    for path in runs:
        if path.name not in kept and _before(path, last):
            yield Garbage("scoring runs", path, usage_of(path).bytes)


def _training_left_overs(store: StepStore, last: Iteration | None) -> Iterator[Garbage]:
    for path in sorted((store.root / RESUMED).glob("*")):
        if _before(path, last):
            yield Garbage("training left-overs", path, usage_of(path).bytes)


def _before(path: Path, last: Iteration | None) -> bool:
    """Whether nothing was written there since the last iteration."""
    if last is None:
        return False
    # What is replaced or added in a folder changes the folder's own time.
    times = [entry.stat().st_mtime for entry in [path, *(path.iterdir() if path.is_dir() else [])]]
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds") < last.recorded


def _links(workspace: Workspace, going: set[StepAddress]) -> Iterator[Garbage]:
    """Links in ``datasets/`` to a step that goes, or has gone."""
    for link, address in _links_to_steps(workspace, workspace.datasets).items():
        if address in going or not link.exists():
            yield Garbage("dataset links", link, 0)


def _trash(workspace: Workspace) -> Iterator[Garbage]:
    for folder in trash_folders(workspace):
        if folder.exists():
            yield Garbage("trash", folder, usage_of(folder).bytes)

"""What of a workspace's derived data no kept champion needs any more. Only reads, and little of it.

Kept are the steps that these came from: the champion, those to which going back leads (as many as asked
for), the base policy, each with all that its iteration computed; the last iteration, the value models in
use, what a person's own links in ``datasets/`` lead to, and whatever was computed since the last iteration,
which an interrupted run goes on with. Kept in any case are the pages that ``reports/`` links to, all
evaluations and what the gate said, which are small and tell the history, and steps without files. Recorded
episodes, labels, snapshots and the ledger are never looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.champion_check import gone
from workflows.completion_log import ListedStep
from workflows.disk_usage import usage_of
from workflows.ledger import Champion, Iteration, Ledger
from workflows.lineage import LineageStep, trace
from workflows.rollback import standing
from workflows.step_files import JUDGEMENT
from workflows.step_recipe import Keyed, StepAddress
from workflows.step_resume import FOLDER
from workflows.step_store import StepStore
from workflows.value_models_in_use import read_value_models

KEPT_BEFORE = 2
TRASH = ".trash"
"""The folder, beside what is removed and so on the same disk, into which it is moved before."""

# Steps that tell what came of policies and values; small.
_TELLING = ("evaluate", JUDGEMENT)

_SCORES = "scores"
_OF_ITERATION = re.compile(r"iteration-(\d+)(\.html)?")  # the links that the loop makes

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
    "training left-overs": "of steps that were given up before the last iteration",
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
    be told which value models are in use, or what the champion came from.
    """
    store, ledger = StepStore(workspace.steps), Ledger(workspace)
    champions = _kept_champions(store, ledger.champions(), keep)
    iterations = ledger.iterations()
    last = iterations[-1] if iterations else None
    numbers = {champion.iteration for champion in champions} | {one.n for one in iterations[-1:]}
    listed = store.listed() if listed is None else listed
    datasets, pages = (_links_to_steps(workspace, at) for at in (workspace.datasets, workspace.reports))
    roots: list[Keyed] = [*champions, *_value_models(workspace)]
    # By the ledger too: what leads from a champion that is not there now to its steps is gone with it.
    roots += [StepAddress(name, key) for n in numbers for name, key, _ in ledger.steps(n)]
    roots += [address for link, address in datasets.items() if _number(link) in {None, *numbers}]
    roots += [address for link, address in pages.items() if _number(link) in numbers]
    if last is not None:
        roots += [step for step in listed if step.finished >= last.recorded]
    needed = trace(store, roots) if last is not None else {}

    def stays(step: ListedStep) -> bool:
        address = StepAddress(step.name, step.key)
        # Before the first iteration everything may be of it.
        told = step.name in _TELLING or address in pages.values()
        return last is None or step.bytes == 0 or told or str(address) in needed

    kept = [step for step in listed if stays(step)]
    going = [step for step in listed if not stays(step)]
    garbage = [
        *(Garbage("steps", store.path(step), step.bytes) for step in going),
        *(_garbage("unfinished steps", path) for path in store.left_behind()),
        *_scoring_runs(workspace, needed, last),
        *_training_left_overs(store, last),
        *(_garbage("dataset links", link) for link in _outdated(store, datasets, going, numbers)),
        *(_garbage("trash", folder) for folder in trash_folders(workspace)),
    ]
    there = tuple(champion for champion in champions if store.find(champion) is not None)
    number = last.n if last is not None else None
    return GcPlan(tuple(garbage), there, number, len(kept), sum(step.bytes for step in kept))


def trash_folders(workspace: Workspace) -> list[Path]:
    """Where things were moved to be deleted, each on the disk of what it took."""
    return [*sorted(workspace.steps.glob(f"*/{TRASH}")), *(workspace.cache / _SCORES).glob(TRASH)]


def _garbage(kind: str, path: Path) -> Garbage:
    return Garbage(kind, path, usage_of(path).bytes)


def _kept_champions(store: StepStore, history: list[Champion], keep: int) -> list[Champion]:
    """The champion, those to which going back leads, newest first, until ``keep`` are there, and the base."""
    kept: list[Champion] = []
    there = 0
    for champion in standing(history):
        found = store.find(champion) is not None
        if not kept and not found:
            raise InputError(gone(champion))
        kept += [champion]
        there += found
        if there > keep:
            break
    return kept + [base for base in history[:1] if base.key not in {champion.key for champion in kept}]


def _value_models(workspace: Workspace) -> list[Keyed]:
    """The steps that trained the value models in use."""
    found = read_value_models(workspace)
    return list(found.steps) if found is not None else []


def _links_to_steps(workspace: Workspace, folder: Path) -> dict[Path, StepAddress]:
    """The links for people in a folder that lead to steps, there or not."""
    steps = {Path(os.path.realpath(workspace.root), "steps"), Path(os.path.realpath(workspace.steps))}
    found = {}
    for link in sorted(path for path in folder.glob("[!.]*") if path.is_symlink()):
        # What it says, since a part of steps/ may be a link to another disk, and where it ends.
        said = os.path.normpath(Path(os.path.realpath(folder)) / link.readlink())
        for target in (Path(said), Path(os.path.realpath(link))):
            for root in steps:
                if target.is_relative_to(root) and len(parts := target.relative_to(root).parts) > 1:
                    found[link] = StepAddress(*parts[:2])
    return found


def _number(link: Path) -> int | None:
    """Of the iteration for which the loop made a link; ``None`` for one that a person made."""
    found = _OF_ITERATION.fullmatch(link.name)
    return int(found[1]) if found else None


def _scoring_runs(
    workspace: Workspace, needed: dict[str, LineageStep], last: Iteration | None
) -> Iterator[Garbage]:
    """Runs of neither a kept step nor, as far as their age tells, the value models in use."""
    folder = workspace.cache / _SCORES
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
            yield _garbage("scoring runs", path)


def _training_left_overs(store: StepStore, last: Iteration | None) -> Iterator[Garbage]:
    for path in sorted((store.root / FOLDER).glob("[!.]*")):
        if _before(path, last):
            yield _garbage("training left-overs", path)


def _before(path: Path, last: Iteration | None) -> bool:
    """Whether nothing was written there since the last iteration."""
    if last is None:
        return False
    # What is replaced or added in a folder changes the folder's own time.
    times = [entry.stat().st_mtime for entry in [path, *(path.iterdir() if path.is_dir() else [])]]
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds") < last.recorded


def _outdated(
    store: StepStore, links: dict[Path, StepAddress], gone: list[ListedStep], numbers: set[int]
) -> list[Path]:
    """Links that the loop made to a step that goes, or has gone."""
    going = {(step.name, step.key) for step in gone}
    return [
        link
        for link, to in links.items()
        if _number(link) not in {None, *numbers}
        and ((to.name, to.key) in going or not store.path(to).exists())
    ]

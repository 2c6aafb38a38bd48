"""What differs between a workspace and a store, and on which side it is newer; nothing is moved here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pipeline.object_store import ObjectStore, Version
from workflows.remote_databases import NAMES, StoredDatabase, look_up, rows_digest
from workflows.remote_entries import Entry, local_entries, stored_entries
from workflows.remote_layout import EPISODES, SNAPSHOTS, STEPS, Content, file_of, step_of
from workflows.remote_memory import SyncMemory
from workflows.step_recipe import StepAddress
from workflows.step_store import StepStore

PARTS = ("episodes", "labels", "steps", "rest")
"""What ``--only`` names. ``labels`` are labels.sqlite and snapshots; ``rest`` is what is in no other part."""
_DATABASE_PART = {"labels.sqlite": "labels"}


LISTED = "links and settings"
"""The name of a conflict over the list of these, which somebody wrote at the same moment."""


@dataclass
class Difference:
    """What has to travel one way: steps, files with their content, databases, links and small files."""

    steps: list[StepAddress] = field(default_factory=list)
    files: dict[str, Content] = field(default_factory=dict)
    databases: list[str] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Everything in it by name."""
        steps = [f"steps/{step}" for step in self.steps]
        return [*steps, *self.files, *self.databases, *self.entries]

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.steps or self.files or self.databases or self.entries)


@dataclass(frozen=True)
class Conflict:
    """Something that was changed on both sides; ``there`` says who wrote the store's last, and when."""

    name: str
    there: str

    @property
    def advice(self) -> str:
        """What a person can do."""
        if self.name == LISTED:
            return "give the command again"
        return (
            f"let one win with 'recap sync push --overwrite {self.name}' (this one) or 'recap sync pull "
            f"--overwrite {self.name}' (the store's); the other is kept as a copy"
        )


@dataclass
class SyncPlan:
    """What is new on either side, and what on both. ``strangers`` objects of the store are not ours."""

    push: Difference = field(default_factory=Difference)
    pull: Difference = field(default_factory=Difference)
    conflicts: list[Conflict] = field(default_factory=list)
    strangers: int = 0
    stored: dict[str, tuple[StoredDatabase, Version]] = field(default_factory=dict)
    digests: dict[str, str | None] = field(default_factory=dict)
    entries: tuple[dict[str, Entry], Version | None] = ({}, None)


@dataclass(frozen=True)
class _Known:
    """The contents of one file in the store, and which was written last, and when."""

    newest: Content
    modified: datetime
    all: frozenset[str]


def make_plan(
    root: Path,
    store: ObjectStore,
    memory: SyncMemory,
    parts: Collection[str] = PARTS,
    overwrite: Collection[str] = (),
    pulling: bool = False,
) -> SyncPlan:
    """Looks at both sides. Names in ``overwrite`` are no conflicts: they go where we are going."""
    scales = _Scales(root, store, memory, overwrite, pulling)
    # First what refers to the rest: what it names was in the store before it.
    if "rest" in parts:
        scales.weigh_entries()
    for name in NAMES:
        if _DATABASE_PART.get(name, "rest") in parts:
            scales.weigh_database(name)
    for folder, part in ((EPISODES, "episodes"), (SNAPSHOTS, "labels")):
        if part in parts:
            scales.weigh_files(folder)
    if "steps" in parts:
        scales.weigh_steps()
    return scales.plan


@dataclass
class _Scales:
    """Compares the two sides kind by kind and fills the plan."""

    root: Path
    store: ObjectStore
    memory: SyncMemory
    overwrite: Collection[str]
    pulling: bool
    plan: SyncPlan = field(default_factory=SyncPlan)

    def weigh_steps(self) -> None:
        here = StepStore(self.root / STEPS).addresses()
        # Listed each time, a request per thousand: what somebody removed there is sent again.
        there = set()
        for one in self.store.listing(STEPS):
            step = step_of(one.path)
            if step is None:
                self.plan.strangers += 1
            else:
                there.add(step)
        self.plan.push.steps = [step for step in here if step not in there]
        self.plan.pull.steps = sorted(there - set(here), key=str)

    def weigh_entries(self) -> None:
        self.plan.entries = stored_entries(self.store)
        all_here, all_there = local_entries(self.root, self.memory), self.plan.entries[0]
        for name in sorted(all_here.keys() | all_there.keys()):
            here, there = all_here.get(name), all_there.get(name)
            ours = here.what if here is not None else None
            theirs = there.what if there is not None else None
            verdict = self._verdict(name, ours, theirs, self.memory.equal(name))
            if verdict == "push" and here is not None:
                self.plan.push.entries[name] = here
            elif verdict == "pull" and there is not None:
                self.plan.pull.entries[name] = there
            elif verdict == "conflict" and there is not None:
                self.plan.conflicts.append(Conflict(name, f"by {there.by} at {there.at}"))

    def weigh_database(self, name: str) -> None:
        found = look_up(self.store, name)
        ours = self.plan.digests[name] = rows_digest(self.root / name)
        if found is not None:
            self.plan.stored[name] = found
        theirs = found[0].content if found is not None else None
        verdict = self._verdict(name, ours, theirs, self.memory.equal(name))
        if verdict == "push":
            self.plan.push.databases.append(name)
        elif verdict == "pull":
            self.plan.pull.databases.append(name)
        elif verdict == "conflict" and found is not None:
            self.plan.conflicts.append(Conflict(name, f"by {found[0].by} at {found[0].at}"))

    def weigh_files(self, folder: str) -> None:
        there, strangers = _known_files(self.store, folder)
        self.plan.strangers += strangers
        pattern = "*/*.h5" if folder == EPISODES else "*.parquet"
        here = {path.relative_to(self.root).as_posix() for path in (self.root / folder).glob(pattern)}
        # What could not travel back is not sent: hidden files, names with odd characters.
        here = {path for path in here if file_of(f"{path}/{'0' * 64}") is not None}
        for path in sorted(here | there.keys()):
            content = self.memory.content(path) if path in here else None
            known = there.get(path)
            ours = content.sha256 if content is not None else None
            theirs = known.newest.sha256 if known is not None else None
            # Where the store has had ours, it was replaced there by somebody who knew it.
            had = known is not None and ours in known.all
            verdict = self._verdict(path, ours, theirs, ours if had else self.memory.equal(path))
            if verdict == "push" and content is not None:
                self.plan.push.files[path] = content
            elif verdict == "pull" and known is not None:
                self.plan.pull.files[path] = known.newest
            elif verdict == "conflict" and known is not None:
                when = known.modified.isoformat(timespec="seconds")
                self.plan.conflicts.append(Conflict(path, f"at {when}"))

    def _verdict(self, name: str, ours: str | None, theirs: str | None, base: str | None) -> str:
        """``push``, ``pull``, ``equal``, ``conflict``; ``base``: what both were last. Nothing is deleted."""
        overwrite = name in self.overwrite
        if ours == theirs:
            if ours is not None:
                self.memory.note(name, ours)
            return "equal"
        if theirs is None or (overwrite and not self.pulling and ours is not None):
            return "push"
        if ours is None or (overwrite and self.pulling):
            return "pull"
        if theirs == base:
            return "push"
        return "pull" if ours == base else "conflict"


def _known_files(store: ObjectStore, folder: str) -> tuple[Mapping[str, _Known], int]:
    found: dict[str, _Known] = {}
    strangers = 0
    for one in store.listing(folder):
        named = file_of(one.path)
        if named is None:
            strangers += 1
            continue
        path, sha256 = named
        content, before = Content(sha256, one.size), found.get(path)
        every = frozenset({sha256}) | (before.all if before is not None else frozenset())
        if before is None or (before.modified, before.newest.sha256) < (one.modified, sha256):
            found[path] = _Known(content, one.modified, every)
        else:
            found[path] = _Known(before.newest, before.modified, every)
    return found, strangers

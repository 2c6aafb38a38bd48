"""A workspace to a store and back: only what is new, checked on arrival, nothing half, nothing deleted.

What refers to other things goes last: a step's object after its blobs, databases after the steps that they
name, links at the end. So a kill at any moment leaves both sides as something that works, and the next run
does the rest.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import Failure, InputError
from pipeline.file_lock import locked
from pipeline.object_store import Damaged, ObjectStore
from pipeline.workspace import Workspace
from workflows import remote_databases as databases
from workflows.remote_entries import bring_entry, send_entries
from workflows.remote_layout import is_sha256, mark, marked
from workflows.remote_memory import FOLDER, SyncMemory
from workflows.remote_plan import LISTED, PARTS, Conflict, SyncPlan, make_plan
from workflows.remote_transport import Traffic, Transport, room_for

# With fewer steps to send, each blob is asked for; with more, all are listed once.
_FEW = 20
# Attempts at what another may be writing at the same time.
_ATTEMPTS = 5


@dataclass
class SyncResult:
    """What was moved, what could not be (a line each), and what was changed on both sides."""

    traffic: Traffic
    moved: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


class Sync:
    """Brings ``workspace`` to ``store`` and back. ``progress`` is told of each thing that was moved."""

    def __init__(
        self,
        workspace: Workspace,
        store: ObjectStore,
        parts: Collection[str] = PARTS,
        overwrite: Collection[str] = (),
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._root = workspace.root.absolute()
        self._store = store
        self._parts = parts
        self._overwrite = overwrite
        self._progress = progress

    def plan(self, *, pulling: bool = False) -> SyncPlan:
        """What differs; moves nothing, and makes no folder. Does not wait for one that pushes or pulls."""
        with ExitStack() as stack:
            try:
                if not self._root.is_dir():
                    raise BlockingIOError
                memory = stack.enter_context(self._memory(wait=False))
            except BlockingIOError:
                memory = SyncMemory(self._root, self._store.url)
            memory.meet(marked(self._store))
            return self._plan(memory, pulling)

    def push(self) -> SyncResult:
        """Sends what is new here. Conflicts are left as they are, and named in the result."""
        with self._memory() as memory, self._transport() as transport:
            memory.meet(mark(self._store))
            first = memory.is_new
            plan = self._plan(memory, False)
            result = SyncResult(transport.traffic, conflicts=plan.conflicts)
            if first and plan.conflicts:
                # It may be another lab's workspace: nothing of ours gets among theirs.
                return result
            if len(plan.push.steps) > _FEW:
                names = (one.path.rpartition("/")[2] for one in self._store.listing("blobs"))
                transport.blobs = {name for name in names if is_sha256(name)}
            mine, total = self._counter(result), len(plan.push.names())
            self._each(transport, transport.send_step, plan.push.steps, mine("steps", total))
            files = plan.push.files
            self._each(transport, lambda path: transport.send_file(path, files[path]), files, mine("", total))
            for path in set(files) & set(result.moved):
                memory.note(path, files[path].sha256)
            for name in plan.push.databases:
                self._push_database(memory, plan, name, result)
            self._push_entries(memory, transport, plan, result)
            if self._store.url.startswith("file:"):
                # Other stores answer when it is safe; a folder's files are only handed over.
                os.sync()
            return result

    def pull(self) -> SyncResult:
        """Brings what is new in the store. Only for who holds the workspace (its driver lock)."""
        there = marked(self._store)
        if there is None:
            raise InputError(f"{self._store.url} holds no workspace: bring one there with 'recap sync push'")
        Workspace(self._root).create()
        with self._memory() as memory, self._transport() as transport, room_for(self._root):
            memory.meet(there)
            # What a killed pull left aside.
            transport.steps.sweep()
            result = SyncResult(transport.traffic)
            for _ in range(_ATTEMPTS):
                plan = self._plan(memory, True)
                result.conflicts = plan.conflicts
                if self._pull_once(memory, transport, plan, result):
                    return result
                # Somebody wrote to the store meanwhile: what its databases name may be new, too.
            raise Failure(f"{self._store.url} is written to all the time: try again later")

    def _pull_once(
        self, memory: SyncMemory, transport: Transport, plan: SyncPlan, result: SyncResult
    ) -> bool:
        """Everything in the plan; ``False`` where the store changed meanwhile."""
        mine, total, files = self._counter(result), len(plan.pull.names()), plan.pull.files
        for path in files.keys() & set(self._overwrite):
            self._keep_here(path)
        self._each(transport, lambda path: transport.bring_file(path, files[path]), files, mine("", total))
        for path in files.keys() & set(result.moved):
            memory.note(path, files[path].sha256)
        self._each(transport, self._bring_step(transport), plan.pull.steps, mine("steps", total))
        current = True
        for name in plan.pull.databases:
            current &= self._pull_database(memory, plan, name, result)
        for name, entry in plan.pull.entries.items():
            if name in self._overwrite:
                self._keep_here(name)
            with _isolated(result):
                bring_entry(transport, name, entry)
                memory.note(name, entry.what)
                result.moved.append(name)
        return current

    def _bring_step(self, transport: Transport) -> Callable[[object], None]:
        def bring(step: object) -> None:
            if not transport.bring_step(step):  # type: ignore[arg-type]  # of a plan's steps
                raise Damaged(f"{self._store.url} lacks the step {step}, which it listed")

        return bring

    def _push_database(self, memory: SyncMemory, plan: SyncPlan, name: str, result: SyncResult) -> None:
        known = plan.stored.get(name)
        if known is not None and name in self._overwrite:
            databases.keep_replaced(self._store, name)
        copy = self._root / FOLDER / f".{uuid.uuid4().hex}.{name}"
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            content = databases.copy_of(self._root / name, copy)
            if content is None:
                return
            generation = known[0].generation + 1 if known is not None else 1
            made = databases.described(copy, content, generation, databases.who(), _now())
            if databases.send_database(self._store, name, copy, made, known[1] if known else None):
                memory.note(name, content)
                result.traffic.add(made.bytes)
                result.moved.append(name)
                return
        finally:
            copy.unlink(missing_ok=True)
        found = databases.look_up(self._store, name)
        there = f"by {found[0].by} at {found[0].at}" if found is not None else "just now"
        result.conflicts.append(Conflict(name, there))

    def _pull_database(self, memory: SyncMemory, plan: SyncPlan, name: str, result: SyncResult) -> bool:
        expected = plan.digests[name]
        if expected is not None and name in self._overwrite:
            databases.copy_of(self._root / name, self._kept_place(name))
        with _isolated(result):
            header = databases.bring_database(self._store, name, self._root / name, expected)
            if header is None:
                planned = plan.stored[name][0]
                result.conflicts.append(Conflict(name, f"by {planned.by} at {planned.at}"))
                return True
            memory.note(name, header.content)
            result.traffic.add(header.bytes)
            result.moved.append(name)
            return header.content == plan.stored[name][0].content
        return True

    def _push_entries(
        self, memory: SyncMemory, transport: Transport, plan: SyncPlan, result: SyncResult
    ) -> None:
        chosen, (former, version) = plan.push.entries, plan.entries
        if not chosen:
            return
        for name, entry in chosen.items():
            if entry.content is not None:
                transport.send_blob(self._root / name, entry.content)
        by, at = databases.who(), _now()
        ours = {name: replace(entry, by=by, at=at) for name, entry in chosen.items()}
        if send_entries(self._store, ours, former, version):
            for name, entry in ours.items():
                memory.note(name, entry.what)
                result.moved.append(name)
        else:
            result.conflicts.append(Conflict(LISTED, "just now"))

    def _each[T](
        self,
        transport: Transport,
        function: Callable[[T], None],
        items: Iterable[T],
        done: tuple[SyncResult, Callable[[T], None]],
    ) -> None:
        result, tell = done

        def one(item: T) -> None:
            try:
                function(item)
            except Damaged as error:
                result.faults.append(str(error))
            else:
                tell(item)

        transport.each(one, items, threads=16)

    def _counter(
        self, result: SyncResult
    ) -> Callable[[str, int], tuple[SyncResult, Callable[[object], None]]]:
        def of(folder: str, total: int) -> tuple[SyncResult, Callable[[object], None]]:
            def tell(item: object) -> None:
                name = f"{folder}/{item}" if folder else str(item)
                result.moved.append(name)
                if self._progress is not None:
                    self._progress(name, len(result.moved), total)

            return result, tell

        return of

    def _plan(self, memory: SyncMemory, pulling: bool) -> SyncPlan:
        return make_plan(self._root, self._store, memory, self._parts, self._overwrite, pulling)

    def _keep_here(self, name: str) -> None:
        """A copy of what a person chose to overwrite."""
        with suppress(FileNotFoundError):
            shutil.copyfile(self._root / name, self._kept_place(name.replace("/", "-")))

    def _kept_place(self, name: str) -> Path:
        folder = self._root / FOLDER / "replaced"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}-{name}"

    @contextmanager
    def _memory(self, *, wait: bool = True) -> Iterator[SyncMemory]:
        """What is known of the store; saved also when something fails, since it stays true."""
        with locked(self._root / FOLDER / "sync.lock", wait=wait):
            memory = SyncMemory(self._root, self._store.url)
            try:
                yield memory
            finally:
                memory.save()

    @contextmanager
    def _transport(self) -> Iterator[Transport]:
        transport = Transport(self._store, self._root)
        try:
            yield transport
        finally:
            transport.close()


@contextmanager
def _isolated(result: SyncResult) -> Iterator[None]:
    """Within: what is damaged is noted, and the rest goes on."""
    try:
        yield
    except Damaged as error:
        result.faults.append(str(error))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

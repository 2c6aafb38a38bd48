"""Workers on machines that do not have the driver's disk: inputs come from a store, results go there.

Where a workspace has a remote, the driver works within ``driving()`` and ``offer``s what a step reads before
it starts it; the worker ``bring``s it, computes, and ``send``s the result; the driver ``fetch``es that before
it looks for it. Where driver and worker share the disk after all, everything is there already and little is
asked of the store.

On each machine the workspace is at the same absolute path as on the driver's, in a folder of that machine's
own, or wherever ``RECAP_NODE_WORKSPACE`` says.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.episode_names import is_safe_id
from pipeline.errors import Failure, InputError
from pipeline.label_snapshot import read_snapshot
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from workflows.remote_config import remote_section
from workflows.remote_entries import SETTINGS, bring_entry, stored_entries
from workflows.remote_episodes import bring_episodes, is_of_a_person, newest
from workflows.remote_layout import EPISODES, SNAPSHOTS, Content, file_of, mark, step_object, step_of
from workflows.remote_memory import SyncMemory
from workflows.remote_transport import Transport
from workflows.step_recipe import ExternalInput, Input, Keyed, Step, StepAddress, content_digest
from workflows.step_store import StepCall, StepStore

NODE_WORKSPACE = "RECAP_NODE_WORKSPACE"
"""The environment variable that says where a machine keeps its share of the workspace."""


@dataclass(frozen=True)
class RemoteWorkspace:
    """A workspace in a store, and where the driver has it; picklable, and tells nothing until it is used."""

    url: str
    root: Path

    @contextmanager
    def driving(self) -> Iterator[None]:
        """In the driver: within, no other machine drives this workspace; afterwards the store has all of it.

        Raises ``InputError`` naming who drives it, or where the store's ledger is newer than the one here.
        """
        from workflows.remote_driver import driving

        with driving(Workspace(self.root), ObjectStore(self.url)):
            yield

    def require(self) -> None:
        """In the driver: raises ``Failure`` where the lease was lost. Costs microseconds."""
        from workflows.remote_driver import require_lease

        require_lease(Workspace(self.root))

    def offer(self, step: Step) -> None:
        """In the driver: what ``step`` reads, and is here, is in the store afterwards.

        What other steps have yet to compute is sent by their workers. Raises as :meth:`require` does.
        """
        self.require()
        _offers(self.url, self.root).offer(step)

    def bring(self, call: StepCall) -> StepCall:
        """In a worker: all that the call reads is on this machine afterwards; the call with its paths here.

        Raises ``Failure`` where the store lacks a step, ``InputError`` where an input is no file of the
        workspace's and is not on this machine.
        """
        here = Path(os.environ.get(NODE_WORKSPACE) or self.root).absolute()
        transport = _transport(self.url, here)
        _swept(here)
        inputs: dict[str, Any] = {}
        for name, value in call.inputs.items():
            identity = call.input_identities[name]
            if isinstance(value, list):
                pairs = list(zip(value, identity, strict=True))
                inputs[name] = transport.each(lambda pair: self._brought(transport, *pair), pairs)
            else:
                inputs[name] = self._brought(transport, value, identity)
        if isinstance(inputs.get("snapshot"), Path) and "workspace" in inputs:
            bring_episodes(transport, inputs["snapshot"])
        return replace(call, steps=here / "steps", inputs=inputs)

    def send(self, call: StepCall) -> None:
        """In a worker: the published step, and the episodes that it recorded, are in the store afterwards."""
        transport = _transport(self.url, call.steps.parent)
        step = StepAddress(call.name, call.key)
        if transport.store.exists(step_object(step)):
            return
        result = transport.steps.find(step)
        if result is None:
            raise Failure(f"step {call.name}: {call.steps / call.name / call.key} is gone before it was sent")
        transport.each(lambda path: _send_file(transport, path), _recorded(transport.root, result.result))
        transport.send_step(step)

    def fetch(self, step: Keyed) -> bool:
        """In the driver: the published step and its episodes are here afterwards; ``False`` for none.

        Raises as :meth:`require` does.
        """
        self.require()
        transport = _transport(self.url, self.root)
        address = StepAddress(step.name, step.key)
        if not transport.bring_step(address):
            return False
        found = transport.steps.find(address)
        ids = _episodes(found.result) if found is not None else []
        if any(next(_paths(self.root, one), None) is None for one in ids):
            # Its name alone does not say of which task an episode is.
            wanted = {f"{one}.h5" for one in ids}
            there = newest(transport.store, EPISODES)
            missing = [path for path in there if path.rpartition("/")[2] in wanted]
            transport.each(lambda path: transport.bring_file(path, there[path]), missing)
        return True

    def _brought(self, transport: Transport, path: Path, identity: str) -> Path:
        """One input, on this machine: where it is, or is now."""
        try:
            inside = path.relative_to(self.root)
        except ValueError:
            inside = None
        here = path if inside is None else transport.root / inside
        if not identity.startswith("external:"):
            if not transport.bring_step(StepAddress.parse(identity)):
                raise Failure(f"{transport.store.url} lacks the step {identity}, which another one reads")
            return here
        if inside is not None and not inside.parts:
            here.mkdir(parents=True, exist_ok=True)
            _bring_settings(transport)
        elif inside is not None and inside.parts[0] == SNAPSHOTS and not here.exists():
            name = inside.as_posix()
            found = newest(transport.store, name).get(name)
            if found is None:
                raise Failure(f"{transport.store.url} lacks {name}, which a step reads")
            transport.bring_file(name, found)
        elif not here.exists():
            raise InputError(f"{here} is an input of a step that no step made: put it on every machine")
        return here


def remote_of(workspace: Workspace) -> RemoteWorkspace | None:
    """The workspace's remote as its ``recap.toml`` names it; ``None`` where it names none."""
    url = remote_section(workspace).url
    return RemoteWorkspace(url.rstrip("/"), workspace.root.absolute()) if url else None


class _Offers:
    """What a driver has offered. The store is listed once; later only what is new is looked at."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._guard = threading.Lock()
        self._steps: set[StepAddress] | None = None
        # The names of the objects: an episode that is recorded again becomes another one.
        self._files: set[str] = set()
        # The hashes of files that were sent when the driver began.
        self._memory = SyncMemory(transport.root, transport.store.url)

    def offer(self, step: Step) -> None:
        with self._guard:
            if self._steps is None:
                mark(self._transport.store)
                for folder in (EPISODES, SNAPSHOTS):
                    paths = (one.path for one in self._transport.store.listing(folder))
                    self._files |= {path for path in paths if file_of(path) is not None}
                listed = self._transport.store.listing("steps")
                self._steps = {found for one in listed if (found := step_of(one.path)) is not None}
            steps = self._steps
            given = list(_inputs(step))
            published = {
                StepAddress(one.name, one.key) for one in given if not isinstance(one, ExternalInput)
            }
            new = [one for one in published - steps if self._transport.steps.find(one) is not None]
            self._transport.each(self._transport.send_step, new)
            steps.update(new)
            new_files = [path for one in given if isinstance(one, ExternalInput) for path in self._read(one)]
            self._transport.each(lambda path: _send_file(self._transport, path), new_files)
            self._files |= {self._object(path) for path in new_files}

    def _read(self, given: ExternalInput) -> list[Path]:
        """The files that go with an input: of a snapshot itself and its episodes, those not offered yet."""
        root = self._transport.root
        path = given.path.absolute()
        if path.parent != root / SNAPSHOTS or self._object(path) in self._files:
            return []
        workspace = Workspace(root)
        wanted = [workspace.episode_path(row.task, row.episode_id) for row in read_snapshot(path)]
        return [*(one for one in wanted if one.exists() and self._object(one) not in self._files), path]

    def _object(self, path: Path) -> str:
        name = path.relative_to(self._transport.root).as_posix()
        return f"{name}/{self._memory.content(name).sha256}"


def _inputs(step: Step) -> Iterator[Input]:
    for value in step.inputs.values():
        yield from value if isinstance(value, (list, tuple)) else [value]  # type: ignore[misc]  # a Sequence


def _bring_settings(transport: Transport) -> None:
    """``recap.toml``, which some steps read, as the store has it; a person's own is left alone."""
    here = transport.root / SETTINGS
    if here.exists() and is_of_a_person(Workspace(transport.root)):
        return
    entry = stored_entries(transport.store)[0].get(SETTINGS)
    if entry is None or entry.content is None:
        return
    if not here.exists() or hashlib.sha256(here.read_bytes()).hexdigest() != entry.content.sha256:
        bring_entry(transport, SETTINGS, entry)


def _recorded(root: Path, result: dict[str, Any]) -> list[Path]:
    return [path for one in _episodes(result) for path in _paths(root, one)]


def _episodes(result: dict[str, Any]) -> list[str]:
    """The ids of the episodes that a step says it recorded."""
    ids = result.get("episodes", [])
    return [one for one in ids if isinstance(one, str) and is_safe_id(one)] if isinstance(ids, list) else []


def _paths(root: Path, episode_id: str) -> Iterator[Path]:
    yield from (root / EPISODES).glob(f"*/{episode_id}.h5")


def _send_file(transport: Transport, path: Path) -> None:
    content = Content(content_digest(path), path.stat().st_size)
    name = path.relative_to(transport.root).as_posix()
    if not transport.store.exists(f"{name}/{content.sha256}"):
        transport.send_file(name, content)


@lru_cache(maxsize=4)
def _transport(url: str, root: Path) -> Transport:
    """One a process: a worker does many steps."""
    return Transport(ObjectStore(url), root)


@lru_cache(maxsize=4)
def _swept(root: Path) -> None:
    """Once a process: removes what killed workers of this machine left aside."""
    StepStore(root / "steps").sweep()


@lru_cache(maxsize=4)
def _offers(url: str, root: Path) -> _Offers:
    return _Offers(_transport(url, root))

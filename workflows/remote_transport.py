"""Brings single steps, episodes and snapshots to a store and back; each whole, checked, or not at all.

A step's blobs go before its object, so that a step that the store lists is there in full. On the way back a
step is filled aside and renamed when it is complete and on the disk (:meth:`StepStore.adopt`), and a file
likewise.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.durable_files import publish
from pipeline.errors import Failure
from pipeline.file_lock import locked
from pipeline.object_store import Damaged, ObjectStore
from workflows.local_copies import LocalCopies
from workflows.remote_layout import (
    Content,
    StepRecord,
    blob_object,
    choose_small,
    parse_record,
    step_object,
    step_record,
)
from workflows.step_recipe import StepAddress, content_digest
from workflows.step_result import MANIFEST
from workflows.step_store import StepStore

# Requests wait for the network, not for a core.
THREADS = 32
# Read into memory at once, to be hashed and sent from there.
_AT_ONCE = 32 * 2**20


@dataclass
class Traffic:
    """What has been moved: objects and their bytes. Threads may add to it."""

    objects: int = 0
    bytes: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, size: int) -> None:
        """Counts one object."""
        with self._guard:
            self.objects += 1
            self.bytes += size


class Transport:
    """Moves things between the workspace at ``root`` and ``store``. Threads may share it."""

    def __init__(self, store: ObjectStore, root: Path) -> None:
        self.store = store
        self.root = root
        self.steps = StepStore(root / "steps")
        self.traffic = Traffic()
        self.blobs: set[str] | None = None
        """The SHA-256s of the blobs in the store, where somebody has listed them; else each is asked for."""
        self._copies = LocalCopies(self.steps)
        self._files = ThreadPoolExecutor(THREADS, thread_name_prefix="objects")

    def close(self) -> None:
        """Ends the threads; what they had begun is left."""
        self._files.shutdown(cancel_futures=True)

    def send_step(self, step: StepAddress) -> None:
        """Puts a published step into the store; changes nothing where the store has it.

        Raises :class:`Damaged` where its files are not what they were.
        """
        record = self._local_record(step)
        folder = self.steps.path(step)
        together(self._files, lambda item: self.send_blob(folder / item[0], item[1]), record.large.items())
        data = record.to_bytes()
        if self.store.create(step_object(step), data) is not None:
            self.traffic.add(len(data))

    def bring_step(self, step: StepAddress) -> bool:
        """Publishes a step of the store's here; ``False`` where the store lacks it.

        Does nothing where it is here. Raises :class:`Damaged` where it is not what it should be.
        """
        return self.steps.find(step) is not None or self.brought_step(step) is not None

    def brought_step(self, step: StepAddress) -> StepRecord | None:
        """As :meth:`bring_step`, with what is in the store; asks it in any case."""
        name = step_object(step)
        data = self.store.read(name)
        if data is None:
            return None
        record = parse_record(step, data, f"{self.store.url}/{name}")
        final = self.steps.path(step)

        def fill(folder: Path) -> bytes:
            self.traffic.add(len(data))
            for parent in {(folder / file).parent for file in record.files}:
                parent.mkdir(parents=True, exist_ok=True)
            for file, content in record.small.items():
                if hashlib.sha256(content).hexdigest() != record.files[file].sha256:
                    raise Damaged(f"{self.store.url}/{name} is damaged: {file!r} has another SHA-256")
                (folder / file).write_bytes(content)
            together(
                self._files,
                lambda item: self._bring_blob(item[1], folder / item[0], final / item[0]),
                record.large.items(),
            )
            return record.manifest

        self.steps.adopt(step, fill)
        return record

    def send_blob(self, path: Path, content: Content) -> None:
        """Puts a file's content into the store, where it is not there yet."""
        there = self.blobs
        if content.sha256 in there if there is not None else self.store.exists(blob_object(content.sha256)):
            return
        self._send(path, content, blob_object(content.sha256))
        if there is not None:
            there.add(content.sha256)

    def send_file(self, path: str, content: Content) -> None:
        """Puts an episode or a snapshot, by its path in the workspace, into the store."""
        name = f"{path}/{content.sha256}"
        self._send(self.root / path, content, name)

    def bring_file(self, path: str, content: Content) -> None:
        """Fetches an episode or a snapshot, in place of what is under that path. Safe between processes."""
        final = self.root / path
        with self._place_of(final):
            there = final.is_file() and final.stat().st_size == content.bytes
            if there and content_digest(final) == content.sha256:
                return
            aside = final.with_name(f".{final.name}.{os.getpid()}-{threading.get_ident()}.part")
            try:
                self.store.download(f"{path}/{content.sha256}", content.bytes, content.sha256, aside)
                publish(aside, final)
            finally:
                aside.unlink(missing_ok=True)
            self.traffic.add(content.bytes)

    def each[T, R](self, function: Callable[[T], R], items: Iterable[T], threads: int = 8) -> list[R]:
        """``function`` of each item, several at a time; what it raises ends all. Not for within itself."""
        with ThreadPoolExecutor(threads, thread_name_prefix="transport") as pool:
            return together(pool, function, items)

    def _local_record(self, step: StepAddress) -> StepRecord:
        folder = self.steps.path(step)
        place = str(folder / MANIFEST)
        try:
            manifest = (folder / MANIFEST).read_bytes()
            files = step_record(step, manifest, {}, place).files
            small = {name: (folder / name).read_bytes() for name in choose_small(files)}
        except FileNotFoundError as error:
            raise Damaged(f"{error.filename} is gone: put it back from a copy, or remove {folder}") from error
        for name, data in small.items():
            if hashlib.sha256(data).hexdigest() != files[name].sha256:
                raise Damaged(_changed(folder / name))
        return step_record(step, manifest, small, place)

    def _send(self, path: Path, content: Content, name: str) -> None:
        """Uploads a file under a name that says its content, which is compared before."""
        try:
            size = path.stat().st_size
            data: bytes | Path = path.read_bytes() if size <= _AT_ONCE else path
        except FileNotFoundError as error:
            raise Damaged(f"{path} is gone: put it back from a copy") from error
        found = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else content_digest(data)
        if (found, size) != (content.sha256, content.bytes):
            raise Damaged(_changed(path))
        self.store.write(name, data)
        self.traffic.add(size)

    def _bring_blob(self, content: Content, target: Path, final: Path) -> None:
        def download() -> None:
            self.store.download(blob_object(content.sha256), content.bytes, content.sha256, target)
            self.traffic.add(content.bytes)

        self._copies.place(content, target, final, download)

    @contextmanager
    def _place_of(self, final: Path) -> Iterator[None]:
        """Within: this process alone brings that file; what killed ones left of it is removed."""
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = hashlib.sha256(str(final.relative_to(self.root)).encode()).hexdigest()[:32]
        with locked(self.root / ".sync" / f"{lock}.lock"):
            for leftover in final.parent.glob(f".{final.name}.*-*.part"):
                leftover.unlink(missing_ok=True)
            yield


def together[T, R](pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of each item in the pool's threads, in order; the first that raises ends the others."""
    futures = [pool.submit(function, item) for item in items]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        # None of them may still write when the caller tidies up.
        wait(futures)
        raise


@contextmanager
def room_for(root: Path) -> Iterator[None]:
    """Within: a full disk is one line. What was being written is gone again, what is whole stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise Failure(
            f"the disk of {root} is full: make room, such as with 'recap gc', and give the command again; "
            "what has arrived stays"
        ) from error


def _changed(path: Path) -> str:
    return f"{path} is not what it was when it was published: put it back from a copy"

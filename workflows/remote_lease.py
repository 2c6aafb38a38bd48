"""One driver at a time in a workspace that several machines share through a store.

The lease is an object that its holder rewrites every few seconds, each time only if it is still what the
holder wrote before. Clocks of machines are not trusted: whoever wants a lease that seems to have run out
watches for a while whether it still changes, and then replaces it on the condition that it has not. Each
holder's number (``fencing``) is one higher than the last one's.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pipeline.errors import Failure, InputError
from pipeline.object_store import ObjectStore, Version
from workflows.process_identity import ProcessIdentity
from workflows.remote_databases import who
from workflows.remote_layout import LEASE, plain_json

LEASE_S = 60.0


@dataclass(frozen=True)
class LeaseRecord:
    """What the object says: who holds it, since when and renewed when (seconds since 1970, UTC), until when.

    ``seconds`` is how long it holds after a renewal; 0 when it was given back.
    """

    by: str
    host: str
    pid: int
    birth: str
    fencing: int
    since: float
    renewed: float
    seconds: float


class DriverLease:
    """The lease as its holder has it. ``lost`` is set when another has taken it, or the store is silent."""

    def __init__(self, store: ObjectStore, record: LeaseRecord, version: Version) -> None:
        self.record = record
        self.lost = threading.Event()
        self._store = store
        self._version = version
        self._renewed = _now()
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def require(self) -> None:
        """Raises ``Failure`` where this driver does not hold the workspace any more.

        Costs microseconds: the store is asked only where the lease has run out, as after a suspended night.
        """
        if not self.lost.is_set() and self._silence() > self.record.seconds:
            self._keep_once()
        if self.lost.is_set():
            raise Failure(
                f"another driver may have taken over {self._store.url}: this one could not renew its lease "
                f"of {self.record.seconds:g} s; no database is written there any more, give the command again"
            )

    def start(self) -> None:
        """Begins to renew it."""
        self._thread.start()

    def end(self) -> None:
        """Gives it back, if it is still held."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self.lost.is_set():
            # Where the store is silent it runs out by itself; why the work ended is told, not this.
            with suppress(Failure, InputError):
                self._renew(0.0)

    def _keep(self) -> None:
        while not self.lost.is_set() and not self._ended.wait(self.record.seconds / 4):
            self._keep_once()

    def _keep_once(self) -> None:
        with self._guard:
            try:
                if not self._renew(self.record.seconds):
                    self.lost.set()
            except (Failure, InputError):
                # The store may be back in time.
                if self._silence() > self.record.seconds:
                    self.lost.set()

    def _silence(self) -> float:
        return _now() - self._renewed

    def _renew(self, seconds: float) -> bool:
        began = _now()
        record = LeaseRecord(**{**asdict(self.record), "renewed": time.time(), "seconds": seconds})
        version = self._store.replace(LEASE, _data(record), self._version)
        if version is None:
            # A repeated request may have been answered late: then it is ours all the same.
            found = self._store.read_version(LEASE, 2**16)
            if found is None or found[0] != _data(record):
                return False
            version = found[1]
        self._version, self._renewed = version, began
        return True


@contextmanager
def driver_lease(store: ObjectStore, seconds: float = LEASE_S) -> Iterator[DriverLease]:
    """Within: this process drives the workspace in ``store``.

    Raises ``InputError`` naming the holder where another does; waits up to half the lease's length for one
    that seems to have ended without saying so.
    """
    lease = _acquired(store, seconds)
    lease.start()
    try:
        yield lease
    finally:
        lease.end()


def holder(store: ObjectStore) -> LeaseRecord | None:
    """Who drives the workspace in the store, as far as it says; ``None`` where nobody does."""
    found = store.read_version(LEASE, 2**16)
    record = _record(store, found[0]) if found is not None else None
    return record if record is not None and record.seconds else None


def told(record: LeaseRecord) -> str:
    """A holder in words."""
    since = datetime.fromtimestamp(record.since, UTC).isoformat(timespec="seconds")
    return f"{record.by} since {since}, heard of {max(0.0, time.time() - record.renewed):.0f} s ago"


def _acquired(store: ObjectStore, seconds: float) -> DriverLease:
    found = store.read_version(LEASE, 2**16)
    if found is None:
        record = _mine(1, seconds)
        version = store.create(LEASE, _data(record))
    else:
        former = _record(store, found[0])
        if not _has_ended(former):
            _refuse_unless_expired(store, former, found[1])
        record = _mine(former.fencing + 1, seconds)
        version = store.replace(LEASE, _data(record), found[1])
    if version is None:
        raise InputError(f"another recap command has just begun to work in {store.url}: wait for it to end")
    return DriverLease(store, record, version)


def _has_ended(former: LeaseRecord) -> bool:
    """Whether it was given back, or its holder was a process of this machine that is no more."""
    holder = ProcessIdentity(former.host, former.pid, former.birth)
    return not former.seconds or (holder.is_here and _same_boot(holder) and not holder.is_alive())


def _same_boot(holder: ProcessIdentity) -> bool:
    """Whether the name is not just another machine's (as of two pods): a boot has a number of its own."""
    mine = ProcessIdentity.mine().birth.partition(":")[0]
    return bool(mine) and holder.birth.partition(":")[0] == mine


def _refuse_unless_expired(store: ObjectStore, former: LeaseRecord, version: Version) -> None:
    age = time.time() - former.renewed
    if 0 <= age <= former.seconds:
        raise InputError(
            f"{store.url} is held by {told(former)}: wait for it to end, or, if it was killed, for "
            f"{former.seconds - age:.0f} s"
        )
    # By our clock it has run out; a living holder would renew it within a quarter of its length.
    time.sleep(min(former.seconds, 600.0) / 2)
    again = store.read_version(LEASE, 2**16)
    if again is None or again[1] != version:
        raise InputError(f"{store.url} is held by {told(former)}, and it is renewed: wait for it to end")


def _mine(fencing: int, seconds: float) -> LeaseRecord:
    me, now = ProcessIdentity.mine(), time.time()
    return LeaseRecord(who(), me.host, me.pid, me.birth, fencing, now, now, seconds)


def _record(store: ObjectStore, data: bytes) -> LeaseRecord:
    place = f"{store.url}/{LEASE}"
    try:
        document = plain_json(data, place)
        return LeaseRecord(
            by=" ".join(str(document["by"]).split())[:100],
            host=str(document["host"]),
            pid=int(document["pid"]),
            birth=str(document["birth"]),
            fencing=int(document["fencing"]),
            since=float(document["since"]),
            renewed=float(document["renewed"]),
            seconds=float(document["seconds"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place} is damaged ({error}): remove it when no driver works there") from error


def _now() -> float:
    """Seconds that also pass while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _data(record: LeaseRecord) -> bytes:
    return json.dumps(asdict(record), sort_keys=True).encode()

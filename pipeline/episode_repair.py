"""Takes fatally damaged files out of the data: what is whole is saved, the rest is kept for a person.

For each such file one of these: it is renamed, where only its name is wrong; its frames before the damage
become a truncated episode and the file moves to quarantine; or it moves to quarantine as it is. Nothing is
deleted. Every move is a rename, so a kill at any moment loses nothing, and the next repair goes on::

    <id>.h5 (damaged) ─salvage─► <id>.h5.<pid>.salvage ─fsync, rename─► <id>.h5.repaired
    <id>.h5 (damaged) ─rename─► quarantine/<id>.h5
    <id>.h5.repaired  ─rename─► <id>.h5
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import batched
from pathlib import Path

from pipeline.durable_files import fsync_path, publish
from pipeline.episode_check import TIMEOUT_S, examine_guarded
from pipeline.episode_finding import Finding, Kind, is_fatal
from pipeline.episode_names import is_safe_id
from pipeline.episode_recovery import remove_dead_rescues, rescue_path, salvage_guarded
from pipeline.errors import InputError
from pipeline.quarantine import to_quarantine

REPAIRED_SUFFIX = ".repaired"  # of a complete rescue whose damaged original may still hold the name
_CHUNK = 32  # files that get their second look at once
_AGAIN = 3  # a second look gets this many times the time: a busy machine must not condemn a good file


class Action(StrEnum):
    """What a repair does with a file."""

    RECOVERED = "recovered"
    RENAMED = "renamed"
    CUT = "cut"
    QUARANTINED = "quarantined"
    LEFT = "left"


@dataclass(frozen=True)
class Repair:
    """What was done with ``path`` and why; ``target`` is where it, or what was saved of it, is now.

    ``rows`` is how many frames lie before the damage, at most.
    """

    action: Action
    path: Path
    target: Path | None
    reason: str
    rows: int | None = None


@contextmanager
def repairing(episodes: Path) -> Iterator[None]:
    """Held by the one process that repairs. Raises ``InputError`` while another does."""
    descriptor = os.open(episodes, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(f"another process repairs {episodes}: wait for it") from error
    finally:
        os.close(descriptor)


def finish_interrupted(episodes: Path) -> Iterator[Repair]:
    """Publishes the rescues of a repair that was killed between its last two renames; clears the rest."""
    remove_dead_rescues(episodes, "*/*")
    for rescue in sorted(episodes.glob(f"*/*.h5{REPAIRED_SUFFIX}")):
        final = rescue.with_name(rescue.name.removesuffix(REPAIRED_SUFFIX))
        if os.path.lexists(final):
            rescue.unlink()  # made from the file that is still there, or in quarantine
        else:
            publish(rescue, final)
            yield Repair(Action.CUT, final, final, "an interrupted repair was finished")


def repair_files(
    findings: Iterable[Finding],
    quarantine: Path,
    *,
    workers: int = 1,
    timeout_s: float = TIMEOUT_S,
    dry_run: bool = False,
) -> Iterator[Repair]:
    """Repairs every file that has a fatal finding, one after the other, as it goes on.

    A file is looked at once more before it is touched; one that turns out to be good, is in use, or cannot
    be read for reasons that are not its content's, is left. With ``dry_run`` says what it would do.
    """
    fatal: dict[Path, list[Finding]] = defaultdict(list)
    for finding in findings:
        if is_fatal(finding):
            fatal[finding.path].append(finding)
    if dry_run:
        yield from (_plan(path, found, quarantine) for path, found in fatal.items())
        return
    for chunk in batched(fatal.items(), _CHUNK):
        now = examine_guarded([path for path, _ in chunk], workers=workers, timeout_s=_AGAIN * timeout_s)
        for (path, found), examination in zip(chunk, now, strict=True):
            busy = _busy(path)
            again = [finding for finding in examination.findings if is_fatal(finding)]
            again += [finding for finding in found if finding.kind is Kind.DUPLICATE]
            if busy is not None:
                yield Repair(Action.LEFT, path, None, busy)
            elif not again:
                yield Repair(Action.LEFT, path, None, "it is good at a second look")
            else:
                yield _carry_out(_plan(path, again, quarantine), quarantine, timeout_s)


def _busy(path: Path) -> str | None:
    """Why a file must be left alone, whatever it holds."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another process uses it"
    except OSError as error:
        return f"cannot read it: {error.strerror}"
    return None


def _plan(path: Path, found: Sequence[Finding], quarantine: Path) -> Repair:
    """What is to be done about a file's fatal findings."""
    kinds = {finding.kind for finding in found}
    reason = "; ".join(finding.message for finding in found)
    if Kind.BARRED in kinds:
        return Repair(Action.LEFT, path, None, reason)
    rows = [finding.row for finding in found if finding.row is not None]
    final = path
    if Kind.NAME in kinds:
        episode_id = found[0].episode_id or ""
        final = path.with_name(f"{episode_id}.h5")
        if not is_safe_id(episode_id) or os.path.lexists(final):
            return Repair(Action.QUARANTINED, path, quarantine, reason)
        if kinds == {Kind.NAME}:
            return Repair(Action.RENAMED, path, final, reason)
    beyond_saving = {Kind.UNREADABLE, Kind.LAYOUT, Kind.DUPLICATE, Kind.EMPTY}
    if rows and min(rows) > 0 and not kinds & beyond_saving:
        return Repair(Action.CUT, path, final, reason, min(rows))
    return Repair(Action.QUARANTINED, path, quarantine, reason)


def _carry_out(plan: Repair, quarantine: Path, timeout_s: float) -> Repair:
    if plan.action is Action.LEFT:
        return plan
    if plan.action is Action.RENAMED and plan.target is not None:
        plan.path.rename(plan.target)
        fsync_path(plan.target.parent)
        return plan
    if plan.action is Action.CUT and plan.target is not None:
        saved = _cut(plan, plan.target, quarantine, timeout_s)
        if saved is not None:
            return saved
    moved = to_quarantine(plan.path, quarantine, plan.reason)
    return Repair(Action.QUARANTINED, plan.path, moved, plan.reason)


def _cut(plan: Repair, final: Path, quarantine: Path, timeout_s: float) -> Repair | None:
    """Replaces a file by its frames before the damage; ``None`` where those are no good either."""
    path, reason = plan.path, plan.reason
    salvaged = rescue_path(final)
    rescue = final.with_name(final.name + REPAIRED_SUFFIX)
    try:
        result = salvage_guarded(path, salvaged, row_limit=plan.rows, timeout_s=timeout_s)
        if isinstance(result, InputError) or result.saved == 0:
            return None
        [examination] = examine_guarded([salvaged], timeout_s=_AGAIN * timeout_s)
        if any(is_fatal(f) and f.kind is not Kind.NAME for f in examination.findings):
            return None
        publish(salvaged, rescue)
    finally:
        salvaged.unlink(missing_ok=True)
    moved = to_quarantine(path, quarantine, f"{reason}; its first {result.saved} frames are in {final}")
    publish(rescue, final)
    said = f"{reason}; {result.saved} of {result.rows} frames saved, the original is {moved}"
    return Repair(Action.CUT, path, final, said)

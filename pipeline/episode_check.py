"""Looks for what is wrong in recorded episodes: each by itself, then all of them together.

A *fatal* finding means that the episode must not be trained on; a *warning* that a person should look.
Every file is read in a child process, since damage can make the HDF5 library crash or hang.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from pipeline.episode_defects import Examination, examine
from pipeline.episode_file import EpisodeEntry
from pipeline.episode_finding import Finding, Kind, is_fatal, without_path
from pipeline.episode_layout import PART_SUFFIX
from pipeline.episode_names import task_slug
from pipeline.errors import InputError
from pipeline.guarded_reading import guarded_map
from pipeline.labels import LabelStore

__all__ = ["Examination", "Finding", "Kind", "check_workspace", "examine_guarded", "is_fatal"]

TIMEOUT_S = 20.0  # for a small file; reading one takes milliseconds
_BYTES_PER_S = 2e6  # slower than any disk and JPEG decoder we have met

Report = Callable[[int, int], object]


def check_workspace(
    paths: Iterable[Path],
    unfinished: Iterable[Path],
    labels_path: Path,
    *,
    tasks: Collection[str] = (),
    strays: Iterable[Path] = (),
    workers: int = 1,
    timeout_s: float = TIMEOUT_S,
    report: Report | None = None,
) -> list[Finding]:
    """Checks every episode file by itself and all of them against each other, the labels and the tasks.

    ``tasks`` are those the site knows; none means any. ``strays`` are files that nothing reads.
    ``report`` is called with the files read so far and their number. A file that takes longer than
    ``timeout_s`` (more for large ones) is taken for damaged.
    """
    examinations = examine_guarded(list(paths), workers=workers, timeout_s=timeout_s, report=report)
    findings = [finding for examination in examinations for finding in examination.findings]
    findings += _duplicates(examinations)
    entries = [examination.entry for examination in examinations if examination.entry is not None]
    findings += _unknown_tasks(entries, tasks)
    findings += _unlabelled(entries, labels_path)
    for part in unfinished:
        message = "an unfinished recording: no part of the data until it is closed or recovered"
        findings.append(Finding("warning", None, part, message, Kind.UNFINISHED))
    return findings + [_stray(path) for path in strays]


def examine_guarded(
    paths: Sequence[Path], *, workers: int = 1, timeout_s: float = TIMEOUT_S, report: Report | None = None
) -> list[Examination]:
    """:func:`pipeline.episode_defects.examine` of each file, in child processes that may crash or hang."""

    def limit_s(path: Path) -> float:
        return time_limit_s(path, timeout_s)

    examinations = []
    for path, result in guarded_map(examine, paths, workers=workers, timeout_s=limit_s):
        if isinstance(result, InputError):
            message = without_path(str(result), path)
            finding = Finding("fatal", None, path, message, Kind.UNREADABLE)
            examinations.append(Examination(path, None, (finding,)))
        else:
            examinations.append(result)
        if report is not None:
            report(len(examinations), len(paths))
    return examinations


def time_limit_s(path: Path, timeout_s: float) -> float:
    """How long reading a file may take: ``timeout_s`` seconds and more for a large one."""
    try:
        return timeout_s + path.stat().st_size / _BYTES_PER_S
    except OSError:
        return timeout_s


def _duplicates(examinations: Sequence[Examination]) -> list[Finding]:
    findings = []
    by_id: dict[str, list[Examination]] = defaultdict(list)
    by_content: dict[str, list[EpisodeEntry]] = defaultdict(list)
    for examination in examinations:
        if examination.entry is not None:
            by_id[examination.entry.id].append(examination)
            by_content[examination.entry.fingerprint].append(examination.entry)
    for episode_id, same in by_id.items():
        kept, *others = sorted(same, key=_unlikeliness)
        for other in others:
            message = f"there is another episode of this id: {kept.path}"
            findings.append(Finding("fatal", episode_id, other.path, message, Kind.DUPLICATE))
    for alike in by_content.values():
        for entry in alike[1:]:
            if entry.id != alike[0].id:
                message = f"it has the very frames of episode {alike[0].id!r}: {alike[0].path}"
                findings.append(Finding("warning", entry.id, entry.path, message, Kind.COPY))
    return findings


def _unlikeliness(examination: Examination) -> tuple[bool, bool, bool, Path]:
    """Sorts episodes of one id: first the one without damage, of the right name, in its task's folder."""
    entry, path = examination.entry, examination.path
    assert entry is not None
    damaged = any(is_fatal(finding) and finding.kind is not Kind.NAME for finding in examination.findings)
    astray = not entry.info.task.strip() or path.parent.name != task_slug(entry.info.task)
    return damaged, path.stem != entry.id, astray, path


def _unknown_tasks(entries: Sequence[EpisodeEntry], tasks: Collection[str]) -> list[Finding]:
    return [
        Finding("warning", e.id, e.path, f"its task is not in recap.toml: {e.info.task!r}", Kind.TASK)
        for e in entries
        if tasks and e.info.task not in tasks
    ]


def _stray(path: Path) -> Finding:
    if path.suffix == ".h5":
        message = (
            "lies outside the task folders, so nothing reads it: bring it in with 'recap episodes import'"
        )
    elif path.suffix in (".hdf5", ".he5", ".hdf"):
        message = "does not end in .h5, so nothing reads it: bring it in with 'recap episodes import'"
    elif path.name.endswith(f".h5{PART_SUFFIX}"):
        message = "lies outside the task folders, so nothing recovers it: move it into its task's folder"
    else:
        message = (
            "is no episode file, so nothing reads it: bring in recordings with 'recap episodes import', "
            "keep the rest elsewhere"
        )
    return Finding("warning", None, path, message, Kind.STRAY)


def _unlabelled(entries: Sequence[EpisodeEntry], labels_path: Path) -> list[Finding]:
    states: dict[str, str] = {}
    if labels_path.exists():
        with LabelStore(labels_path) as store:
            states = store.states()
    found = [(entry, states.get(entry.id, "unlabelled")) for entry in entries]
    words = {"unlabelled": "it has no label", "disputed": "annotators differ: it waits for a reviewer"}
    return [
        Finding("warning", entry.id, entry.path, words[state], Kind.UNLABELLED)
        for entry, state in found
        if state in words
    ]

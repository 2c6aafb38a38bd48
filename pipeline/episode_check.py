"""Looks for what is wrong in recorded episodes.

A *fatal* finding means that the episode must not be trained on; a *warning* that a person should look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from pipeline.episode import STATE_FIELDS, Source
from pipeline.episode_file import EpisodeEntry, EpisodeReader, read_entry
from pipeline.errors import InputError
from pipeline.labels import LabelStore

Severity = Literal["fatal", "warning"]

GAP_PERIODS = 5.0  # a pause between two steps of more control periods than this is a gap
STALE_IMAGE_S = 1.0  # an image this much older than its step shows the past
FROZEN_S = 1.0  # an image repeated for this long while the arm moves: the camera hangs
MOVED_RAD = 0.05  # by this much, in any joint, the arm has moved
BLACK_LEVEL = 4.0  # mean grey level, of 255, below which an image is black


@dataclass(frozen=True)
class Finding:
    """One thing found. ``episode_id`` is ``None`` where the file does not tell it."""

    severity: Severity
    episode_id: str | None
    path: Path
    message: str


def check_workspace(paths: Iterable[Path], unfinished: Iterable[Path], labels_path: Path) -> list[Finding]:
    """Checks every episode file by itself and all of them against each other and the labels."""
    findings: list[Finding] = []
    entries: list[EpisodeEntry] = []
    for path in paths:
        try:
            entries.append(read_entry(path))
        except InputError as error:
            findings.append(Finding("fatal", None, path, str(error)))
            continue
        findings += check_episode(path)
    findings += _duplicates(entries)
    findings += _unlabelled(entries, labels_path)
    for part in unfinished:
        message = "an unfinished recording: no part of the data until it is closed or recovered"
        findings.append(Finding("warning", None, part, message))
    return findings


def check_episode(path: Path) -> list[Finding]:
    """Everything that one readable episode file shows by itself; reads all of its frames."""
    findings: list[Finding] = []
    with EpisodeReader(path) as episode:
        info = episode.info

        def found(severity: Severity, message: str) -> None:
            findings.append(Finding(severity, info.id, path, message))

        if info.id != path.stem:
            found("fatal", f"the file is named {path.stem!r} but holds the episode {info.id!r}")
        if info.truncated:
            found("warning", "truncated: its recording was cut short")
        try:
            if len(episode) == 0:
                found("fatal", "it has no frames")
                return findings
            if episode.computed_fingerprint() != episode.fingerprint:
                found("fatal", "its frames are not those that were recorded: the file was damaged or changed")
            if episode.dropped:
                found("warning", f"{episode.dropped} frames are missing: the disk was too slow")
            for severity, message in [*_numbers(episode), *_times(episode), *_images(episode)]:
                found(severity, message)
        except InputError as error:
            found("fatal", str(error))
    return findings


def _numbers(episode: EpisodeReader) -> list[tuple[Severity, str]]:
    found: list[tuple[Severity, str]] = []
    columns = {"action": episode.actions, **{f"state {f.name}": episode.state(f.name) for f in STATE_FIELDS}}
    for name, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            found.append(("fatal", f"{name} is not finite in {_frames(bad)}"))
    sources = episode.sources
    unknown = np.flatnonzero(~np.isin(sources, [int(source) for source in Source]))
    if len(unknown):
        found.append(("fatal", f"source is none of the schema's in {_frames(unknown)}"))
    silent = np.flatnonzero((sources == Source.POLICY) & ~np.isfinite(episode.policy_actions).all(axis=1))
    if len(silent):
        found.append(("warning", f"the policy drove but its action is missing in {_frames(silent)}"))
    return found


def _times(episode: EpisodeReader) -> list[tuple[Severity, str]]:
    found: list[tuple[Severity, str]] = []
    times = episode.timestamps_ns
    steps = np.diff(times)
    backwards = np.flatnonzero(steps <= 0) + 1
    if len(backwards):
        found.append(("fatal", f"time does not move forward at {_frames(backwards)}"))
    limit_s = GAP_PERIODS / episode.info.rate_hz
    gaps = np.flatnonzero(steps > limit_s * 1e9) + 1
    if len(gaps):
        found.append(("warning", f"a gap of up to {steps.max() / 1e9:.2f} s before {_frames(gaps)}"))
    for camera in episode.info.cameras:
        taken = episode.camera_timestamps_ns(camera)
        backwards = np.flatnonzero(np.diff(taken) < 0) + 1
        if len(backwards):
            found.append(("fatal", f"camera {camera!r}: time moves backwards at {_frames(backwards)}"))
        old = np.flatnonzero(times - taken > STALE_IMAGE_S * 1e9)
        if len(old):
            found.append(("warning", f"camera {camera!r}: the image is over 1 s old in {_frames(old)}"))
    return found


def _images(episode: EpisodeReader) -> list[tuple[Severity, str]]:
    found: list[tuple[Severity, str]] = []
    joints = episode.state("joint_positions")
    for camera in episode.info.cameras:
        jpegs = episode.jpegs(camera)
        # An eighth of the resolution is enough to see black, and JPEG gives it cheaply.
        small = [cv2.imdecode(jpeg, cv2.IMREAD_REDUCED_GRAYSCALE_8) if len(jpeg) else None for jpeg in jpegs]
        damaged = np.array([i for i, image in enumerate(small) if image is None], dtype=int)
        if len(damaged):
            found.append(("fatal", f"camera {camera!r}: the image cannot be decoded in {_frames(damaged)}"))
        black = np.array(
            [i for i, m in enumerate(small) if m is not None and m.mean() < BLACK_LEVEL], dtype=int
        )
        if len(black):
            severity: Severity = "fatal" if len(black) == len(jpegs) else "warning"
            found.append((severity, f"camera {camera!r}: black in {_frames(black)}"))
        start, end = _longest_frozen(jpegs, joints)
        if (end - start) / episode.info.rate_hz >= FROZEN_S:
            severity = "fatal" if end - start == len(jpegs) - 1 else "warning"
            found.append(
                (severity, f"camera {camera!r}: frozen in frames {start} to {end} though the arm moves")
            )
    return found


def _longest_frozen(jpegs: list[np.ndarray], joints: np.ndarray) -> tuple[int, int]:
    """First and last frame of the longest run of one same image in which the arm moved; (0, 0) if none."""
    longest = (0, 0)
    start = 0
    for i in range(1, len(jpegs) + 1):
        if i < len(jpegs) and np.array_equal(jpegs[i], jpegs[start]):
            continue
        end = i - 1
        moved = np.ptp(joints[start:i], axis=0).max() > MOVED_RAD
        if moved and end - start > longest[1] - longest[0]:
            longest = (start, end)
        start = i
    return longest


def _duplicates(entries: list[EpisodeEntry]) -> list[Finding]:
    findings = []
    by_id: dict[str, list[EpisodeEntry]] = defaultdict(list)
    by_content: dict[str, list[EpisodeEntry]] = defaultdict(list)
    for entry in entries:
        by_id[entry.id].append(entry)
        by_content[entry.fingerprint].append(entry)
    for same in by_id.values():
        for entry in same[1:]:
            message = f"there is another episode of this id: {same[0].path}"
            findings.append(Finding("fatal", entry.id, entry.path, message))
    for same in by_content.values():
        for entry in same[1:]:
            if entry.id != same[0].id:
                message = f"it has the very frames of episode {same[0].id!r}: {same[0].path}"
                findings.append(Finding("warning", entry.id, entry.path, message))
    return findings


def _unlabelled(entries: list[EpisodeEntry], labels_path: Path) -> list[Finding]:
    labels = {}
    if labels_path.exists():
        with LabelStore(labels_path) as store:
            labels = store.current()
    return [Finding("warning", e.id, e.path, "it has no label") for e in entries if e.id not in labels]


def _frames(indices: np.ndarray) -> str:
    """``frame 3`` or ``5 frames, first 3``."""
    return f"frame {indices[0]}" if len(indices) == 1 else f"{len(indices)} frames, first {indices[0]}"

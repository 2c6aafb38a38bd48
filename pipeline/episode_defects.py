"""What one episode file shows by itself: its layout, numbers, times and images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.episode import ACTION_FIELD, EpisodeInfo, Source
from pipeline.episode_file import EpisodeEntry, read_entry
from pipeline.episode_finding import CUT_FROM, Finding, Found, Kind, Severity, without_path
from pipeline.episode_layout import LOCKING, NO_SOURCE
from pipeline.episode_scan import Scan, scan_rows
from pipeline.episode_shapes import layout_defects, stored_size
from pipeline.errors import InputError

GAP_PERIODS = 5.0  # a pause between two steps of more control periods than this is a gap
STALE_IMAGE_S = 1.0  # an image this much older than its step shows the past
FROZEN_S = 1.0  # an image repeated for this long while the arm moves: the camera hangs
MOVED_RAD = 0.05  # by this much, in any joint, the arm has moved
MOVED_M = 0.02  # or the tool by this much, where joint angles are missing
BLACK_LEVEL = 4.0  # mean grey level, of 255, below which an image is black
JOINT_LIMIT_RAD = 8 * np.pi  # unwrapped, an arm that turns a few times stays below; degrees do not
TWIST_LIMITS = (5.0, 25.0)  # m/s and rad/s, several times what any arm is allowed
CLIPPED_S = 1.0  # an action component at its very largest magnitude for this long at a stretch, ...
CLIPPED_SHARE = 0.25  # ... in this share of the frames in which it is not zero, ...
CLIPPED_VALUES = 8  # ... though it takes this many other values (keys have one speed, and nothing is lost)


@dataclass(frozen=True)
class Examination:
    """What :func:`examine` learnt of a file; ``entry`` is ``None`` where it is no readable episode."""

    path: Path
    entry: EpisodeEntry | None
    findings: tuple[Finding, ...]


def examine(path: Path) -> Examination:
    """Everything that one file shows by itself; reads all of its frames.

    Damage can make the HDF5 library crash or hang: run it through :func:`guarded_reading.guarded_map`.
    """
    try:
        if not path.is_file():
            return _refused(path, Kind.UNREADABLE, f"{path} {_what(path)}, no episode")
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:  # permissions, or the disk: no matter of the content
        return _refused(path, Kind.BARRED, f"cannot read {path}: {error.strerror}")
    try:
        entry = read_entry(path)
    except InputError as error:
        # A lock is no damage: somebody writes, or has not finished.
        locked = "unable to lock file" in str(error)
        return _refused(path, Kind.BARRED if locked else Kind.UNREADABLE, " ".join(str(error).split()))
    findings = [
        Finding(severity, entry.id, path, message, kind, row)
        for severity, kind, message, row in _defects(entry)
    ]
    return Examination(path, entry, tuple(findings))


def _refused(path: Path, kind: Kind, message: str) -> Examination:
    return Examination(path, None, (Finding("fatal", None, path, without_path(message, path), kind),))


def _what(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    return "is a link to nowhere" if path.is_symlink() else "is no regular file"


def _defects(entry: EpisodeEntry) -> Found:
    info = entry.info
    if info.id != entry.path.stem:
        yield (
            "fatal",
            Kind.NAME,
            f"the file is named {entry.path.stem!r} but holds the episode {info.id!r}",
            None,
        )
    if info.truncated:
        yield "warning", Kind.TRUNCATED, "truncated: its recording was cut short", None
    if CUT_FROM in info.extra:
        message = "cut from a damaged recording: its frames could not be verified, look at it or exclude it"
        yield "warning", Kind.CUT, message, None
    with h5py.File(entry.path, "r", locking=LOCKING) as file:
        layout = list(layout_defects(file, info))
        yield from layout
        if any(kind is Kind.LAYOUT for _, kind, _, _ in layout):
            return
        if entry.length == 0:
            yield "fatal", Kind.EMPTY, "it has no frames", None
            return
        dropped = int(file.attrs["dropped"])
        if dropped:
            lost = "1 frame is" if dropped == 1 else f"{dropped} frames are"
            yield "warning", Kind.DROPPED, f"{lost} missing: the disk was too slow", None
        scan = scan_rows(file, info)
        sizes = {camera: stored_size(file, camera) for camera in info.cameras}
    if scan.error is not None:
        yield "fatal", Kind.ROWS, f"damaged: frame {scan.length} cannot be read: {scan.error}", scan.length
    if scan.fingerprint != entry.fingerprint:
        message = "its frames are not those that were recorded: the file was damaged or changed"
        yield "fatal", Kind.CHANGED, message, None
    if scan.length:
        yield from _numbers(scan, info)
        yield from _implausible(scan)
        yield from _times(scan, info)
        yield from _images(scan, info, sizes)
        yield from _clipped(scan, info)
    if info.missing_for_training:
        lacks = ", ".join(info.missing_for_training)
        yield "warning", Kind.MISSING, f"it lacks {lacks}: it can be seen and labelled, not trained on", None
    elif info.missing:
        yield "warning", Kind.MISSING, f"it lacks {', '.join(info.missing)}", None


def _numbers(scan: Scan, info: EpisodeInfo) -> Found:
    columns = {"action": scan.actions, **{f"state {name}": values for name, values in scan.state.items()}}
    for name, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad) and name.removeprefix("state ") not in info.missing:
            yield "fatal", Kind.NUMBERS, f"{name} is not finite in {frames_text(bad)}", None
    unknown = np.flatnonzero(~np.isin(scan.sources, [int(source) for source in Source]))
    if len(unknown):
        unfilled = scan.sources[unknown[0]] == NO_SOURCE
        message = f"source is none of the schema's in {frames_text(unknown)}"
        yield "fatal", Kind.ROWS if unfilled else Kind.NUMBERS, message, int(unknown[0]) if unfilled else None
    silent = np.flatnonzero((scan.sources == Source.POLICY) & ~np.isfinite(scan.policy_actions).all(axis=1))
    # While a policy that is too slow has nothing to say, the arm is held; the recorder counts these frames.
    if len(silent) and len(silent) != info.extra.get("starved_steps"):
        message = f"the policy drove but its action is missing in {frames_text(silent)}"
        yield "warning", Kind.NUMBERS, message, None


def _implausible(scan: Scan) -> Found:
    """Numbers that are finite but of no arm: most likely in another unit."""
    linear, angular = TWIST_LIMITS
    for name, values, limit, unit, why in (
        ("joint position", scan.state["joint_positions"], JOINT_LIMIT_RAD, "rad", ": it looks like degrees"),
        ("linear action", scan.actions[:, :3], linear, "m/s", ": no arm moves so fast"),
        ("angular action", scan.actions[:, 3:6], angular, "rad/s", ": no arm turns so fast"),
    ):
        sizes = np.where(np.isfinite(values), np.abs(values), 0).max(axis=1)
        bad = np.flatnonzero(sizes > limit)
        if len(bad):
            message = f"{name} of up to {sizes.max():.3g} {unit} in {frames_text(bad)}{why}"
            yield "warning", Kind.NUMBERS, message, None


def _after_pauses(info: EpisodeInfo) -> list[int]:
    """The frames before which the operator paused, as the recorder noted it; a file may also say nonsense."""
    pauses = info.extra.get("pauses")
    entries = pauses if isinstance(pauses, list) else []
    noted = [entry.get("before_frame") for entry in entries if isinstance(entry, dict)]
    return [frame for frame in noted if isinstance(frame, int)]


def _times(scan: Scan, info: EpisodeInfo) -> Found:
    steps = np.diff(scan.times_ns)
    backwards = np.flatnonzero(steps <= 0) + 1
    if len(backwards):
        yield "fatal", Kind.TIME, f"time does not move forward at {frames_text(backwards)}", None
    if not np.isfinite(info.rate_hz) or info.rate_hz <= 0:
        yield "fatal", Kind.TIME, f"its rate is {info.rate_hz:g} Hz", None
    else:
        gaps = np.flatnonzero(steps > GAP_PERIODS / info.rate_hz * 1e9) + 1
        gaps = gaps[~np.isin(gaps, _after_pauses(info))]
        if len(gaps):
            message = f"a gap of up to {steps.max() / 1e9:.2f} s before {frames_text(gaps)}"
            yield "warning", Kind.TIME, message, None
    for camera, images in scan.cameras.items():
        taken = np.array(images.taken_ns, np.int64)
        backwards = np.flatnonzero(np.diff(taken) < 0) + 1
        if len(backwards):
            message = f"camera {camera!r}: time moves backwards at {frames_text(backwards)}"
            yield "fatal", Kind.TIME, message, None
        old = np.flatnonzero(scan.times_ns - taken > STALE_IMAGE_S * 1e9)
        if len(old):
            message = f"camera {camera!r}: the image is over 1 s old in {frames_text(old)}"
            yield "warning", Kind.CAMERA, message, None


def _images(scan: Scan, info: EpisodeInfo, sizes: dict[str, tuple[int, int] | None]) -> Found:
    for camera, images in scan.cameras.items():
        grey = np.array(images.grey)
        damaged = np.flatnonzero(np.isnan(grey))
        if len(damaged):
            message = f"camera {camera!r}: the image cannot be decoded in {frames_text(damaged)}"
            yield "fatal", Kind.ROWS, message, int(damaged[0])
        others = {size: row for size, row in images.sizes.items() if size != sizes[camera]}
        if others:
            (height, width), row = min(others.items(), key=lambda item: item[1])
            stored = sizes[camera]
            said = "no size is stored" if stored is None else f"the stored size is {stored[0]}×{stored[1]}"
            message = f"camera {camera!r}: the image of frame {row} is {height}×{width} but {said}"
            # Where all images are of one size it is the note of it that is damaged, and every frame is whole.
            same = len(images.sizes) == 1
            row = scan.length if same else sorted(images.sizes.values())[1]
            yield "fatal", Kind.ROWS, message, row
        black = np.flatnonzero(grey < BLACK_LEVEL)
        if len(black):
            severity: Severity = "fatal" if len(black) == scan.length else "warning"
            yield severity, Kind.CAMERA, f"camera {camera!r}: black in {frames_text(black)}", None
        frozen = [run for run in images.still if _moved(scan, info, *run)]
        start, end = max(frozen, key=lambda run: run[1] - run[0], default=(0, 0))
        if (end - start) / info.rate_hz >= FROZEN_S:
            severity = "fatal" if end - start == scan.length - 1 else "warning"
            message = f"camera {camera!r}: frozen in frames {start} to {end} though the arm moves"
            yield severity, Kind.CAMERA, message, None


def _moved(scan: Scan, info: EpisodeInfo, first: int, last: int) -> bool:
    """Whether the arm moved between two frames; ``False`` where the recording does not tell."""
    rows = slice(first, last + 1)
    if "joint_positions" not in info.missing:
        return bool(np.ptp(scan.state["joint_positions"][rows], axis=0).max() > MOVED_RAD)
    if "tool_pose" not in info.missing:
        return bool(np.ptp(scan.state["tool_pose"][rows, :3], axis=0).max() > MOVED_M)
    return False


def _clipped(scan: Scan, info: EpisodeInfo) -> Found:
    """Twist components that stay at their limit: what the person or policy wanted beyond it is lost.

    The gripper's target is left out, since it is at 0 or 1 most of the time by its nature.
    """
    if ACTION_FIELD.name in info.missing:
        return
    for component, name in enumerate(ACTION_FIELD.component_names[:-1]):
        size = np.abs(scan.actions[:, component])
        moving = np.isfinite(size) & (size > 0)
        if not moving.any():
            continue
        top = moving & (size == size[moving].max())
        values = len(np.unique(size[moving])) - 1
        share = top.sum() / moving.sum()
        if share >= CLIPPED_SHARE and values >= CLIPPED_VALUES and _longest(top) >= CLIPPED_S * info.rate_hz:
            message = f"action {name} is clipped at {size[top][0]:.3g} in {frames_text(np.flatnonzero(top))}"
            yield "warning", Kind.CLIPPED, message, None


def _longest(marks: np.ndarray) -> int:
    """The length of the longest run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], marks, [False]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def frames_text(indices: np.ndarray) -> str:
    """``frame 3`` or ``5 frames, first 3``."""
    return f"frame {indices[0]}" if len(indices) == 1 else f"{len(indices)} frames, first {indices[0]}"

"""One episode of another format, as its reader gives it: columns in memory, images one by one.

A reader says what is in a recording, in the recording's own names and units. What the columns mean in our
schema is a :class:`pipeline.exchange.column_mapping.ColumnMapping`; the reader proposes one in
``ForeignEpisode.mapping`` where its format fixes the meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.exchange.column_mapping import ColumnMapping
from pipeline.lerobot_language import Subtask

Images = Callable[[], Iterator[np.ndarray]]
"""Starts to read a camera: H×W×3 uint8 RGB images, one a frame, from the first."""

_MAX_COLUMN_BYTES = 2 << 30


@dataclass(frozen=True)
class EpisodeReference:
    """Where one episode of another format is; small, so that another process can be told to read it.

    ``key`` names the episode in ``path``: a group of a file, a number, or nothing where the path is one
    episode. ``size_bytes`` is about what has to be read.
    """

    format: str
    path: Path
    key: str = ""
    size_bytes: int = 0

    def __str__(self) -> str:
        """How messages call it."""
        return f"{self.path} {self.key}".rstrip()


@dataclass(frozen=True)
class ForeignEpisode:
    """An episode of another format with T frames.

    ``dataset`` and ``name`` say which it is, stable from one import to the next. ``columns`` are (T, ...)
    arrays of numbers or booleans as recorded, by the format's own names; ``component_names`` those of a
    column's components, where known. ``tasks`` are the texts that occur, the most frequent first.
    ``sources`` (T,) uint8 are :class:`pipeline.episode.Source` codes; ``times_ns`` (T,) int64 and
    ``camera_times_ns`` nanoseconds since 1970, ``step_times_s`` (T,) seconds since the episode's start;
    ``subtasks`` those that the recording was annotated with, in order.

    A recording that we wrote ourselves also has ``restored``: fields of our schema exactly as they were, by
    name (``tool_pose``, ``action``, ``policy_action``, ...); ``restored_info``: the episode's attributes,
    ``fingerprint`` among them; and ``own_columns``: the columns in which all that lies, which need not be
    kept besides. ``notes`` say what is left out, ``why_no_action`` why the format's mapping has no action.
    """

    format: str
    dataset: str
    name: str
    tasks: tuple[str, ...]
    rate_hz: float
    length: int
    columns: Mapping[str, np.ndarray]
    cameras: Mapping[str, Images]
    mapping: ColumnMapping
    component_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    robot: str | None = None
    operator: str | None = None
    created: str | None = None
    sources: np.ndarray | None = None
    outcome_mark: str | None = None
    truncated: bool = False
    policy_checkpoint: str | None = None
    times_ns: np.ndarray | None = None
    camera_times_ns: Mapping[str, np.ndarray] = field(default_factory=dict)
    step_times_s: np.ndarray | None = None
    subtasks: tuple[Subtask, ...] = ()
    restored: Mapping[str, np.ndarray] = field(default_factory=dict)
    restored_info: Mapping[str, Any] = field(default_factory=dict)
    own_columns: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    why_no_action: str = ""

    def __post_init__(self) -> None:
        """Raises ``InputError`` for an empty episode and for columns that do not have T rows."""
        if self.length < 1:
            raise InputError("it has no frames")
        if not np.isfinite(self.rate_hz) or not 0 < self.rate_hz <= 10_000:
            raise InputError(f"its rate of {self.rate_hz} frames a second makes no sense")
        for name, values in {**self.columns, **self.restored, **self.camera_times_ns}.items():
            if values.ndim < 1 or len(values) != self.length:
                raise InputError(f"column {name!r} has shape {values.shape} in {self.length} frames")

    @cached_property
    def content_hash(self) -> str:
        """10 hexadecimal digits of everything but the pixels: names, numbers, texts, cameras."""
        digest = blake2b(digest_size=5)
        parts = [self.tasks, self.rate_hz, self.length, tuple(sorted(self.cameras))]
        digest.update(repr(parts).encode(errors="surrogatepass"))
        for name in sorted(self.columns):
            values = np.ascontiguousarray(self.columns[name])
            digest.update(f"\n{name} {values.dtype.str} {values.shape}\n".encode(errors="surrogatepass"))
            digest.update(values.tobytes())
        return digest.hexdigest()

    def episode_id(self) -> str:
        """The id that the episode gets here: the same for the same data, whatever the mapping."""
        if "id" in self.restored_info:
            return str(self.restored_info["id"])
        return f"{name_slug(f'{self.format}-{self.dataset}-{self.name}')[:100]}-{self.content_hash}"


def name_slug(text: str) -> str:
    """``text`` with only what an episode's id may hold; never empty, never beginning with a dot."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._") or "unnamed"


def camera_name(text: str) -> str:
    """A camera's name for us: letters, digits and ``_``, without the format's prefixes and suffixes."""
    last = text.removeprefix("observation.images.").removeprefix("observation.").split("/")[-1]
    short = last.removesuffix("_image").removesuffix("_rgb")
    return re.sub(r"\W+", "_", short or last, flags=re.ASCII).strip("_") or "camera"


def check_size(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises ``InputError`` for a column that no recording holds, such as a damaged length says."""
    count = 1
    for side in shape:
        count *= int(side)
    if count * dtype.itemsize > _MAX_COLUMN_BYTES:
        raise InputError(f"column {name!r} claims {shape} values of {dtype}: it is damaged")


def success_mark(columns: Mapping[str, np.ndarray], names: tuple[str, ...]) -> str | None:
    """``success`` or ``failure`` from the first of the columns of flags ``names`` that is there."""
    for name in names:
        if name in columns and columns[name].dtype.kind in "biuf":
            return "success" if bool((np.nan_to_num(columns[name]) > 0).any()) else "failure"
    return None

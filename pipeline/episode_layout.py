"""How an episode lies in an HDF5 file: groups, datasets, attributes, and the fingerprint of its rows.

::

    /  attributes: schema_version, id, task, operator, robot, ... (see docs/episode-format.md)
    observation/state/<field>          float32 (T, k)   one dataset for each of ``episode.STATE_FIELDS``
    observation/images/<camera>        vlen uint8 (T,)  JPEG bytes; attributes height, width
    action                             float32 (T, 7)   what was sent
    policy_action                      float32 (T, 7)   what the policy wanted; NaN where none ran
    source                             uint8 (T,)       ``episode.Source``
    timestamp_ns                       int64 (T,)
    camera_timestamp_ns/<camera>       int64 (T,)
    foreign/<name>                     (T, ...)         columns of an imported recording, as they were

Rows that were never written read back as the fill values (NaN, 255, -1), which no recorded row has in
``source`` or a timestamp: that is how recovery tells the rows that reached the disk from the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from pipeline.episode import ACTION_FIELD, STATE_FIELDS
from pipeline.errors import InputError

# Files written with these bounds could be opened after every SIGKILL tried; with "latest" none could.
LIBVER = ("v108", "v108")
# HDF5's own lock: a writer holds its file exclusively, so recovery cannot take it for an orphan.
LOCKING = "best-effort"

PART_SUFFIX = ".part"  # of a file that is still being recorded, or whose recorder died

FOREIGN = "foreign"  # the group of what was imported and has no place in the schema

NO_SOURCE = 255
NO_TIMESTAMP = -1

_ROWS_PER_CHUNK = 64
_COLUMN_TYPES: dict[str, tuple[tuple[int, ...], np.dtype]] = {
    **{f"observation/state/{f.name}": (f.shape, np.dtype(f.dtype)) for f in STATE_FIELDS},
    **dict.fromkeys(("action", "policy_action"), (ACTION_FIELD.shape, np.dtype(ACTION_FIELD.dtype))),
    "source": ((), np.dtype("uint8")),
}


@dataclass(frozen=True)
class Row:
    """One frame as it is stored: arrays of the schema's dtype, images as JPEG bytes (uint8, 1-D)."""

    state: dict[str, np.ndarray]
    jpegs: dict[str, np.ndarray]
    action: np.ndarray
    policy_action: np.ndarray
    source: int
    timestamp_ns: int
    camera_timestamp_ns: dict[str, int]


def create_datasets(file: h5py.File, cameras: Sequence[str]) -> None:
    """Creates every dataset of the layout with no rows."""

    def create(name: str, shape: tuple[int, ...], dtype: Any, fill: Any) -> h5py.Dataset:
        return file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(_ROWS_PER_CHUNK, *shape),
            dtype=dtype,
            fillvalue=fill,
        )

    for state_field in STATE_FIELDS:
        dataset = create(
            f"observation/state/{state_field.name}", state_field.shape, state_field.dtype, np.nan
        )
        dataset.attrs["unit"] = state_field.unit
        dataset.attrs["frame"] = state_field.frame
        dataset.attrs["names"] = list(state_field.component_names)
    for name in ("action", "policy_action"):
        dataset = create(name, ACTION_FIELD.shape, ACTION_FIELD.dtype, np.nan)
        dataset.attrs["unit"] = ACTION_FIELD.unit
        dataset.attrs["frame"] = ACTION_FIELD.frame
        dataset.attrs["names"] = list(ACTION_FIELD.component_names)
    create("source", (), "uint8", NO_SOURCE)
    create("timestamp_ns", (), "int64", NO_TIMESTAMP)
    for camera in cameras:
        create(f"observation/images/{camera}", (), h5py.vlen_dtype(np.dtype("uint8")), None)
        create(f"camera_timestamp_ns/{camera}", (), "int64", NO_TIMESTAMP)


def column_type(name: str) -> tuple[tuple[int, ...], np.dtype | None]:
    """The shape of one row of a dataset and its dtype; ``None`` where the schema does not fix it."""
    if name.startswith(f"{FOREIGN}/"):
        return (), None
    if name.startswith("observation/images/"):
        return (), np.dtype(object)  # as h5py gives sequences of varying length
    return _COLUMN_TYPES.get(name, ((), np.dtype("int64")))  # timestamps


def write_image_shapes(file: h5py.File, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Notes each camera's height and width (pixels) beside its images, for readers that decode nothing."""
    for camera, shape in shapes.items():
        file[f"observation/images/{camera}"].attrs["height"] = shape[0]
        file[f"observation/images/{camera}"].attrs["width"] = shape[1]


def write_foreign(file: h5py.File, columns: Mapping[str, np.ndarray]) -> None:
    """Keeps numeric columns of another format, as they are, beside ours; a name's "/" make groups.

    Raises ``InputError`` for a column that is not numeric or boolean, or of a name that HDF5 cannot take.
    """
    for name, values in columns.items():
        if values.dtype.kind not in "biuf":
            raise InputError(f"foreign column {name!r} is {values.dtype}: only numbers can be kept")
        parts = name.split("/")
        if not all(parts) or {".", ".."} & set(parts) or not is_storable(name):
            raise InputError(f"foreign column {name!r} has a name that HDF5 cannot take")
        try:
            file.create_dataset(f"{FOREIGN}/{name}", data=values)
        except ValueError as error:  # a name that is also another's group
            raise InputError(f"foreign column {name!r} cannot be kept: {error}") from error


def read_foreign_names(file: h5py.File) -> tuple[str, ...]:
    """The names that :func:`write_foreign` was given, sorted."""
    names: list[str] = []
    if FOREIGN in file:
        file[FOREIGN].visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
    return tuple(sorted(names))


def append_rows(file: h5py.File, rows: Sequence[Row]) -> None:
    """Appends ``rows`` to every dataset. One write a dataset: batches cost far less than single rows."""
    if not rows:
        return
    start = len(file["timestamp_ns"])

    def extend(name: str, values: np.ndarray) -> None:
        dataset = file[name]
        dataset.resize(start + len(rows), axis=0)
        dataset[start:] = values

    for state_field in STATE_FIELDS:
        extend(f"observation/state/{state_field.name}", np.stack([r.state[state_field.name] for r in rows]))
    for camera in rows[0].jpegs:
        _extend_jpegs(file[f"observation/images/{camera}"], start, [r.jpegs[camera] for r in rows])
        times = [r.camera_timestamp_ns[camera] for r in rows]
        extend(f"camera_timestamp_ns/{camera}", np.array(times, dtype=np.int64))
    extend("action", np.stack([r.action for r in rows]))
    extend("policy_action", np.stack([r.policy_action for r in rows]))
    extend("source", np.array([r.source for r in rows], dtype=np.uint8))
    # Last, since its length is the episode's.
    extend("timestamp_ns", np.array([r.timestamp_ns for r in rows], dtype=np.int64))


def _extend_jpegs(dataset: h5py.Dataset, start: int, jpegs: list[np.ndarray]) -> None:
    # Below h5py's indexing, which takes JPEGs that happen to have one length for a matrix and fails.
    values = np.empty(len(jpegs), dtype=dataset.dtype)
    for i, jpeg in enumerate(jpegs):
        values[i] = jpeg
    dataset.resize(start + len(jpegs), axis=0)
    target = dataset.id.get_space()
    target.select_hyperslab((start,), (len(jpegs),))
    dataset.id.write(h5py.h5s.create_simple((len(jpegs),)), target, values)


def iterate_rows(file: h5py.File, cameras: Sequence[str], rows_per_read: int = 64) -> Iterator[Row]:
    """The rows in order, whether or not they were ever filled, as many as the shortest dataset has.

    Raises what h5py raises (``OSError``, ``RuntimeError``, ``KeyError``) at the first that is unreadable.
    """
    states = {f.name: file[f"observation/state/{f.name}"] for f in STATE_FIELDS}
    images = {c: file[f"observation/images/{c}"] for c in cameras}
    camera_times = {c: file[f"camera_timestamp_ns/{c}"] for c in cameras}
    single = [file[name] for name in ("action", "policy_action", "source", "timestamp_ns")]
    datasets = [*states.values(), *images.values(), *camera_times.values(), *single]
    length = min(len(dataset) for dataset in datasets)
    for start in range(0, length, rows_per_read):
        rows = slice(start, min(start + rows_per_read, length))
        actions, policy_actions, sources, times = (dataset[rows] for dataset in single)
        state_values = {name: dataset[rows] for name, dataset in states.items()}
        jpegs = {camera: dataset[rows] for camera, dataset in images.items()}
        taken = {camera: dataset[rows] for camera, dataset in camera_times.items()}
        for i in range(len(times)):
            yield Row(
                state={name: values[i] for name, values in state_values.items()},
                jpegs={camera: np.asarray(values[i], dtype=np.uint8) for camera, values in jpegs.items()},
                action=actions[i],
                policy_action=policy_actions[i],
                source=int(sources[i]),
                timestamp_ns=int(times[i]),
                camera_timestamp_ns={camera: int(values[i]) for camera, values in taken.items()},
            )


class Fingerprint:
    """A running hash of an episode's rows: equal rows give equal fingerprints, however they were batched."""

    def __init__(self) -> None:
        """Starts with no rows."""
        self._hash = hashlib.blake2b(digest_size=16)

    def update(self, row: Row) -> None:
        """Adds one row."""
        for state_field in STATE_FIELDS:
            self._hash.update(np.ascontiguousarray(row.state[state_field.name], dtype="<f4").tobytes())
        for action in (row.action, row.policy_action):
            self._hash.update(np.ascontiguousarray(action, dtype="<f4").tobytes())
        self._hash.update(np.array([row.source, row.timestamp_ns], dtype="<i8").tobytes())
        for camera in sorted(row.jpegs):
            jpeg = row.jpegs[camera]
            header = np.array([row.camera_timestamp_ns[camera], len(jpeg)], dtype="<i8")
            self._hash.update(camera.encode() + b"\0" + header.tobytes())
            self._hash.update(jpeg.tobytes())

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._hash.hexdigest()


def plain_reason(error: Exception) -> str:
    """What h5py said of a file in one line, in plain words where people meet it often."""
    text = " ".join(str(error).split())  # may hold a line break, from the file's date
    if "file signature not found" in text:
        return "it is not an HDF5 file"
    return "it is cut short" if "truncated file" in text else text


def is_storable(text: str) -> bool:
    """Whether HDF5 can hold ``text``: UTF-8 without NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text

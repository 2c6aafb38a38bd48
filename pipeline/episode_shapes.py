"""An episode file's datasets against the schema: there, of the right type and shape, equally long?"""

from __future__ import annotations

import h5py
import numpy as np

from pipeline.episode import ACTION_FIELD, OPTIONAL_FIELDS, STATE_FIELDS, EpisodeInfo
from pipeline.episode_finding import Found, Kind
from pipeline.episode_scan import READ_ERRORS

_VARIABLE = "variable-length uint8"


def layout_defects(file: h5py.File, info: EpisodeInfo) -> Found:
    """Every dataset against the schema, and their lengths against each other."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        **{f"observation/state/{f.name}": (f.shape, f.dtype) for f in STATE_FIELDS},
        **dict.fromkeys(("action", "policy_action"), (ACTION_FIELD.shape, ACTION_FIELD.dtype)),
        "source": ((), "uint8"),
        "timestamp_ns": ((), "int64"),
        **{f"camera_timestamp_ns/{camera}": ((), "int64") for camera in info.cameras},
        **{f"observation/images/{camera}": ((), _VARIABLE) for camera in info.cameras},
    }
    lengths: dict[str, int] = {}
    for name, (shape, dtype) in expected.items():
        problem = _problem(file, name, shape, dtype, lengths)
        if problem is not None:
            yield "fatal", Kind.LAYOUT, problem, None
    try:
        int(file.attrs["dropped"])
    except READ_ERRORS:
        yield "fatal", Kind.LAYOUT, "attribute 'dropped' is missing or bad", None
    unknown = sorted(set(info.missing) - set(OPTIONAL_FIELDS))
    if unknown:
        yield "fatal", Kind.LAYOUT, f"attribute 'missing' names no field of the schema: {unknown[0]!r}", None
    if not isinstance(info.extra, dict):
        yield "fatal", Kind.LAYOUT, "attribute 'extra' is not a JSON object", None
    if not lengths:
        return
    shortest = min(lengths, key=lambda name: lengths[name])
    longest = max(lengths, key=lambda name: (lengths[name], name == "timestamp_ns"))
    if lengths[shortest] != lengths[longest]:
        message = f"{shortest} has {lengths[shortest]} rows but {longest} has {lengths[longest]}"
        yield "fatal", Kind.ROWS, message, lengths[shortest]


def _problem(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: str, lengths: dict[str, int]
) -> str | None:
    """What is wrong with one dataset; adds its length to ``lengths``."""
    try:
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            return f"{name} is a group, not a dataset"
        found = _type_text(dataset.dtype)
        if found != dtype or dataset.ndim != 1 + len(shape) or dataset.shape[1:] != shape:
            expected = ", ".join(["T", *map(str, shape)])
            return f"{name} is {found} {dataset.shape}, expected {dtype} ({expected})"
        # Each stored row takes at least a byte: a damaged length must not be believed.
        if len(dataset) > file.id.get_filesize():
            return f"{name} claims {len(dataset)} rows, more than the file can hold"
        lengths[name] = len(dataset)
    except READ_ERRORS as error:
        return f"{name} cannot be read: {' '.join(str(error).split())}"
    return None


def _type_text(dtype: np.dtype) -> str:
    base = h5py.check_vlen_dtype(dtype)
    return str(dtype) if base is None else f"variable-length {base}"


def stored_size(file: h5py.File, camera: str) -> tuple[int, int] | None:
    """A camera's (height, width) in pixels as noted beside its images; ``None`` if that is missing or bad."""
    attributes = file[f"observation/images/{camera}"].attrs
    try:
        return int(attributes["height"]), int(attributes["width"])
    except READ_ERRORS:
        return None

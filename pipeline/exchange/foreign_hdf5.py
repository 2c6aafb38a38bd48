"""Reads HDF5 files of other projects: numeric columns, attributes, streams of images.

Every error of the HDF5 library becomes an ``InputError`` of one line. A damaged file can also crash the
library or never end, so what is here runs in the children of :mod:`pipeline.guarded_reading`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from pipeline.errors import InputError
from pipeline.exchange.foreign_episode import check_size

_BLOCK_BYTES = 8 << 20
_MIN_PIXELS = 16  # a side: smaller tables of numbers are no pictures
_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, MemoryError)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading. What goes wrong with it meanwhile is an ``InputError``."""
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except _ERRORS as error:
        raise InputError(f"{path} is damaged or not what it seems: {' '.join(str(error).split())}") from error


def numeric_columns(group: h5py.Group, length: int, skip: tuple[str, ...] = ()) -> tuple[dict, list[str]]:
    """All datasets of numbers with ``length`` rows below ``group``, by path; and the paths of the others.

    Groups and datasets in ``skip`` (paths) are passed over. Pictures of any kind, depth too, are among the
    others. Raises ``InputError`` for a size that no recording has.
    """
    columns: dict[str, np.ndarray] = {}
    others: list[str] = []

    def visit(inner: h5py.Group, prefix: str) -> None:
        for name in inner:
            path = f"{prefix}{name}"
            item = inner[name]
            if path in skip:
                continue
            if isinstance(item, h5py.Group):
                visit(item, f"{path}/")
            elif item.dtype.kind not in "biuf" or item.ndim < 1 or len(item) != length or _is_pixels(item):
                others.append(path)
            else:
                check_size(path, item.shape, item.dtype)
                columns[path] = item[:]

    visit(group, "")
    return columns, others


def _is_pixels(item: h5py.Dataset) -> bool:
    return item.ndim >= 3 and min(item.shape[1:3]) >= _MIN_PIXELS


def is_images(item: Any, length: int) -> bool:
    """Whether a dataset holds ``length`` colour images: raw H×W×3 uint8, or encoded, one a row."""
    if not isinstance(item, h5py.Dataset) or item.ndim < 1 or len(item) != length:
        return False
    if item.dtype == np.uint8 and item.ndim == 4:
        return bool(item.shape[3] == 3)
    if item.dtype == np.uint8 and item.ndim == 2:
        return bool(item.shape[1] > 64)
    return item.ndim == 1 and (item.dtype.kind in "SV" or h5py.check_vlen_dtype(item.dtype) is not None)


def stream_images(path: Path, name: str, swap: bool = False) -> Iterator[np.ndarray]:
    """The images of the dataset ``name``, H×W×3 uint8 RGB, in blocks of at most some 8 MiB.

    Raw arrays are taken as they are. Encoded ones (JPEG or PNG, padded with zeros or not) are taken as
    OpenCV decodes them, which gives back the array that a recorder gave to OpenCV, whichever order its
    channels had. ``swap`` exchanges red and blue in both. Raises ``InputError`` for a damaged image.
    """
    with opened(path) as file:
        dataset = file[name]
        rows = max(1, min(len(dataset), _BLOCK_BYTES // max(1, _row_bytes(dataset))))
        for start in range(0, len(dataset), rows):
            block = dataset[start : start + rows]
            for offset, value in enumerate(block):
                image = value if dataset.ndim == 4 else _decoded(value, f"{name} in frame {start + offset}")
                yield np.ascontiguousarray(image[:, :, ::-1] if swap else image)


def _row_bytes(dataset: h5py.Dataset) -> int:
    if h5py.check_vlen_dtype(dataset.dtype) is not None:
        return 256 << 10
    count = 1
    for side in dataset.shape[1:]:
        count *= int(side)
    # A chunk is read whole whatever is asked of it.
    return count * dataset.dtype.itemsize


def _decoded(value: Any, what: str) -> np.ndarray:
    data = value.tobytes() if isinstance(value, np.ndarray | np.void) else bytes(value)
    data = data.rstrip(b"\0")
    if not data or (data[:2] == b"\xff\xd8" and data[-2:] != b"\xff\xd9"):
        raise InputError(f"the image {what} is cut short")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"the image {what} cannot be decoded")
    return image


def text(value: Any) -> str:
    """An attribute as text, whether HDF5 holds it as bytes or text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def json_attribute(holder: Any, name: str) -> dict[str, Any]:
    """A JSON object kept in an attribute; empty where there is none or it is no object."""
    if name not in holder.attrs:
        return {}
    try:
        value = json.loads(text(holder.attrs[name]))
    except ValueError as error:
        raise InputError(f"the attribute {name!r} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}

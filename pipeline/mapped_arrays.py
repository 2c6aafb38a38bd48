"""Arrays that are one file each: Zarr v3 to everybody else, a memory map to us.

Each array of a group is a single uncompressed chunk, so the chunk's file *is* the array: reading it is
a memory map, and it can be written row after row, in little memory, however long it gets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

METADATA = "zarr.json"


def create_arrays(
    folder: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]], attributes: Mapping[str, Any]
) -> dict[str, Path]:
    """Makes the group ``folder`` and describes its arrays, each by shape and dtype; no data yet.

    Returns the path of each array's file, in which all of its bytes (little-endian, row-major) belong.
    """
    # Slow to import, and reading does not need it.
    import zarr

    group = zarr.create_group(folder, zarr_format=3, attributes=dict(attributes))
    files = {}
    for name, (shape, dtype) in shapes.items():
        group.create_array(name, shape=shape, dtype=dtype, chunks=shape, compressors=None, filters=None)
        files[name] = chunk_file(folder / name, len(shape))
        files[name].parent.mkdir(parents=True)
    return files


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Makes the group ``folder`` of arrays that are in memory."""
    shapes = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    for name, file in create_arrays(folder, shapes, attributes).items():
        write_rows(file, [arrays[name]])


def write_rows(file: Path, blocks: Iterable[np.ndarray]) -> None:
    """Writes an array's file from blocks of its rows, one after another.

    By plain writes, not through a memory map: a disk that is full then gives an ``OSError``, not a
    killed process.
    """
    with file.open("xb", buffering=0) as stream:
        for block in blocks:
            rest = memoryview(np.ascontiguousarray(block).view(np.uint8).reshape(-1))
            while rest:
                rest = rest[stream.write(rest) :]


def map_array(folder: Path) -> np.ndarray:
    """The array in ``folder``, memory-mapped and read-only.

    Raises ``OSError``, ``KeyError`` or ``ValueError`` where it is not whole.
    """
    metadata = json.loads((folder / METADATA).read_text())
    # "/" puts the one chunk into folders of its own, see chunk_file; "." beside the metadata.
    separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
    file = folder / separator.join(["c", *["0"] * len(metadata["shape"])])
    return map_file(file, tuple(metadata["shape"]), metadata["data_type"])


def map_file(file: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The file of an array of known shape and dtype, memory-mapped and read-only."""
    # As a plain array: indexing through the memmap subclass costs more than copying a small frame.
    mapped = np.memmap(file, dtype=np.dtype(dtype).newbyteorder("<"), mode="r", shape=shape)
    return mapped.view(np.ndarray)


def chunk_file(folder: Path, dimensions: int) -> Path:
    """The one file of the array in ``folder``."""
    return folder.joinpath("c", *["0"] * dimensions)


def read_attributes(folder: Path) -> dict[str, Any]:
    """The group's attributes; empty where there is no readable group."""
    try:
        attributes: dict[str, Any] = json.loads((folder / METADATA).read_text())["attributes"]
    except (OSError, ValueError, KeyError):
        return {}
    return attributes

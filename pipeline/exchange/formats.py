"""Which format a file or folder has, which episodes are in it, and the reader that opens one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from pipeline.errors import InputError
from pipeline.exchange import read_aloha, read_droid, read_lerobot, read_robomimic
from pipeline.exchange.foreign_episode import EpisodeReference, ForeignEpisode
from pipeline.exchange.foreign_hdf5 import opened
from pipeline.exchange.lerobot_folder import INFO

_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")


class Format(StrEnum):
    """What can be imported."""

    AUTO = "auto"
    RECAP = "recap"
    LEROBOT = "lerobot"
    ROBOMIMIC = "robomimic"
    ALOHA = "aloha"
    DROID = "droid"


_LISTERS: Mapping[Format, Callable[[Path], list[EpisodeReference]]] = {
    Format.LEROBOT: read_lerobot.list_lerobot,
    Format.ROBOMIMIC: read_robomimic.list_robomimic,
    Format.ALOHA: read_aloha.list_aloha,
    Format.DROID: read_droid.list_droid,
}


def sources(path: Path) -> Iterator[Path]:
    """The recordings at ``path``: itself, or those in it where it is a folder of many.

    LeRobot datasets and DROID episodes are folders, the others HDF5 files. Opens none of them. Raises
    ``InputError`` where there is nothing.
    """
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    if not path.is_dir() or _is_recording(path):
        yield path
        return
    found = False
    # Of a workspace only what was recorded, not what was made of it.
    is_workspace = (path / "episodes").is_dir() and (path / "steps").is_dir()
    top = path / "episodes" if is_workspace else path
    for folder, names, files in os.walk(top):
        here = Path(folder)
        names.sort()
        if _is_recording(here):
            names.clear()
            found = True
            yield here
            continue
        for name in sorted(files):
            if name.endswith(_HDF5_SUFFIXES):
                found = True
                yield here / name
    if not found:
        raise InputError(f"there is no recording in {path}: no HDF5 file and no LeRobot dataset")


def _is_recording(folder: Path) -> bool:
    return (folder / INFO).is_file() or (folder / read_droid.TRAJECTORY).is_file()


def list_episodes(path: Path, form: Format) -> list[EpisodeReference]:
    """The episodes of one of :func:`sources`. Opens the file: for doubtful ones call it in a child.

    Raises ``InputError`` for a file that is of no known format or cannot be read.
    """
    known = detect(path) if form is Format.AUTO else form
    if known is Format.RECAP:
        return [EpisodeReference(Format.RECAP, path, size_bytes=path.stat().st_size)]
    return _LISTERS[known](path)


def detect(path: Path) -> Format:
    """The format of a file or folder, by what is in it."""
    if path.is_dir():
        if (path / INFO).is_file():
            return Format.LEROBOT
        if (path / read_droid.TRAJECTORY).is_file():
            return Format.DROID
        raise InputError(f"{path} is of no known format: it has neither {INFO} nor {read_droid.TRAJECTORY}")
    with opened(path) as file:
        if "schema_version" in file.attrs:
            return Format.RECAP
        for form, looks_like in (
            (Format.ROBOMIMIC, read_robomimic.is_robomimic),
            (Format.ALOHA, read_aloha.is_aloha),
            (Format.DROID, read_droid.is_droid),
        ):
            if looks_like(file):
                return form
    raise InputError(f"{path} is of no known format: name it with --format if you know better")


def read_episode(reference: EpisodeReference, image_order: str = "rgb") -> ForeignEpisode:
    """Opens one episode. Raises ``InputError`` if it is damaged."""
    if reference.format == Format.LEROBOT:
        return read_lerobot.read_lerobot(reference)
    if reference.format == Format.ROBOMIMIC:
        return read_robomimic.read_robomimic(reference)
    if reference.format == Format.ALOHA:
        return read_aloha.read_aloha(reference, image_order)
    return read_droid.read_droid(reference)

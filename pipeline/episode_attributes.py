"""An episode's attributes in its HDF5 file: what is known of it as a whole (see docs/episode-format.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.episode import SCHEMA_VERSION, EpisodeInfo
from pipeline.episode_layout import Fingerprint, is_storable
from pipeline.errors import InputError

_TEXT_ATTRIBUTES = ("id", "task", "operator", "robot", "created", "software_version")
_OPTIONAL_TEXT_ATTRIBUTES = ("policy_checkpoint", "operator_mark")


def write_info(file: h5py.File, info: EpisodeInfo) -> None:
    """Writes ``info`` as the file's attributes, replacing those there; ``None`` becomes no attribute.

    Raises ``InputError`` for text that HDF5 cannot hold and ``extra`` that is not JSON.
    """
    texts: dict[str, str | None] = {n: getattr(info, n) for n in _TEXT_ATTRIBUTES + _OPTIONAL_TEXT_ATTRIBUTES}
    try:
        texts["extra"] = json.dumps(info.extra, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"episode {info.id}: 'extra' is not JSON: {error}") from error
    for name, text in texts.items():
        if text is None:
            file.attrs.pop(name, None)
        elif is_storable(text):
            file.attrs[name] = text
        else:
            raise InputError(f"episode {info.id!r}: {name} {text!r} has a NUL or is not valid Unicode")
    file.attrs["cameras"] = np.array(info.cameras, dtype=h5py.string_dtype())
    if info.missing:
        file.attrs["missing"] = np.array(info.missing, dtype=h5py.string_dtype())
    else:
        file.attrs.pop("missing", None)
    file.attrs["rate_hz"] = float(info.rate_hz)
    file.attrs["truncated"] = bool(info.truncated)
    file.attrs["schema_version"] = int(info.schema_version)


def finish(file: h5py.File, info: EpisodeInfo, fingerprint: Fingerprint, dropped: int) -> None:
    """Writes the attributes that only a finished episode has, and flushes."""
    write_info(file, info)
    file.attrs["fingerprint"] = fingerprint.hexdigest()
    file.attrs["dropped"] = dropped
    file.flush()


def read_info(file: h5py.File, path: Path) -> EpisodeInfo:
    """The inverse of :func:`write_info`. Raises ``InputError`` for a file that is no episode or too new."""
    attributes = dict(file.attrs)
    version = _version(path, attributes)

    def read(name: str, parse: Callable[[Any], Any]) -> Any:
        if name not in attributes:
            raise InputError(f"{path} is not a whole episode file: attribute {name!r} is missing")
        try:
            return parse(attributes[name])
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{path} is damaged: attribute {name!r} is not {_KINDS[parse]}") from None

    return EpisodeInfo(
        **{name: read(name, _text) for name in _TEXT_ATTRIBUTES},
        **{name: read(name, _text) for name in _OPTIONAL_TEXT_ATTRIBUTES if name in attributes},
        rate_hz=read("rate_hz", _rate),
        cameras=read("cameras", _texts),
        truncated=read("truncated", bool),
        schema_version=version,
        extra=read("extra", _object),
        missing=read("missing", _texts) if "missing" in attributes else (),
    )


def _version(path: Path, attributes: Mapping[str, Any]) -> int:
    if "schema_version" not in attributes:
        raise InputError(f"{path} is an HDF5 file but not an episode: it has no schema_version")
    try:
        version = int(attributes["schema_version"])
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{path} is damaged: attribute 'schema_version' is not a number") from None
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, this software reads up to {SCHEMA_VERSION}: update it"
        )
    return version


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise TypeError
    return tuple(_text(value) for value in values.tolist())


def _rate(value: Any) -> float:
    rate = float(value)
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError
    return rate


def _object(text: Any) -> dict[str, Any]:
    value = json.loads(_text(text))
    if not isinstance(value, dict):
        raise TypeError
    return value


_KINDS: dict[Callable[[Any], Any], str] = {
    _text: "text",
    _texts: "a list of texts",
    _rate: "a number above 0",
    _object: "a JSON object",
    bool: "true or false",
}

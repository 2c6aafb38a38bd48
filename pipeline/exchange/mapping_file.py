"""A mapping as a TOML file: what a recording's columns mean, for data that no built-in mapping fits.

docs/import-export.md describes it for those who write one. Every key is optional, unknown ones are refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.exchange.column_mapping import Action, ColumnMapping, Gripper, Orientation, Pose, Selection

_TABLES: dict[str, type] = {
    "joint_positions": Selection,
    "joint_velocities": Selection,
    "tool_pose": Pose,
    "gripper_position": Gripper,
    "tool_wrench": Selection,
    "action": Action,
}
_INNER: dict[type, dict[str, type]] = {
    Pose: {"position": Selection, "orientation": Orientation, "whole": Selection},
    Action: {
        "translation": Selection,
        "rotation": Orientation,
        "joints": Selection,
        "gripper": Gripper,
        "whole": Selection,
    },
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_space(value: Any) -> bool:
    return value in tuple(ActionSpace)


def _lists(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(fits(item) for item in value)


_Kind = tuple[Callable[[Any], bool], str, Callable[[Any], Any]]
_NUMBERS: _Kind = (_lists(_is_number), "a list of numbers", lambda value: tuple(map(float, value)))
# For each key: what fits, how that is called, and what becomes of it.
_KINDS: dict[str, _Kind] = {
    **dict.fromkeys(("column", "unit", "convention", "enabled", "image_order"), (_is_text, "a text", str)),
    **dict.fromkeys(("open", "closed", "rate_hz"), (_is_number, "a number", float)),
    **dict.fromkeys(("scale", "offset", "origin"), _NUMBERS),
    "space": (_is_space, f"one of {', '.join(ActionSpace)}", ActionSpace),
    "clip": (lambda value: isinstance(value, bool), "true or false", bool),
    "indices": (_lists(_is_whole), "a list of whole numbers", tuple),
    "components": (_lists(_is_text), "a list of texts", tuple),
}


def read_mapping(path: Path) -> ColumnMapping:
    """Reads and checks a mapping file. Raises ``InputError`` naming the file and the key that is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the mapping {path}: {error}") from error
    try:
        return parse_mapping(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse_mapping(document: Mapping[str, Any]) -> ColumnMapping:
    """The mapping that a TOML document says. Raises ``InputError`` for keys and values that are wrong."""
    _reject_unknown("", document, [f.name for f in fields(ColumnMapping)])
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name in _TABLES:
            values[name] = _built(name, value, _TABLES[name])
        elif name == "cameras":
            values[name] = _cameras(value)
        else:
            values[name] = _plain(name, name, value)
    return ColumnMapping(**values)


def _built(where: str, value: Any, kind: type) -> Any:
    """One of the mapping's dataclasses from a TOML table."""
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a table, not {value!r}")
    known = {f.name: f for f in fields(kind)}
    _reject_unknown(where, value, list(known))
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    for name in required:
        if name not in value:
            raise InputError(f"{where} lacks {name!r}")
    inner = _INNER.get(kind, {})
    parts: dict[str, Any] = {}
    for name, item in value.items():
        place = f"{where}.{name}"
        parts[name] = _built(place, item, inner[name]) if name in inner else _plain(place, name, item)
    try:
        return kind(**parts)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _plain(where: str, name: str, value: Any) -> Any:
    """A value that is not a table, checked for its type."""
    fits, kind, made = _KINDS[name]
    if not fits(value):
        raise InputError(f"{where} must be {kind}, not {value!r}")
    return made(value)


def _cameras(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(theirs, str) for theirs in value.values()):
        raise InputError("cameras must be a table of texts: our name = the recording's")
    return tuple(value.items())


def _reject_unknown(where: str, table: Mapping[str, Any], known: list[str]) -> None:
    for name in table:
        if name not in known:
            raise InputError(
                f"unknown key {f'{where}.{name}' if where else name}; there are {', '.join(known)}"
            )

"""Options of a policy's configuration, as ``--policy.KEY=VALUE`` words or plain JSON, checked by type."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig

from pipeline.errors import InputError
from pipeline.policy.training_fields import instead_of

PREFIX = "--policy."

_MOST_NAMES = 8

_NOTHING = ("none", "null")


def policy_types() -> list[str]:
    """The types that LeRobot knows, this project's own included."""
    import lerobot.policies.factory

    import pipeline.policy  # noqa: F401 - registers gen3_vla

    _ = lerobot.policies.factory  # registers LeRobot's own
    return sorted(PreTrainedConfig.get_known_choices())


def config_class(policy_type: str) -> type[PreTrainedConfig]:
    """The configuration class of that type; raises ``InputError`` with near matches for an unknown one."""
    known = policy_types()
    if policy_type not in known:
        raise InputError(f"there is no policy type {policy_type!r}{_near(policy_type, known)}")
    return typing.cast(type[PreTrainedConfig], PreTrainedConfig.get_choice_class(policy_type))


def read_words(words: Iterable[str]) -> dict[str, Any]:
    """``--policy.KEY=VALUE`` (or ``--policy.KEY VALUE``) words as plain values by key, dots kept.

    Values are JSON where they can be (``null``, ``true``, ``[1, 2]``), else text. Raises ``InputError``
    for words of any other form, and for a key that is given twice.
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith(PREFIX):
            raise InputError(f"what is {word!r}? Options of the policy are {PREFIX}KEY=VALUE")
        key, given, text = word.removeprefix(PREFIX).partition("=")
        if not given:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{word} needs a value: {word}=VALUE")
            text = rest.pop(0)
        if key in found:
            raise InputError(f"{PREFIX}{key} is given twice")
        found[key] = _plain(text)
    return found


def decoded_options(policy_type: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` as the fields of the type's configuration want them.

    Dotted keys reach into nested settings. The texts "none" and "null" are ``None`` where an option may be
    that, for files such as TOML that have no null. Raises ``InputError`` naming the option for one that the
    type does not have, with near matches, for one that would have no effect here
    (:mod:`pipeline.policy.training_fields`), and for a value of another type.
    """
    cls = config_class(policy_type)
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
    names = sorted(name for name in fields if not instead_of(policy_type, name))
    hints = typing.get_type_hints(cls)
    nested: dict[str, Any] = {}
    for key, value in options.items():
        name, _, below = key.partition(".")
        if instead := instead_of(policy_type, name):
            raise InputError(f"{name} is not an option of the policy here: {instead}")
        if name not in names:
            raise InputError(f"{policy_type} has no option {name!r}{_near(name, names)}")
        if below:
            inner = nested.setdefault(name, {})
            if not isinstance(inner, dict):
                raise InputError(f"{PREFIX}{name} is given as a whole and in part")
            _put(inner, below, value)
        elif name in nested:
            raise InputError(f"{PREFIX}{name} is given as a whole and in part")
        else:
            nested[name] = value
    return {name: _decoded(hints[name], value, name, policy_type) for name, value in nested.items()}


def _put(into: dict[str, Any], key: str, value: Any) -> None:
    name, _, below = key.partition(".")
    if below:
        _put(into.setdefault(name, {}), below, value)
    else:
        into[name] = value


def _decoded(hint: Any, value: Any, name: str, policy_type: str) -> Any:
    if isinstance(value, str) and value.lower() in _NOTHING and type(None) in typing.get_args(hint):
        return None
    try:
        return draccus.decode(hint, value)
    except Exception as error:  # draccus raises several types of its own, and what constructors raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{policy_type}: option {name} cannot be {value!r}: {reason[:200]}") from error


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f": did you mean {' or '.join(close)}?"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"; there are {', '.join(names[:_MOST_NAMES])}{more}"

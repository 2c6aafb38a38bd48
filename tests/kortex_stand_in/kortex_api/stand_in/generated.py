"""Fills the modules that the vendor's package has generated, and refuses where those refuse."""

from __future__ import annotations

import sys

from google.protobuf.internal import api_implementation  # type: ignore[import-untyped]  # ships no types

from .messages import names_of


def fill(module: str, package: str) -> None:
    """Gives ``module`` the messages and enumerations of ``package``.

    Raises ``TypeError`` unless protobuf is its pure-Python self, as the vendor's generated code does on
    every protobuf of this decade.
    """
    if api_implementation.Type() != "python":
        raise TypeError(
            "Descriptors cannot be created directly: set PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python"
            " in the environment before protobuf is first imported"
        )
    vars(sys.modules[module]).update(names_of(package))


def enum_name(package: str, enum: str, number: int) -> str:
    """The name of an enumeration's value, or its number where it has none."""
    wrapper = names_of(package)[enum]
    return str(wrapper.Name(number)) if number in wrapper.values() else str(number)

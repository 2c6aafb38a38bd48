"""Protobuf message classes made at run time from :mod:`.message_tables`, in a pool of their own.

They are real protobuf messages: attributes, nested messages that come into being when written, ``add``,
``CopyFrom``, ``AttributeError`` for an unknown field and ``TypeError`` for a wrong type.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]  # ships no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.internal import enum_type_wrapper  # type: ignore[import-untyped]  # as above

from .message_tables import PACKAGES, Package

_ROOT = "Kinova.Api"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bytes": _Field.TYPE_BYTES,
    "fixed32": _Field.TYPE_FIXED32,
    "float": _Field.TYPE_FLOAT,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
}
_ENUMS = {(package.name, name) for package in PACKAGES for name in package.enums}
_POOL = descriptor_pool.DescriptorPool()


def _full(package: str) -> str:
    return f"{_ROOT}.{package}" if package else _ROOT


def _file_name(package: str) -> str:
    return f"{package or 'Errors'}.proto"


def _add_field(message: Any, words: str, package: str) -> None:
    name_and_type, number = words.split("=")
    name, kind = name_and_type.split(":")
    field = message.field.add(name=name.lstrip("*|"), number=int(number))
    field.label = _Field.LABEL_REPEATED if name.startswith("*") else _Field.LABEL_OPTIONAL
    if name.startswith("|"):
        field.oneof_index = 0
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    owner, _, bare = kind.rpartition(".") if "." in kind else (package, "", kind)
    field.type = _Field.TYPE_ENUM if (owner, bare) in _ENUMS else _Field.TYPE_MESSAGE
    field.type_name = f".{_full(owner)}.{bare}"


def _add_package(package: Package) -> None:
    file = descriptor_pb2.FileDescriptorProto(
        name=_file_name(package.name), package=_full(package.name), syntax="proto3"
    )
    file.dependency.extend(_file_name(name) for name in package.imports)
    file.public_dependency.extend(range(len(package.imports)))
    for name, values in package.enums.items():
        enum = file.enum_type.add(name=name)
        for word in values.split():
            value, number = word.split("=")
            enum.value.add(name=value, number=int(number))
    for name, fields in package.messages.items():
        message = file.message_type.add(name=name)
        if "|" in fields:
            message.oneof_decl.add(name=package.oneof)
        for words in fields.split():
            _add_field(message, words, package.name)
    _POOL.AddSerializedFile(file.SerializeToString())


for _package in PACKAGES:
    _add_package(_package)
_BY_NAME = {package.name: package for package in PACKAGES}


def names_of(package: str) -> dict[str, Any]:
    """What a generated module of ``package`` (``"Base"``) has: message classes, enumerations, their values.

    Includes those of the packages that it imports publicly.
    """
    found: dict[str, Any] = {}
    for imported in _BY_NAME[package].imports:
        found.update(names_of(imported))
    for name in _BY_NAME[package].messages:
        found[name] = message_class(package, name)
    for name in _BY_NAME[package].enums:
        descriptor = _POOL.FindEnumTypeByName(f"{_full(package)}.{name}")
        found[name] = enum_type_wrapper.EnumTypeWrapper(descriptor)
        found.update({value.name: value.number for value in descriptor.values})
    return found


def message_class(package: str, name: str) -> Any:
    """The class of one message, for example ``message_class("Base", "TwistCommand")``."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_full(package)}.{name}"))

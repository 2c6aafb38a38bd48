"""Which store a workspace is kept in: ``--remote``, or ``[remote]`` of its ``recap.toml``."""

from __future__ import annotations

import tomllib

from pipeline.errors import InputError
from pipeline.object_store import ObjectStore
from pipeline.site_remote import RemoteSection
from pipeline.workspace import Workspace

_KNOWN = ("url",)


def remote_section(workspace: Workspace) -> RemoteSection:
    """``[remote]`` of the workspace's ``recap.toml``; empty where there is none.

    Raises ``InputError`` naming the file for what it cannot be. Imports little: every driver asks it.
    """
    path = workspace.config_path
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("remote", {})
    except (FileNotFoundError, NotADirectoryError):
        return RemoteSection()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"{path}: remote must be a table, not {table!r}")
    unknown = sorted(set(table) - set(_KNOWN))
    if unknown:
        raise InputError(
            f"{path}: unknown key {unknown[0]!r} in [remote]; known are {', '.join(_KNOWN)} "
            "(credentials come from the environment)"
        )
    try:
        return RemoteSection(**table)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def require_store(workspace: Workspace, given: str | None) -> ObjectStore:
    """The store at ``given``, or else the workspace's own. Raises ``InputError`` where neither is named."""
    url = given or remote_section(workspace).url
    if not url:
        raise InputError(
            f"{workspace.config_path} names no store: give --remote, or write [remote] with url = "
            '"s3://bucket/lab"'
        )
    return ObjectStore(url.rstrip("/"))

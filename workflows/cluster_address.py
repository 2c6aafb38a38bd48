"""Where a Ray cluster is: what an operator or ``ray job submit`` may say, told apart without loading Ray.

A driver joins a cluster as one of its processes, on a machine that is a node of it, since it reads and
writes the workspace's files as its steps do. So it takes ``HOST:PORT`` of the head, or ``auto``.
"""

from __future__ import annotations

import re
import socket

from pipeline.errors import InputError

AUTO = "auto"

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_FORM = (
    "give HOST:PORT of its head as 'ray start' printed it, or 'auto' for the cluster that this machine is in"
)


def cluster_address(said: str | None) -> str | None:
    """The address that ``said`` means: ``HOST:PORT`` or ``auto``; ``None`` for a Ray of this machine's own.

    ``None``, an empty text and ``local`` say that there is no cluster. Raises ``InputError`` for what is no
    address of a head: ``ray://`` (Ray Client), a dashboard's URL, or no address at all.
    """
    text = (said or "").strip()
    if text in ("", "local"):
        return None
    if text == AUTO:
        return AUTO
    if text.startswith("ray://"):
        raise InputError(
            f"{text} is an address of Ray Client, whose driver is not a part of the cluster and need not see "
            f"the workspace: {_FORM}, or use 'ray job submit'"
        )
    if text.startswith(("http://", "https://")):
        raise InputError(
            f"{text} is the address of a Ray dashboard, for 'ray job submit --address {text} -- recap ...': "
            f"{_FORM}, or unset RAY_ADDRESS"
        )
    split_address(text)
    return text


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; the host of an IPv6 address without brackets. ``InputError`` if not."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 2**16:
        raise InputError(f"{address!r} is no address of a Ray cluster: {_FORM}")
    return found["host"].strip("[]"), int(found["port"])


def answers(address: str, timeout_s: float) -> bool:
    """Whether anything takes connections at ``HOST:PORT``."""
    return refusal(address, timeout_s) is None


def refusal(address: str, timeout_s: float) -> str | None:
    """Why nothing takes connections at ``HOST:PORT``; ``None`` where something does."""
    try:
        with socket.create_connection(split_address(address), timeout_s):
            return None
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__

"""A connection between a policy server and its client: address, token, time-outs, bounded messages.

The token is proven by the HMAC challenge of ``multiprocessing.connection``, in both directions: it never
goes over the wire, and a client also knows that it talks to a server that has it. Messages are not
encrypted; across a network that is not yours, use an SSH tunnel. Only ``send_bytes`` and ``recv_bytes``
of that module are used, never ``send`` and ``recv``, which would unpickle what a stranger sent.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import InputError
from pipeline.policy.wire import MAX_MESSAGE_BYTES, BadMessage, pack, unpack

TOKEN_VARIABLE = "RECAP_POLICY_TOKEN"
DEFAULT_PORT = 8642
MIN_TOKEN_LENGTH = 16  # whoever overhears a handshake can try short ones at leisure
_TOO_LONG = "bad message length"  # the text of the OSError that recv_bytes raises then
_NO_TOKEN = b"no token"  # both ends without a token also shake hands, so that a mismatch is an answer


class WrongToken(Exception):
    """The two ends do not have the same token, or one of them does not speak this protocol."""


class Disconnected(Exception):
    """The other end is gone, or has not gone on with a message in time; the text says which."""


def parse_url(url: str) -> tuple[str, int]:
    """Host and port of ``tcp://host:port``. Raises ``InputError``."""
    wrong = InputError(f"the policy's address {url!r} is not of the form tcp://host:port")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme != "tcp" or not parts.hostname or not port or parts.path or parts.username is not None:
        raise wrong
    return parts.hostname, port


def format_url(host: str, port: int) -> str:
    """The inverse of :func:`parse_url`."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches ``host``. Raises ``InputError`` where the name is unknown."""
    if not host:  # which means every address of this machine
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"unknown host {host!r}: {error.strerror}") from None
    return all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_loopback for entry in found)


def check_address(host: str, token: str | None) -> None:
    """Raises ``InputError`` for an address that other machines reach, without a token."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"{host!r} can be reached from other machines, so it needs a token: put one into "
            f"{TOKEN_VARIABLE} or a file (--token-file), the same on the robot's machine; or listen on "
            "127.0.0.1 and use an SSH tunnel"
        )


def read_token(file: Path | None = None) -> str | None:
    """The token in ``file``, else in the variable ``RECAP_POLICY_TOKEN``, else ``None``.

    It is never a command-line argument: those are seen by everyone on the machine. Raises ``InputError``
    where the file cannot be read or the token is shorter than 16 characters.
    """
    if file is None:
        where, token = f"the variable {TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        where = str(file)
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise InputError(f"{file}: the token cannot be read ({reason})") from None
    if len(token) < MIN_TOKEN_LENGTH:
        raise InputError(
            f"the token in {where} has {len(token)} characters, it needs {MIN_TOKEN_LENGTH}: "
            "'openssl rand -hex 32' makes one"
        )
    return token


class Channel:
    """One end of a connection. One thread talks; :meth:`close` may be called by any and ends a wait."""

    def __init__(self, connected: socket.socket, stall_s: float) -> None:
        """Takes over a connected socket. ``stall_s`` bounds a pause within a message or the handshake."""
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # An end that lost power or its cable never says goodbye: ask after 10 s, three times, every 5 s.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        # The kernel's own time-outs: Connection reads its descriptor directly, past the socket object.
        limit = struct.pack("ll", int(stall_s), int(stall_s % 1 * 1e6))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._socket = connected
        self._connection = Connection(os.dup(connected.fileno()))

    def prove(self, token: str | None, *, first: bool) -> None:
        """Both ends show that they have the same token; the server goes ``first``.

        Raises ``WrongToken``, and ``Disconnected`` where the other end is gone or says nothing.
        """
        key = _NO_TOKEN if token is None else token.encode()
        steps = (deliver_challenge, answer_challenge) if first else (answer_challenge, deliver_challenge)
        try:
            for step in steps:
                step(self._connection, key)
        except EOFError as error:
            raise Disconnected("the connection was closed") from error
        except OSError as error:
            if str(error) == _TOO_LONG:
                raise WrongToken("no handshake") from error
            raise Disconnected(_reason(error)) from error
        except (AuthenticationError, ValueError, AssertionError) as error:
            raise WrongToken(str(error)) from error

    def wait(self, timeout_s: float | None) -> bool:
        """Whether something can be received, waiting at most that long (``None``: as long as it takes)."""
        try:
            return self._connection.poll(timeout_s)
        except OSError as error:
            raise Disconnected("the connection was closed") from error

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends one message. Raises ``BadMessage`` where it is too large, and ``Disconnected``."""
        data = pack(message)
        try:
            self._connection.send_bytes(data)
        except OSError as error:
            raise Disconnected(_reason(error)) from error

    def receive(self) -> dict[str, Any]:
        """The next message; waits for it. Raises ``BadMessage`` and ``Disconnected``."""
        try:
            data = self._connection.recv_bytes(MAX_MESSAGE_BYTES)
        except EOFError as error:
            raise Disconnected("the connection was closed") from error
        except OSError as error:
            if str(error) == _TOO_LONG:
                raise BadMessage(f"a message of more than {MAX_MESSAGE_BYTES // 2**20} MiB") from error
            raise Disconnected(_reason(error)) from error
        return unpack(data)

    @property
    def can_receive(self) -> bool:
        """False after a message that was too large: where the next one begins is unknown."""
        return self._connection.readable

    def close(self) -> None:
        """Ends the connection and wakes a thread that waits on it; harmless when repeated."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Closes the descriptors; only for the thread that talks, when it has finished."""
        self.close()
        self._socket.close()
        self._connection.close()


def _reason(error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return "it stalled in the middle of a message"
    return error.strerror or str(error) or "the connection was closed"

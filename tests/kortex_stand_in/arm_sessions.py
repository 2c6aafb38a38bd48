"""Who is logged in to the simulated arm, and since when nothing was heard of them."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from tests.kortex_stand_in.kortex_api.stand_in.frames import StreamReader


@dataclass(eq=False)
class Peer:
    """Where replies go: a TCP connection, or the address of a datagram's sender."""

    connection: socket.socket
    address: tuple[str, int] | None = None  # of UDP
    reader: StreamReader = field(default_factory=StreamReader)

    @property
    def is_udp(self) -> bool:
        """Whether it serves feedback only."""
        return self.address is not None

    @property
    def name(self) -> str:
        """The client's address and port."""
        try:
            host, port = self.address or self.connection.getpeername()[:2]
        except OSError:
            return ""
        return f"{host}:{port}"


@dataclass
class Session:
    """One login. Times are of ``time.monotonic``; a time-out of 0 never comes."""

    number: int
    is_udp: bool
    session_timeout_s: float
    connection_timeout_s: float
    heard_at: float


class Sessions:
    """The logins of one arm."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._sessions: dict[int, Session] = {}
        self._next = 1

    def create(self, info: Any, is_udp: bool, now: float) -> Session:
        """A new login from a ``CreateSessionInfo``."""
        session = Session(
            self._next,
            is_udp,
            info.session_inactivity_timeout / 1000,
            info.connection_inactivity_timeout / 1000,
            now,
        )
        self._next += 1
        self._sessions[session.number] = session
        return session

    def hear(self, number: int, is_udp: bool, now: float) -> Session | None:
        """The live session that a frame names, whose clocks start anew; ``None`` where there is none."""
        session = self._sessions.get(number)
        if session is None or session.is_udp != is_udp:
            return None
        session.heard_at = now
        return session

    def close(self, number: int) -> None:
        """Forgets one."""
        self._sessions.pop(number, None)

    def close_all(self) -> None:
        """Forgets all, as a restarted arm does."""
        self._sessions.clear()

    def lost(self, now: float) -> set[int]:
        """Sessions whose *connection* has been silent for too long; those silent for longer are closed."""
        silent = {s.number: now - s.heard_at for s in self._sessions.values()}
        for session in list(self._sessions.values()):
            if 0 < session.session_timeout_s < silent[session.number]:
                self.close(session.number)
        return {
            number
            for number, seconds in silent.items()
            if number not in self._sessions or 0 < self._sessions[number].connection_timeout_s < seconds
        }

    def __len__(self) -> int:
        """How many are logged in."""
        return len(self._sessions)

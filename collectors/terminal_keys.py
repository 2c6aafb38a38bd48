"""From the bytes that a terminal sends to the names of the keys that were pressed.

A letter is its own name (``"s"``, ``"S"``); the others are ``"enter"``, ``"space"``, ``"escape"``, ``"tab"``,
``"backspace"``, ``"up"``, ``"down"``, ``"left"``, ``"right"``, ``"home"``, ``"end"``, ``"page_up"``,
``"page_down"``, ``"insert"`` and ``"delete"``. What stands for none of these (function keys, mouse reports,
letters beyond ASCII) is dropped.

Escape and the arrow keys begin with the same byte, and a slow link may deliver an arrow key in pieces. Escape
is therefore believed in only when nothing follows it, and the rest of a sequence that comes late is still not
taken for letters. The two stop keys are never swallowed: neither is part of a sequence that a keyboard sends.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ESCAPE_DELAY_S = 0.05
"""How long after an Escape byte the rest of an arrow key may take; a local terminal sends it in one piece."""
LATE_TAIL_S = 1.0
"""How long after an Escape key ``[`` or ``O`` is still taken for the late rest of an arrow key."""
LONGEST_SEQUENCE = 32

_ESC = 0x1B
_SINGLE = {0x0A: "enter", 0x0D: "enter", 0x20: "space", 0x09: "tab", 0x08: "backspace", 0x7F: "backspace"}
_FINAL = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
_TILDE = {
    "1": "home",
    "2": "insert",
    "3": "delete",
    "4": "end",
    "5": "page_up",
    "6": "page_down",
    "7": "home",
    "8": "end",
}


@dataclass
class KeyDecoder:
    """Collects bytes until they make keys; times are seconds of one monotonic clock."""

    _pending: bytearray = field(default_factory=bytearray)
    _pending_since: float = 0.0
    _escape_at: float = float("-inf")

    def feed(self, data: bytes, now: float) -> list[str]:
        """Takes bytes read at ``now``; returns the keys that they complete, oldest first."""
        keys = self.expire(now)
        for byte in data:
            keys += self._take(byte, now)
        return keys

    def expire(self, now: float) -> list[str]:
        """``["escape"]`` if an Escape byte has stood alone until ``now``, nothing otherwise."""
        if not self._pending or now - self._pending_since < ESCAPE_DELAY_S:
            return []
        if len(self._pending) == 1:
            self._pending.clear()
            self._escape_at = now
            return ["escape"]
        if now - self._pending_since >= LATE_TAIL_S:  # a sequence that was never finished
            self._pending.clear()
        return []

    def wait_s(self, now: float) -> float | None:
        """How long to wait for more bytes before ``expire`` has something to say; ``None``: for ever."""
        if not self._pending:
            return None
        limit = ESCAPE_DELAY_S if len(self._pending) == 1 else LATE_TAIL_S
        return max(0.0, self._pending_since + limit - now)

    def _take(self, byte: int, now: float) -> list[str]:
        if byte == _ESC:
            keys = ["escape"] if len(self._pending) == 1 else []  # Escape twice is Escape
            self._begin(now)
            return keys
        if byte == 0x20:
            keys = ["escape", "space"] if len(self._pending) == 1 else ["space"]
            self._pending.clear()
            return keys
        if self._pending:
            return self._continue(byte)
        if byte in b"[O" and now - self._escape_at < LATE_TAIL_S:
            self._escape_at = float("-inf")
            self._begin(now)
            self._pending.append(byte)
            return []
        return _single_key(byte)

    def _begin(self, now: float) -> None:
        self._pending[:] = bytes([_ESC])
        self._pending_since = now

    def _continue(self, byte: int) -> list[str]:
        if len(self._pending) == 1 and byte not in b"[O":  # Escape, then a key at once (or Alt with a key)
            self._pending.clear()
            return ["escape", *_single_key(byte)]
        self._pending.append(byte)
        # The byte behind ESC introduces the sequence; ESC O has exactly one more, ESC [ ends at 0x40..0x7e.
        complete = len(self._pending) >= 3 and (self._pending[1] == ord("O") or 0x40 <= byte <= 0x7E)
        if complete:
            name = _sequence_key(self._pending[2:].decode("ascii", "replace"))
            self._pending.clear()
            return [name] if name else []
        if len(self._pending) > LONGEST_SEQUENCE:
            self._pending.clear()
        return []


def _single_key(byte: int) -> list[str]:
    if byte in _SINGLE:
        return [_SINGLE[byte]]
    return [chr(byte)] if 0x20 < byte < 0x7F else []


def _sequence_key(tail: str) -> str | None:
    """The key of what follows ``ESC [`` or ``ESC O``; modifiers (``1;2A`` is Shift and up) are left out."""
    if tail.endswith("~"):
        return _TILDE.get(tail[:-1].split(";", maxsplit=1)[0])
    return _FINAL.get(tail[-1])

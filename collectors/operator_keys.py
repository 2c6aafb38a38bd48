"""What the person at the robot says by keys: start, success, failure, discard, pause, stop, emergency stop.

Keys come from the terminal (:class:`TerminalInput`), from a device's buttons (our teleoperators), or from
several of these (:class:`KeySources`); all of them are a :class:`KeySource`.

Both Escape and the space bar are the emergency stop: Escape is found in a corner without looking, the space
bar is the largest key and is hit by either hand, and people reach for one or the other. An emergency stop by
mistake costs a few seconds; one that was missed costs an arm. Starting is Enter, which is next to neither.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from types import FrameType, TracebackType
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from collectors.terminal_keys import KeyDecoder
from pipeline.errors import InputError

_log = logging.getLogger(__name__)


class OperatorKey(StrEnum):
    """What an operator can ask for besides moving the arm."""

    START = "start"
    SUCCESS = "success"
    FAILURE = "failure"
    DISCARD = "discard"
    PAUSE = "pause"
    STOP = "stop"
    EMERGENCY_STOP = "emergency stop"
    CLEAR_FAULTS = "clear faults"


KEYS: dict[str, OperatorKey] = {
    "enter": OperatorKey.START,
    "s": OperatorKey.SUCCESS,
    "f": OperatorKey.FAILURE,
    "d": OperatorKey.DISCARD,
    "p": OperatorKey.PAUSE,
    "q": OperatorKey.STOP,
    "escape": OperatorKey.EMERGENCY_STOP,
    "space": OperatorKey.EMERGENCY_STOP,
    "c": OperatorKey.CLEAR_FAULTS,
}
"""By the names of ``collectors.terminal_keys``; letters count in either case: Caps Lock changes nothing."""

KEY_HELP = (
    "enter start · s success · f failure · d discard · p pause · q stop · "
    "SPACE or ESC emergency stop · c clear faults"
)


class KeySource(Protocol):
    """Anything with keys: a terminal, a teleoperator with buttons."""

    def take_keys(self) -> list[OperatorKey]:
        """Keys pressed since the last call, oldest first; never blocks."""
        ...


class KeySources:
    """Several sources as one."""

    def __init__(self, sources: Iterable[KeySource]) -> None:
        """Asks ``sources`` in this order."""
        self.sources = tuple(sources)

    def take_keys(self) -> list[OperatorKey]:
        """What all of them report; an emergency stop comes first, whichever source it is from."""
        keys = [key for source in self.sources for key in source.take_keys()]
        return sorted(keys, key=lambda key: key is not OperatorKey.EMERGENCY_STOP)


class KeysFromNow:
    """A source's keys from now on; of what was pressed before, only what keeps the arm still."""

    def __init__(self, source: KeySource, others: Iterable[KeySource] = ()) -> None:
        """Takes what was pressed while devices, policies and arm were getting ready, and forgets most of it.

        A start from then would set the arm in motion before anything is on the screen. The stops stay, and
        PAUSE, which holds off a start by itself. ``others`` are sources whose keys somebody else reads from
        now on: only what they have at this moment is treated in the same way.
        """
        self._source = source
        stay = (OperatorKey.EMERGENCY_STOP, OperatorKey.STOP, OperatorKey.PAUSE)
        self._early = [key for key in KeySources([source, *others]).take_keys() if key in stay]

    def take_keys(self) -> list[OperatorKey]:
        """All keys that nobody took yet."""
        early, self._early = self._early, []
        return [*early, *self._source.take_keys()]


@runtime_checkable
class TerminalUser(Protocol):
    """A teleoperator that is driven by the terminal's keys and can share another's reader."""

    def use_terminal(self, terminal: TerminalInput) -> None:
        """Reads the arm's keys from ``terminal``; to be called before ``connect``."""
        ...


class TerminalInput:
    """The keyboard of the terminal, read by a thread; a context manager.

    Inside it the terminal gives single keys without echo, and keys typed before are forgotten. Ctrl-C works
    as ever; Ctrl-Z and Ctrl-S do nothing, since a collector that is suspended or whose output is held up
    would leave its arm alone. The terminal is as before when the context ends, however it ends; SIGTERM and
    SIGHUP (the window was closed), where nobody handles them, become ``SystemExit`` so that contexts end.
    Without a terminal (a pipe, a service, a job in the background) there are simply no keys.

    One reader per terminal: two would steal each other's keys, also the emergency stop. Whoever else needs
    keys subscribes.
    """

    _being_read: ClassVar[set[int]] = set()

    def __init__(self, on_emergency_stop: Callable[[], None] | None = None, *, fd: int | None = None) -> None:
        """``on_emergency_stop`` is called at once, from the reading thread. ``fd`` is stdin by default."""
        self.on_emergency_stop = on_emergency_stop
        self.lost: str | None = None
        self._fd = fd
        self._saved: list[Any] | None = None
        self._keys: list[OperatorKey] = []
        self._listeners: list[Callable[[str], None]] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake_r = self._wake_w = self._keys_fd = -1
        self._caught: list[signal.Signals] = []

    @property
    def is_reading(self) -> bool:
        """Whether keys can come: inside the context, with a terminal that is there."""
        return self._thread is not None and self._thread.is_alive()

    def take_keys(self) -> list[OperatorKey]:
        """Keys pressed since the last call, oldest first; never blocks."""
        with self._lock:
            keys, self._keys = self._keys, []
        return keys

    def subscribe(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Calls ``listener`` with the name of every key, from the reading thread; returns the cancellation.

        Names are those of ``collectors.terminal_keys``. A held key comes again and again, as it is repeated.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def __enter__(self) -> Self:
        """Starts reading; ``InputError`` if this terminal is being read already."""
        fd = _terminal_fd(self._fd)
        if fd is None:
            return self
        if fd in self._being_read:
            raise InputError("the terminal's keys are being read already; share that TerminalInput")
        self._being_read.add(fd)
        self._fd = fd
        self._saved = termios.tcgetattr(fd)
        self._catch_signals()
        termios.tcsetattr(fd, termios.TCSANOW, _single_keys(termios.tcgetattr(fd)))
        termios.tcflush(fd, termios.TCIFLUSH)
        self._wake_r, self._wake_w = os.pipe()
        self._keys_fd = _own_descriptor(fd)
        self._thread = threading.Thread(
            target=self._read, args=(self._keys_fd,), name="terminal keys", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops reading and restores the terminal."""
        if self._saved is None or self._fd is None:
            return
        self._restore()
        if self._thread is not None:
            os.write(self._wake_w, b"x")
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = None
        for descriptor in (self._wake_r, self._wake_w, self._keys_fd):
            os.close(descriptor)
        self._being_read.discard(self._fd)
        self._saved = None
        for number in self._caught:
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_DFL)
        self._caught = []

    def _restore(self) -> None:
        if self._saved is not None and self._fd is not None:
            with contextlib.suppress(termios.error, OSError):  # the terminal may be gone
                termios.tcflush(self._fd, termios.TCIFLUSH)  # a held key's repeats are not for the shell
                termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)

    def _catch_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, self._on_signal)
                self._caught.append(number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        raise SystemExit(128 + number)

    def _read(self, fd: int) -> None:
        decoder = KeyDecoder()
        while True:
            ready, _, _ = select.select([fd, self._wake_r], [], [], decoder.wait_s(time.monotonic()))
            if self._wake_r in ready:
                return
            if not ready:
                self._take(decoder.expire(time.monotonic()))
                continue
            data = b""
            try:
                data = os.read(fd, 1024)
            except BlockingIOError:  # another reader of this terminal was quicker
                continue
            except OSError:  # the terminal was closed
                pass
            if not data:
                self.lost = "the terminal was closed; recording stops because nobody could stop it by key"
                self._press(OperatorKey.STOP)
                return
            self._take(decoder.feed(data, time.monotonic()))

    def _take(self, names: list[str]) -> None:
        for name in names:
            key = KEYS.get(name.lower())
            if key is not None:
                self._press(key)
            for listener in tuple(self._listeners):
                try:
                    listener(name)
                except Exception:  # the other keys, the emergency stop among them, must live on
                    _log.exception("key %r could not be passed on", name)

    def _press(self, key: OperatorKey) -> None:
        if key is OperatorKey.EMERGENCY_STOP and self.on_emergency_stop is not None:
            try:
                self.on_emergency_stop()
            except Exception:  # the keys must live on: the next press may succeed
                _log.exception("the emergency stop could not be passed on")
        with self._lock:
            self._keys.append(key)


def _terminal_fd(fd: int | None) -> int | None:
    """The terminal to read, or ``None``: not a terminal, or one that belongs to another job of the shell."""
    try:
        fd = sys.stdin.fileno() if fd is None else fd
        if not os.isatty(fd):
            return None
    except (AttributeError, OSError, ValueError):  # no stdin, a replaced or a closed one
        return None
    with contextlib.suppress(OSError):  # not this process's controlling terminal: no jobs to respect
        if os.tcgetpgrp(fd) != os.getpgrp():
            return None
    return fd


def _own_descriptor(fd: int) -> int:
    """The terminal once more, opened so that reading never waits; others' reads go on as they were.

    Some other code, such as ``lerobot-record``, may read the same terminal: a byte that was there a moment
    ago can be gone.
    """
    return os.open(os.ttyname(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def _single_keys(attributes: list[Any]) -> list[Any]:
    input_flags, local_flags, control_characters = 0, 3, 6
    attributes[local_flags] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    attributes[input_flags] &= ~(termios.IXON | termios.IXOFF)
    attributes[control_characters][termios.VMIN] = 1
    attributes[control_characters][termios.VTIME] = 0
    attributes[control_characters][termios.VSUSP] = b"\x00"
    return attributes

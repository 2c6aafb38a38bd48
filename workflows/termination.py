"""Ends a command that is told to end (SIGTERM) in the same order as one that a person stops (Ctrl-C).

Ray puts handlers of its own in place when it starts: the one in Python leaves by ``SystemExit``, the one in
C++ prints where the process was and aborts it, and what is under way is left as it lies.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(KeyboardInterrupt):
    """SIGTERM came, and what was under way has ended in order."""


class Termination:
    """A context manager around a Ray of this process, from before its start to after its end.

    While Ray starts, Ctrl-C waits for :meth:`take` (a second one does not); Ray's own handler of SIGTERM
    leaves by ``SystemExit``, which becomes :class:`Terminated`. Afterwards both signals raise
    ``KeyboardInterrupt``, which becomes :class:`Terminated` at the end of the block where it was SIGTERM;
    after :meth:`put_off` at the end of the block.
    At the end the handlers are as they were. In a thread that is not the main one, where Python lets nobody
    set a handler, it does nothing.
    """

    def __init__(self) -> None:
        """Nothing is changed before the ``with`` block begins."""
        self._before: dict[signal.Signals, Any] = {}
        self._arrived: tuple[int, int] | None = None
        self._told = False
        self._waiting = False
        self._late = False
        self._wakeup = -1

    def __enter__(self) -> Self:
        """Notes the handlers that are in force, and from now on which signals arrive."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}
            self._arrived = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._wakeup = signal.set_wakeup_fd(self._arrived[1], warn_on_full_buffer=False)
            if self._before[signal.SIGINT] is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._wait)
        return self

    def take(self) -> None:
        """Takes the signals back from Ray, which has started; raises ``KeyboardInterrupt`` where one came.

        While processes are started, what a handler raises can be lost: Python ignores it within the functions
        that it calls around a fork.
        """
        if not self._before:
            return
        # Anew even where Python believes it to be ours: the handler in C++ is put there behind its back.
        signal.signal(signal.SIGTERM, self._interrupt)
        self._restore(signal.SIGINT)
        came = self._end_noting()
        self._told = signal.SIGTERM in came
        if came:
            raise KeyboardInterrupt

    def put_off(self) -> None:
        """Has both signals wait until the end of the block, since Ray ends within seconds.

        Somebody who presses Ctrl-C twice would otherwise leave processes behind.
        """
        for number in self._before:
            signal.signal(number, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the handlers back; raises :class:`Terminated` where SIGTERM came."""
        # While Ray starts nothing else raises it.
        by_ray = isinstance(error, SystemExit) and self._arrived is not None
        self._end_noting()
        for number in self._before:
            self._restore(number)
        # Ray raises an interrupt of its own in place of the handler's, so that its kind says nothing.
        if by_ray or (self._told and (error is None or isinstance(error, KeyboardInterrupt))):
            raise Terminated from None
        if self._late and error is None:
            raise KeyboardInterrupt

    def _restore(self, number: signal.Signals) -> None:
        handler = self._before[number]
        # ``None``: one that was not set from Python, which cannot be put back.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _end_noting(self) -> set[int]:
        """Which of the signals have arrived since the beginning of the block; none once this was called."""
        if self._arrived is None:
            return set()
        reading, writing = self._arrived
        self._arrived = None
        signal.set_wakeup_fd(self._wakeup)
        os.close(writing)
        came = b""
        with suppress(BlockingIOError):  # nothing came, and a process that was forked holds the other end
            came = os.read(reading, 2**16)
        os.close(reading)
        return set(came) & set(_SIGNALS)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            raise KeyboardInterrupt
        self._waiting = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._late = True
        self._told |= number == signal.SIGTERM

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._told = True
        raise KeyboardInterrupt

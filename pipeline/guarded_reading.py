"""Runs a function over files of doubtful origin in child processes, which may crash or hang.

The HDF5 library can crash, loop for ever or fill the memory on a damaged file, and no exception handler helps
against that. So such files are read in a child with a time limit. A child that dies costs one result and a
few milliseconds: it is a fork of a *keeper*, a process that has imported all the function needs and
reads nothing itself. ::

    this process ──pipe── keeper (new interpreter) ──fork── child: reads item after item until it dies

Neither ``multiprocessing`` nor a pool built on it would do: its children run the main module again, which
in the labelling app is a page, and may not be started from other children, such as a data loader's workers.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.guarded_child import TIME_IS_UP, name_of

_RESTING = max(4, os.cpu_count() or 1)  # workers that wait for more work, at most
_AHEAD = 256  # results kept at most while an earlier item still runs
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); " + (
    "from pipeline.guarded_child import keep; keep(int(sys.argv[1]))"
)
# One thread each: a fork copies none but the calling one, and the workers share the cores anyway.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


def guarded_map[T, R](
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int = 1,
    timeout_s: float | Callable[[T], float] = 60.0,
) -> Generator[tuple[T, R | InputError]]:
    """Yields ``(item, function(item))`` in the order of ``items``, whatever they do to their process.

    An ``InputError`` that ``function`` raises comes in place of its result, and so does one that says that
    the child crashed, computed for longer than ``timeout_s`` seconds (or took five times that by the clock),
    or raised something unexpected. ``function`` must be importable from a module (not ``__main__``); it, the
    items and the results must be picklable. What it prints and logs is lost. A child may use half of the
    machine's memory, waits a minute for more work, also from a later call, and ends with this process.
    Raises ``TypeError`` for a function that a child could not import.
    """
    _require_importable(function)
    numbered = enumerate(items)
    running: dict[Connection, tuple[_Worker, int, T]] = {}
    done: dict[int, tuple[T, R | InputError]] = {}
    following, last = 0, None
    try:
        while following != last:
            while last is None and len(running) < max(1, workers) and len(done) < _AHEAD:
                number, item = next(numbered, (-1, None))
                if number < 0:
                    last = following + len(done) + len(running)
                    break
                limit_s = timeout_s(item) if callable(timeout_s) else timeout_s  # type: ignore[arg-type]  # is a T
                worker = _started(function, item, limit_s)
                running[worker.connection] = (worker, number, item)  # type: ignore[assignment]  # is a T
            while following in done:
                yield done.pop(following)
                following += 1
            for connection in wait(list(running)) if running else ():
                worker, number, item = running.pop(connection)  # type: ignore[call-overload]  # is a Connection
                result = worker.result()
                if worker.alive:
                    _rest(worker)
                done[number] = (item, result)
    finally:
        for worker, _, _ in running.values():
            worker.kill()


class _Worker:
    """A keeper and its child, as seen from here."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Starts the keeper, which imports what ``function`` needs."""
        self.module = _inner(function).__module__
        self.connection, theirs = Pipe()
        self.alive = True
        self._request: tuple[Any, Any, float] | None = None
        search_path = json.dumps([path or str(Path.cwd()) for path in sys.path])
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno()), search_path],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # Ctrl-C is for this process, which then ends the children
        )
        theirs.close()
        self.connection.send(function)

    def ask(self, function: Callable[..., Any], item: Any, limit_s: float) -> None:
        """Sends one item. Raises ``OSError`` if the keeper has ended meanwhile."""
        self._request = (function, item, limit_s)
        self.connection.send(self._request)

    def result(self) -> Any:
        """The answer to what was asked: the function's result or an ``InputError``. Waits for it."""
        assert self._request is not None
        _, item, limit_s = self._request
        try:
            kind, value = self.connection.recv()
        except Exception as error:  # the keeper is gone, or killed in the middle of an answer
            self.kill()
            return InputError(f"{name_of(item)}: the process that read it ended ({type(error).__name__})")
        if kind == "result":
            return value
        if kind == "error":
            return InputError(value)
        if -value in TIME_IS_UP:
            return InputError(
                f"{name_of(item)}: reading it did not end within {limit_s:.3g} s: the file is damaged"
            )
        return InputError(f"{name_of(item)}: reading it crashed ({_cause(value)}): the file is damaged")

    def kill(self) -> None:
        """Ends keeper and child at once."""
        self.alive = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()
        self.connection.close()

    @property
    def usable(self) -> bool:
        """Whether it waits for work, as far as one can tell."""
        return self.alive and self._keeper.poll() is None and not self.connection.poll()


_idle: list[_Worker] = []
_lock = threading.Lock()


def _started(function: Callable[..., Any], item: Any, limit_s: float) -> _Worker:
    """A worker that has been given the item: one that waits and has imported the function, else a new one."""
    while True:
        worker = _waiting(_inner(function).__module__) or _Worker(function)
        try:
            worker.ask(function, item, limit_s)
            return worker
        except OSError:  # it has just ended
            worker.kill()
        except BaseException:
            worker.kill()
            raise


def _waiting(module: str) -> _Worker | None:
    with _lock:
        fitting = [worker for worker in _idle if worker.module == module]
        for worker in reversed(fitting):
            _idle.remove(worker)
            if worker.usable:
                return worker
            worker.kill()
    return None


def _rest(worker: _Worker) -> None:
    with _lock:
        _idle.append(worker)
        while len(_idle) > _RESTING:
            _idle.pop(0).kill()


@atexit.register
def _end() -> None:
    with _lock:
        while _idle:
            _idle.pop().kill()


# A forked process has its parent's pipes but must not talk through them.
os.register_at_fork(after_in_child=_idle.clear)


def _require_importable(function: Callable[..., Any]) -> None:
    inner = _inner(function)
    if getattr(inner, "__module__", None) == "__main__" or "<" in getattr(inner, "__qualname__", ""):
        raise TypeError(f"{function!r} cannot be imported by another process: define it in a module")


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a functools.partial calls, or the function itself."""
    inner: Callable[..., Any] = getattr(function, "func", function)
    return inner


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

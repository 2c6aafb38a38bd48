"""The other end of :mod:`pipeline.guarded_reading`: the keeper, and the children that it forks to read."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from multiprocessing.connection import Connection

from pipeline.errors import InputError, one_line

_IDLE_S = 60.0  # a child that gets nothing to do for so long ends, and its keeper with it
_NICENESS = 5
_PATIENCE = 5  # times the limit, by the clock: what loops for ever computes, a busy machine or disk waits
_MEMORY_SHARE = 0.5  # of the machine's, for one child: a damaged length must not take all of it
# What ends a child whose time is up.
TIME_IS_UP = (signal.SIGPROF, signal.SIGALRM)


def keep(descriptor: int) -> None:
    """The keeper: forks a child, and another whenever one dies, until this process has no more work."""
    connection: Connection = Connection(descriptor)
    _restrict()
    with contextlib.suppress(Exception):  # what cannot be imported is reported with each item
        connection.recv()
    while True:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                read_items(connection)
                status = 0
            finally:
                os._exit(status)
        code = _end_of(child, connection)
        if code == 0:
            return
        try:
            connection.send(("died", code))
        except OSError:
            return


def _end_of(child: int, connection: Connection) -> int:
    """Waits for the child to end, ends it as soon as the process that it works for is gone.

    Whoever takes up a killed process's work must not meet a child of it that writes on.
    """
    ended = os.pidfd_open(child)
    try:
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        poller.register(
            connection.fileno(), 0
        )  # requests are the child's; that the other end is gone is ours
        if ended not in dict(poller.poll()):
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_items(connection: Connection) -> None:
    """The child: one answer for each request, until there are no more."""
    for number in TIME_IS_UP:
        signal.signal(number, signal.SIG_DFL)
    while connection.poll(_IDLE_S):
        try:
            function, item, limit_s = connection.recv()
        except EOFError:
            return
        except Exception as error:  # unpickling imports modules, which may raise anything
            connection.send(("error", f"{type(error).__name__}: {one_line(error, None)}"))
            continue
        # The kernel ends the child when time is up, whatever loop it is in and also if we have died.
        signal.setitimer(signal.ITIMER_PROF, max(limit_s, 1e-3))
        signal.setitimer(signal.ITIMER_REAL, max(_PATIENCE * limit_s, 1e-3))
        try:
            answer = ("result", function(item))
        except InputError as error:
            answer = ("error", one_line(error, None))
        except Exception as error:  # one bad file must not stop the others, whatever it does
            answer = ("error", f"{name_of(item)}: {type(error).__name__}: {one_line(error, None)}")
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send(answer)
        except OSError:
            return
        except Exception as error:  # a result that cannot be pickled
            connection.send(("error", f"{name_of(item)}: {type(error).__name__}: {one_line(error, None)}"))


def _restrict() -> None:
    """Limits what a damaged file can do to the rest of the machine."""
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        memory = int(_MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def name_of(item: object) -> str:
    """What messages call an item: itself, or the first part of a tuple, such as a path and options."""
    return str(item[0] if isinstance(item, tuple) and item else item)

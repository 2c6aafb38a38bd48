"""Which errors of a step may pass by themselves, and what a person is told of those that do not.

Worth another try is only what is wrong with the moment, not with the work: a network file system whose
server restarts, a disk that times out, a file that somebody holds. Bad input (``InputError``), work that
cannot succeed (``Failure``) and programming errors give the same again, hours later. So does a full disk:
nothing in a step frees one, and each try writes as much again; a missing file or permission needs a person.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from pipeline.errors import Failure, InputError

# Seconds before the second and the third try.
PAUSES_S = (1.0, 5.0)

_PASSING = {
    # The device or the server behind a mount: restarts, fails over, drops a request.
    errno.EIO,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ENOLCK,
    errno.ETIMEDOUT,
    # The network between.
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EPIPE,
    errno.ESHUTDOWN,
    # Somebody else's moment.
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
}
_ADVICE = {
    errno.ENOSPC: "the disk is full: see 'recap gc' and 'recap cache trim'",
    errno.EDQUOT: "your share of the disk is used up: see 'recap gc' and 'recap cache trim'",
    errno.EMFILE: "too many files are open: raise the limit with 'ulimit -n'",
    errno.ENFILE: "too many files are open on this machine",
    errno.EROFS: "the disk is mounted read-only: look at the kernel's log",
}


def may_pass(error: BaseException) -> bool:
    """Whether the same work may succeed in a moment: an I/O error of the kinds above, or caused by one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
        # Readers report what they could not read as InputError, from the OSError that says why.
        cause = cause.__cause__
    return False


def persistently[T](act: Callable[[], T], pauses_s: tuple[float, ...] = PAUSES_S) -> T:
    """``act()``; again after each pause as long as it raises what :func:`may_pass`."""
    for pause_s in pauses_s:
        try:
            return act()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(pause_s)
    return act()


def in_one_line(name: str, error: BaseException) -> Exception:
    """The exception that step ``name`` raised, as the driver raises it: told in one line."""
    if isinstance(error, InputError | Failure):
        kind = InputError if isinstance(error, InputError) else Failure
        return kind(f"step {name}: {error}")
    first_line = (str(error).strip().splitlines() or [""])[0]
    text = f"step {name} failed: {type(error).__name__}: {first_line}"
    if may_pass(error):
        text += f" (tried {len(PAUSES_S) + 1} times)"
    advice = _ADVICE.get(error.errno or 0) if isinstance(error, OSError) else None
    return Failure(f"{text}; {advice}" if advice else text)

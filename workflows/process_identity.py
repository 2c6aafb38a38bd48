"""Who a process is, so that one that has ended is never taken for another that was given its number."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ProcessIdentity:
    """The machine's name, the process's number there, and when it began: the boot and ticks since then."""

    host: str
    pid: int
    birth: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """That of a process of this machine; an empty birth where there is none."""
        return cls(socket.gethostname(), pid, _birth(pid))

    @classmethod
    def mine(cls) -> ProcessIdentity:
        """That of this process."""
        return cls.of(os.getpid())

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ProcessIdentity:
        """The inverse of ``dataclasses.asdict``."""
        return cls(str(document["host"]), int(document["pid"]), str(document["birth"]))

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this machine, so that :meth:`is_alive` can be asked."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether just this process still runs; only of one that :attr:`is_here`."""
        return bool(self.birth) and _birth(self.pid) == self.birth


def _birth(pid: int) -> str:
    """Empty for a process that is not there, or has ended and was not waited for yet."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            # The name, in brackets, may hold anything; state is the first field after it, start the 20th.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return "" if fields[0] in "ZX" else f"{boot}:{fields[19]}"
        return ""
    import psutil

    with suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).create_time())
    return ""

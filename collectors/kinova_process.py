"""Starting the driver as a process of its own, and stopping the arm from a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from collectors.kinova_link import DriverSettings, Link, Mode, socket_pair


def start_process(settings: DriverSettings, log: str | None = None) -> tuple[subprocess.Popen[bytes], Link]:
    """Starts a driver process and sends it its settings; returns the process and our end of the link.

    It is in a session of its own, so that Ctrl-C in the terminal goes to us alone and we can stop the arm in
    order. ``log`` is a file for what it prints; without it, that is dropped: the vendor's client prints from
    its threads, and what matters comes over the link.
    """
    ours, theirs = socket_pair()
    environment = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "collectors.kinova_driver", "--link", str(theirs.fileno())]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
        )
    finally:
        theirs.close()
        if log:
            os.close(output)
    link = Link(ours)
    link.send("settings", **settings.to_dict())
    return process, link


def start_stopping(settings: DriverSettings, log: str | None = None) -> tuple[subprocess.Popen[bytes], Link]:
    """Starts a process that connects anew, sends a zero twist and Stop, and ends."""
    return start_process(replace(settings, mode=Mode.STOP), log)


def stop_afresh(settings: DriverSettings, log: str | None = None) -> bool:
    """The same, and waits for it: whether the arm took the stop."""
    process, link = start_stopping(settings, log)
    try:
        return process.wait(settings.stop_within_s + 15.0) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    finally:
        link.close()

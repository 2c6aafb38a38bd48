"""The labelling app as tests start it: a real server process on a port of its own, which may be killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from labeling_app.launch import streamlit_command
from tests.labeling_app.browser import Browser, chromium

needs_browser = pytest.mark.skipif(
    chromium() is None, reason="needs a browser: apt-get install chromium (Debian, Ubuntu)"
)
IDLE = "document.querySelector('[data-testid=stApp]')?.getAttribute('data-test-script-state') == 'notRunning'"
EPISODE = "document.querySelector('.rc')?.dataset.episode"
FRAME = "Number(document.querySelector('.rc').dataset.frame)"
# Both cameras have their first picture, and the film runs.
PLAYING = (
    "(() => { const all = [...document.querySelectorAll('video')];"
    " return all.length > 0 && all.every((v) => v.readyState >= 2 && v.currentTime > 0.05); })()"
)


class Server:
    """One server for one workspace. ``with Server(root) as server``: it answers, and ends with the block."""

    def __init__(self, workspace: Path) -> None:
        """Picks a free port; starts nothing yet."""
        self.workspace = workspace
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts the server and waits until it answers."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the server."""
        self.stop(signal.SIGTERM)

    def start(self) -> None:
        """Starts it, also again after :meth:`stop`, at the same address."""
        self.process = subprocess.Popen(
            streamlit_command(self.workspace, port=self.port, open_browser=False),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.workspace,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/_stcore/health", timeout=2):
                    return
            except OSError:
                assert time.monotonic() < deadline, "the app did not start within a minute"
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends it, by default without a chance to write anything."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(20)


def next_episode(browser: Browser, before: str) -> str:
    """The episode on the page once it is another than ``before``."""
    return str(browser.wait_for(f"({EPISODE}) != {before!r} && ({EPISODE})"))

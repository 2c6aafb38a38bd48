"""One pass through the app as an annotator has it: a real server, a real browser, the keyboard."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from labeling_app.launch import streamlit_command
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.labeling_app.browser import Browser, chromium
from tests.tiny_episodes import EpisodeMaker

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="needs a browser: apt-get install chromium (Debian, Ubuntu)"
)
IDLE = "document.querySelector('[data-testid=stApp]')?.getAttribute('data-test-script-state') == 'notRunning'"
FOCUSED = "(document.querySelector('input')?.focus(), document.activeElement.tagName == 'INPUT')"
PLAYING = "document.querySelector('video')?.currentTime > 0.2"


@pytest.fixture
def address(workspace: Workspace, make_episode: EpisodeMaker) -> Iterator[str]:
    """A running app with two episodes."""
    make_episode()
    make_episode(task="pick up the <b>blue</b> cube")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        streamlit_command(workspace.root, port=port, open_browser=False),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=workspace.root,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_until_served(address: str) -> None:
    """Returns when the server answers; streamlit needs a few seconds to start."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the app did not start within a minute")


def test_an_annotator_labels_with_the_keyboard(address: str, workspace: Workspace, tmp_path: Path) -> None:
    wait_until_served(address)
    store = LabelStore(workspace.labels_path)
    with Browser(tmp_path / "profile") as browser:
        browser.open(address)
        browser.wait_for_text("Your name", 60)
        browser.wait_for(FOCUSED)
        browser.type("Ana")
        browser.wait_for("document.querySelector('input').value == 'Ana'")
        browser.run("[...document.querySelectorAll('button')].find(b => b.innerText == 'Start').click()")

        browser.wait_for_text("pick up the red cube", 60)
        browser.wait_for(PLAYING)
        browser.wait_for(IDLE)
        picture = Path(os.environ.get("LABELING_SCREENSHOT", tmp_path / "page.png"))
        browser.screenshot(picture)
        shot = cv2.imread(str(picture))
        assert shot is not None
        assert shot.shape == (800, 1280, 3)
        assert browser.run("document.querySelector('video').videoWidth") > 900

        # Letters typed into the note are text, not answers.
        browser.run("document.querySelector('input[placeholder^=\"a note\"]').focus()")
        for key in "sfx":
            browser.press(key)
        browser.wait_for("document.activeElement.value == 'sfx'")
        browser.run("document.activeElement.blur()")
        browser.wait_for(IDLE)
        assert "0 of 2 labelled" in browser.text()

        browser.press("s")
        browser.wait_for_text("1 of 2 labelled")
        browser.wait_for_text("pick up the <b>blue</b> cube")
        browser.wait_for(IDLE)
        browser.press("f")
        browser.wait_for_text("All episodes are labelled")
        browser.wait_for(IDLE)
        browser.press("u")
        browser.wait_for_text("1 of 2 labelled")
        browser.wait_for_text("Did the robot do this?")
    (label,) = store.current().values()
    assert (label.annotator, label.outcome, label.note) == ("Ana", "success", "sfx")

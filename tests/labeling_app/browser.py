"""A headless Chromium for tests, driven over its DevTools pipe: no driver, no library, no network port."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
)
# DevTools reads requests from descriptor 3 and writes answers to 4: the two given ones become these.
AS_3_AND_4 = """
import fcntl, os, sys
requests, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(requests, 3), os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
# Keys that are no letters: DevTools' name, code, virtual key code, and the text that they type.
SPECIAL_KEYS = {
    " ": ("Space", 32, " "),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Backspace": ("Backspace", 8, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
}


def chromium() -> str | None:
    """The browser's command, if there is one on this machine."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return None


class Browser:
    """One page in a window of 1280×800 pixels."""

    def __init__(self, profile: Path) -> None:
        """``profile`` is an empty folder for the browser's own files."""
        self.profile = profile
        self._buffer = b""
        self._number = 0
        self._session: str | None = None

    def __enter__(self) -> Self:
        """Starts the browser and opens an empty page."""
        command = chromium()
        assert command is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                AS_3_AND_4,
                str(to_browser),
                str(from_browser),
                command,
                *FLAGS,
                "--window-size=1280,800",
                f"--user-data-dir={self.profile}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        pages = self._call("Target.getTargets")["targetInfos"]
        page = next(target for target in pages if target["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self.resize(1280, 800)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the browser."""
        with contextlib.suppress(OSError, TimeoutError, AssertionError):
            self._session = None
            self._call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def open(self, url: str) -> None:
        """Goes to a page; :meth:`wait_for` tells when it is there."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression on the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        """All text that the page shows."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait_for(self, script: str, within_s: float = 90.0) -> Any:
        """Waits until a JavaScript expression is true and returns its value."""
        deadline = time.monotonic() + within_s
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"not seen within {within_s} s: {script}\n{self.text()}"
            time.sleep(0.1)
        return value

    def wait_for_text(self, text: str, within_s: float = 90.0) -> None:
        """Waits until the page shows ``text``."""
        self.wait_for(f"document.body && document.body.innerText.includes({json.dumps(text)})", within_s)

    def press(self, key: str) -> None:
        """Presses and releases a key, as a person does: a letter, a digit, or one of ``SPECIAL_KEYS``."""
        if key in SPECIAL_KEYS:
            name, number, text = SPECIAL_KEYS[key]
            code: dict[str, Any] = {"key": key, "code": name, "windowsVirtualKeyCode": number}
        else:
            text = key.lower()
            name = f"Digit{key}" if key.isdigit() else f"Key{key.upper()}"
            code = {"key": text, "code": name, "windowsVirtualKeyCode": ord(key.upper())}
        self._call("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {}))
        self._call("Input.dispatchKeyEvent", type="keyUp", **code)

    def resize(self, width: int, height: int, scheme: str = "light") -> None:
        """Makes the window that large, in pixels, and the system's colours ``light`` or ``dark``."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self._call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Saves what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _next_message(self, within_s: float = 30.0) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], within_s)
            if not ready:
                raise TimeoutError(f"the browser did not answer within {within_s} s")
            received = os.read(self._read, 1 << 20)
            assert received, "the browser ended"
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

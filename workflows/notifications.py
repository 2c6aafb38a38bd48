"""Telling somebody how a run ended: a command that gets the summary, or a webhook.

Neither can fail a run: what went wrong comes back as a sentence, to be noted. Where the machine
stops between the telling and the noting of it, somebody is told twice; nobody is forgotten.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import InputError

COMMAND_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 10.0
PAUSES_S = (1.0, 4.0)
"""Between the attempts to reach a webhook: there is one more attempt than pauses."""


@dataclass(frozen=True)
class Target:
    """A command line (no shell), or a web address, or both, or neither.

    Raises ``InputError`` for a command that is not there and an address that is not http or https.
    """

    command: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        """Checks the form; whether the command is there is asked by :func:`require_command`."""
        try:
            shlex.split(self.command)
        except ValueError as error:
            raise InputError(f"--notify-command: {error}") from None
        if self.url:
            _require_address(self.url)

    @property
    def is_set(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self.command.strip() or self.url)

    def words(self) -> str:
        """Whom, for lists. Of a web address only the host is named: the rest is often a secret."""
        parts = []
        if self.command.strip():
            parts.append(f"command {shlex.split(self.command)[0]}")
        if self.url:
            parts.append(shown_address(self.url))
        return " and ".join(parts)


def shown_address(url: str) -> str:
    """What may be printed of a web address: the rest is often a secret."""
    return f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/..." if url else ""


def shown_command(command: str) -> str:
    """What may be printed of a command: its program, since the rest may hold a secret."""
    words = shlex.split(command)
    return " ".join([*words[:1], *(["..."] if words[1:] else [])])


def require_command(command: str) -> None:
    """Raises ``InputError`` where the first word of a command is no program on this machine."""
    words = shlex.split(command)
    if words and shutil.which(words[0]) is None:
        raise InputError(f"--notify-command: there is no program {words[0]!r}: give its full path")


def notify(
    target: Target, summary: Mapping[str, Any], *, pauses_s: Sequence[float] = PAUSES_S
) -> dict[str, str]:
    """Tells everybody; returns for each of ``command`` and ``url`` that is set ``ok`` or what went wrong."""
    said = {}
    if target.command.strip():
        said["command"] = run_command(target.command, summary)
    if target.url:
        said["url"] = post(target.url, summary, pauses_s=pauses_s)
    return said


def run_command(command: str, summary: Mapping[str, Any], timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Runs a command with the summary as JSON on its standard input and the main points in variables.

    The variables are ``RECAP_`` and the summary's key in capitals, for each key whose value is a text or a
    number. Returns ``ok``, or one line that says what went wrong. It is ended after ``timeout_s`` seconds.
    """
    variables = {
        f"RECAP_{name.upper()}": str(value)
        for name, value in summary.items()
        if isinstance(value, str | int | float)
    }
    try:
        done = subprocess.run(
            shlex.split(command),
            input=json.dumps(summary, ensure_ascii=False),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, **variables},
        )
    except subprocess.TimeoutExpired:
        return f"ended after {timeout_s:g} s without an answer"
    except (OSError, ValueError) as error:
        return _line(error)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["no word"]
        return f"status {done.returncode}: {words[0][:200]}"
    return "ok"


def post(
    url: str,
    summary: Mapping[str, Any],
    *,
    pauses_s: Sequence[float] = PAUSES_S,
    timeout_s: float = REQUEST_TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """POSTs the summary as JSON; tries again after each pause where that may help.

    That is: no connection, no answer within ``timeout_s`` seconds, 429, and 500 and above. Redirections are
    not followed. Returns ``ok``, or one line that says what went wrong.
    """
    problem, final = _post_once(url, summary, timeout_s)
    for pause in pauses_s:
        if final:
            break
        sleep(pause)
        problem, final = _post_once(url, summary, timeout_s)
    return problem


def _post_once(url: str, summary: Mapping[str, Any], timeout_s: float) -> tuple[str, bool]:
    """What came of it, and whether that settles it."""
    import http.client
    import urllib.error
    import urllib.request

    class _NoRedirection(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    request = urllib.request.Request(
        url,
        data=json.dumps(summary, ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "recap"},
    )
    try:
        with urllib.request.build_opener(_NoRedirection).open(request, timeout=timeout_s) as answer:
            answer.read(1024)
            return "ok", True
    except urllib.error.HTTPError as error:
        with error:
            return f"answered {error.code} {error.reason}", error.code < 500 and error.code != 429
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, http.client.InvalidURL) or not isinstance(
            error, OSError | http.client.HTTPException
        ):
            return f"{type(error).__name__}: no such address can be asked for", True  # the rest names it
        return _line(getattr(error, "reason", error)), False


def _require_address(url: str) -> None:
    # No more than the host may be said of it.
    if not all("!" <= c <= "~" for c in url):
        raise InputError(
            "--notify-url may hold printable ASCII characters only: write others as %xx, as in a browser"
        )
    try:
        parts = urlsplit(url)
        _ = parts.port  # asked for, since only that checks it
    except ValueError:
        raise InputError("--notify-url is no web address: its host or port is wrong") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError("--notify-url must be a web address, as https://example.org/hook")
    if parts.username is not None or parts.password is not None:
        raise InputError("--notify-url cannot have a user name or password in it: use one with a token")


def _line(error: object) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]

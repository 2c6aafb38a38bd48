"""Telling somebody: a real web server that fails in several ways, and real commands."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.notifications import Target, notify, post, require_command, run_command
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_outside import Outside, writable_by_others
from workflows.schedule_store import ScheduleStore
from workflows.schedule_tick import Tick

SUMMARY = {
    "schedule": "nightly",
    "outcome": "kept",
    "reason": "not better: p = 0.3 …",
    "iteration": 4,
    "log": None,
}


@contextmanager
def web_server(*answers: int, delay_s: float = 0.0) -> Iterator[tuple[str, list[Any]]]:
    """A server on this machine that gives these answers in turn, then 200; its address, what it was sent."""
    sent: list[Any] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.headers["Content-Type"], json.loads(body)))
            time.sleep(delay_s)
            status = left.pop(0) if left else 200
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            sent.append("followed")
            self.send_error(200)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook/secret", sent
    finally:
        server.shutdown()
        server.server_close()


def test_the_summary_is_posted_as_json() -> None:
    with web_server() as (url, sent):
        assert notify(Target(url=url), SUMMARY) == {"url": "ok"}
    assert sent == [("application/json; charset=utf-8", SUMMARY)]


@pytest.mark.parametrize(
    ("answers", "said", "asked"),
    [
        ((503,), "ok", 2),
        ((500, 429), "ok", 3),
        ((500, 502, 503), "answered 503", 3),
        ((404,), "answered 404", 1),
        ((302,), "answered 302", 1),
    ],
)
def test_what_may_pass_is_tried_again(answers: tuple[int, ...], said: str, asked: int) -> None:
    slept: list[float] = []
    with web_server(*answers) as (url, sent):
        assert post(url, SUMMARY, sleep=slept.append).startswith(said)
    assert len(sent) == asked and slept == [1.0, 4.0][: asked - 1] and "followed" not in sent


def test_a_server_that_is_slow_or_not_there_is_given_up() -> None:
    with web_server(delay_s=1.0) as (url, sent):
        assert "timed out" in post(url, SUMMARY, pauses_s=(0.0,), timeout_s=0.2)
    assert len(sent) == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "ConnectionRefusedError" in post(f"http://127.0.0.1:{port}", SUMMARY, pauses_s=())


def test_a_command_gets_the_summary_and_variables(tmp_path: Path) -> None:
    script = tmp_path / "tell me.py"
    script.write_text(
        "import os, pathlib, sys\n"
        "pathlib.Path(sys.argv[1]).write_text(sys.stdin.read() + os.environ['RECAP_OUTCOME'] + "
        "os.environ['RECAP_ITERATION'] + str('RECAP_LOG' in os.environ))\n"
    )
    out = tmp_path / "out"
    # A text with what a shell would take for commands stays one word.
    assert run_command(f"{sys.executable} '{script}' '{out}'", {**SUMMARY, "x": "$(touch bad); `ls`"}) == "ok"
    text = out.read_text()
    assert (
        text.endswith("kept4False")
        and json.loads(text.removesuffix("kept4False"))["reason"] == SUMMARY["reason"]
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("-c 'import sys; sys.exit(\"no network\")'", "status 1: no network"),
        ("-c 'import time; time.sleep(60)'", "ended after 0.5 s"),
        ("-c 'import os; os.kill(os.getpid(), 9)'", "status -9"),
    ],
)
def test_a_command_that_fails_is_a_sentence(command: str, said: str) -> None:
    assert said in run_command(
        f"{sys.executable} {command}", SUMMARY, timeout_s=0.5 if "sleep" in command else 30
    )


def test_a_command_that_is_not_there_is_a_sentence() -> None:
    assert "FileNotFoundError" in run_command("/no/such/program", SUMMARY)
    with pytest.raises(InputError, match="there is no program 'nosuchprogram'"):
        require_command("nosuchprogram --now")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org",
        "file:///etc/passwd",
        "example.org/x",
        "http://",
        "http://a:99999/",
        "http://a b/",
        "https://u:p@a/",
        "https://a:TOKEN/",
        "https://a/TOKEN\x7f",
        "https://a/TOKEN\n",
        "https://a/TOKÉN",
        "https://ä.example/TOKEN",
    ],
)
def test_only_web_addresses_are_taken(url: str) -> None:
    with pytest.raises(InputError, match="--notify-url") as caught:
        Target(url=url)
    assert "TOK" not in str(caught.value) and "\n" not in str(caught.value)


def test_what_went_wrong_does_not_tell_the_address() -> None:
    assert "TOKEN" not in post("http://127.0.0.1/T0/TOKEN\x7f?key=TOKEN", SUMMARY, pauses_s=())
    with pytest.raises(InputError) as caught:
        Target("curl -H 'TOKEN")
    assert "TOKEN" not in str(caught.value)


def test_lists_do_not_show_the_secret_of_an_address() -> None:
    assert Target("/usr/bin/mail -s x", "https://hooks.example.org/T0/B1/secret?x=y").words() == (
        "command /usr/bin/mail and https://hooks.example.org/..."
    )


def test_a_run_is_told_of_once_and_never_failed_by_it(tmp_path: Path) -> None:
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    store = ScheduleStore(tmp_path)
    with web_server(404) as (url, sent):
        store.define(Schedule("test", "* * * * *", notify_url=url, notify_command="false"), start, new=True)

        def run(root: Path, run: Run, attempt: int, log: Path) -> int:
            assert store.register(run.id, attempt, start, {}, ProcessIdentity.mine())
            store.note(run.id, Kind.ENDED, start, SUMMARY, attempt=attempt, notify=True)
            return 0

        for _ in range(2):
            report = Tick(
                Workspace(tmp_path), Outside(now=lambda: start + timedelta(minutes=1), run=run)
            ).do()
    [one] = store.history()
    noted = one.last(Kind.NOTIFIED)
    assert one.outcome == "kept" and [body for _, body in sent] == [SUMMARY] and report.lines == []
    assert noted is not None and noted.document == {
        "command": "status 1: no word",
        "url": "answered 404 Not Found",
    }


def test_no_command_is_run_that_others_could_have_written(tmp_path: Path) -> None:
    told = []

    def tell(target: Target, summary: Mapping[str, Any]) -> dict[str, str]:
        told.append(target)
        return {"url": "ok"}

    outside = Outside(tell=tell)
    database = tmp_path / "schedules.sqlite"
    database.touch(0o600)
    target = Target("true", "https://example.org")
    outside.tell_safely(target, SUMMARY, database)
    database.chmod(0o666)
    said = outside.tell_safely(target, SUMMARY, database)
    assert told == [target, Target("", "https://example.org")]
    assert f"others can write {database}:" in said["command"]
    # Who can write the folder can put a journal there, which SQLite plays back.
    database.chmod(0o600)
    for mode in (0o770, 0o707, 0o1777):
        tmp_path.chmod(mode)
        assert f"others can write {tmp_path}:" in outside.tell_safely(target, SUMMARY, database)["command"]
    tmp_path.chmod(0o755)
    assert outside.tell_safely(target, SUMMARY, database) == {"url": "ok"} and told[-1] == target


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_no_command_is_run_from_the_folder_of_somebody_else(tmp_path: Path) -> None:
    database = tmp_path / "schedules.sqlite"
    database.touch(0o600)
    for path in (database, tmp_path):
        os.chown(path, 12345, -1)
        assert writable_by_others(database) == path
        os.chown(path, 0, -1)
    assert writable_by_others(database) is None

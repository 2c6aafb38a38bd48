"""A command that is stopped by Ctrl-C or SIGTERM says so in one line, and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.workflows.test_value_training_command import make_workspace
from workflows.ray_folder import PREFIX
from workflows.termination import Terminated, Termination

ROOT = Path(__file__).parents[2]
STOPPED = "recap: stopped; the same command goes on where it was\n"


@contextmanager
def running(words: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, whose temporary files go to ``folder``."""
    command = [sys.executable, "-m", "workflows.cli", *words]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A place for temporary files whose path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        yield Path(folder)


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    settings = make_workspace(tmp_path, []).config_path
    os.mkfifo(settings)  # who reads the settings waits
    with running(["value", "train", "--workspace", str(tmp_path)], tmp_path) as process:
        deadline = time.monotonic() + 60
        writer = -1
        while writer < 0 and process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):  # nobody reads yet
                writer = os.open(settings, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
        os.close(writer)
    assert (process.returncode, *said) == (130, "", STOPPED)


def test_a_command_with_ray_that_is_told_to_end_leaves_no_process_and_no_trace(
    tmp_path: Path, short_folder: Path
) -> None:
    make_workspace(tmp_path / "lab", ["success", "failure"] * 2)
    words = ["value", "train", "--quick", "--workers", "2", "--workspace", str(tmp_path / "lab")]
    with running(words, short_folder) as process:
        assert process.stderr is not None
        said = [next(process.stderr), next(process.stderr)]
        rays = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        out, rest = process.communicate(timeout=120)
    assert said[0].startswith("starting Ray on") and said[1].endswith("started\n"), said
    assert (process.returncode, out, rest) == (143, "", STOPPED)
    names = {_name(one) for one in rays}
    _, alive = psutil.wait_procs(rays, timeout=30)
    assert len(rays) > 4 and not alive, (names, alive)
    assert not list(short_folder.glob(f"{PREFIX}*"))


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return "gone"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of a command; as they were, afterwards."""
    assert threading.current_thread() is threading.main_thread()
    of_command: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in of_command.items()}
    yield
    found = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert found == of_command


@pytest.mark.usefixtures("handlers")
def test_what_comes_while_ray_starts_is_not_lost() -> None:
    with pytest.raises(Terminated), Termination():
        sys.exit(signal.SIGTERM)  # as Ray's handler, until its start is over
    with pytest.raises(Terminated), Termination() as termination:
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray's, whose exception Python ignored
        signal.raise_signal(signal.SIGTERM)
        termination.take()
    began = []
    with pytest.raises(KeyboardInterrupt) as stop, Termination() as termination:
        signal.raise_signal(signal.SIGINT)
        began.append("Ray")
        termination.take()
        began.append("work")
    assert began == ["Ray"] and not isinstance(stop.value, Terminated)
    with pytest.raises(KeyboardInterrupt), Termination():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # it takes too long
        began.append("Ray")
    assert began == ["Ray"]
    with pytest.raises(SystemExit), Termination() as termination:
        termination.take()
        sys.exit(3)


@pytest.mark.usefixtures("handlers")
def test_it_is_known_which_signal_ended_the_work() -> None:
    for number, kind in ((signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)):
        with pytest.raises(KeyboardInterrupt) as stop, Termination() as termination:
            termination.take()
            try:
                signal.raise_signal(number)
            finally:
                termination.put_off()
                signal.raise_signal(number)  # an impatient second one
        assert type(stop.value) is kind


@pytest.mark.usefixtures("handlers")
def test_what_comes_while_ray_ends_stops_what_would_come_next() -> None:
    for number, kind in ((signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)):
        ended = False
        with pytest.raises(KeyboardInterrupt) as stop, Termination() as termination:
            termination.take()
            termination.put_off()
            signal.raise_signal(number)
            ended = True
        assert ended and type(stop.value) is kind
    with pytest.raises(ValueError, match="its own"), Termination() as termination:
        termination.take()
        termination.put_off()
        signal.raise_signal(signal.SIGINT)
        raise ValueError("its own reason counts")

"""The command that starts the app: on this computer freely, for others only with sign-in."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from labeling_app.launch import LOOPBACK, require_free_port, streamlit_command
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from workflows.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and a home without secrets of anybody's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_this_computers_own_addresses_need_no_sign_in(address: str) -> None:
    assert address in streamlit_command(Path("w"), address=address)


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "lab.example"])
def test_an_address_that_others_reach_is_refused_without_sign_in(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[auth\]"):
        streamlit_command(Path("w"), address=address)
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    secrets.write_text("[auth\n")
    with pytest.raises(InputError, match=r"secrets\.toml"):
        streamlit_command(Path("w"), address=address)
    secrets.write_text('[auth]\nclient_id = "x"\n')
    assert address in streamlit_command(Path("w"), address=address)


def test_a_port_in_use_and_bad_rules_are_one_line_at_start(
    workspace: Workspace, make_episode: EpisodeMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    make_episode()
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        words = ["label", "--workspace", str(workspace.root), "--no-browser", "--port", str(port)]
        assert main(words) == 2
        error = capsys.readouterr().err
        assert f"port {port} is in use" in error
        assert error.count("\n") == 1
        workspace.config_path.write_text("[labels]\ndouble_share = 2\n")
        assert main(words) == 2
        assert "double_share" in capsys.readouterr().err
    require_free_port(LOOPBACK, port)


def test_the_server_ends_with_a_command_that_was_killed(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    make_episode()
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    code = "import sys; from workflows.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["label", "--workspace", str(workspace.root), "--no-browser", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as command:
        within(60, lambda: answers(port))
        command.send_signal(signal.SIGKILL)
    within(30, lambda: not answers(port))


def answers(port: int) -> bool:
    """Whether an app listens there."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/_stcore/health", timeout=2):
            return True
    except OSError:
        return False


def within(seconds: float, condition: Callable[[], bool]) -> None:
    """Waits until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)

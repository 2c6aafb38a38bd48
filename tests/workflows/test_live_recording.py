"""``recap record`` by a person at the keyboard of a real terminal, on the simulated arm in real time."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.episode import EpisodeInfo, Source
from pipeline.episode_file import EpisodeReader
from pipeline.workspace import Workspace
from tests.pipeline.policy_serving import Weighing, serving
from workflows.cli import main

TASK = "pick up the red cube"
# The terminal becomes the process's own, so that Ctrl-C and jobs work as for a person.
IN_ITS_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
UP = b"\x1b[A"  # the arrow: forward
PATIENCE_S = 90.0  # torch alone takes many seconds to import on a busy machine


class Terminal:
    """A person's terminal: what is on it, and the keyboard."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.master, self.process = master, process
        self.seen = ""

    def wait_for(self, pattern: str) -> str:
        """Reads on until the pattern appears; what was read is used up."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = re.search(pattern, self.seen)
            if found is not None:
                used, self.seen = self.seen[: found.end()], self.seen[found.end() :]
                return used
            if not self._read(0.2) and self.process.poll() is not None:
                break
        raise AssertionError(f"{pattern!r} never appeared; the terminal showed {self.seen[-2000:]!r}")

    def press(self, keys: bytes, times: int = 1) -> None:
        """Types; ``times`` repeats as a held key does."""
        for _ in range(times):
            os.write(self.master, keys)
            time.sleep(0.04)

    def finish(self) -> tuple[int, str]:
        """Waits for the end; exit status and what was still written."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.wait(1), self.seen

    def _read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], wait_s)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        text = data.decode(errors="replace")
        self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
        return bool(data)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    """``recap`` with these arguments in a terminal of its own."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ITS_TERMINAL, "-m", "workflows.cli", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


@dataclass(frozen=True)
class Recorded:
    """What an episode's file says."""

    info: EpisodeInfo
    actions: np.ndarray
    policy_actions: np.ndarray
    sources: list[int]


def recorded(root: Path) -> list[Recorded]:
    found = []
    for entry in Workspace(root).list_episodes():
        with EpisodeReader(entry.path) as reader:
            found.append(
                Recorded(reader.info, reader.actions, reader.policy_actions, reader.sources.tolist())
            )
    return found


def test_a_person_records_two_episodes_at_the_keyboard(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    arguments = ("record", "--workspace", str(root), "--task", TASK, "--operator", "keyboard")
    with terminal(*arguments, "--episodes", "2", "--person", "ana") as person:
        person.wait_for("READY")
        person.press(b"\r")
        person.wait_for("RECORDING")
        person.press(UP, times=25)
        person.press(b"s")
        person.wait_for("READY")
        person.press(b"\r")
        person.wait_for("RECORDING")
        time.sleep(0.5)
        person.press(b"f")
        status, text = person.finish()
    assert status == 0, text
    assert "2 episodes in" in text and "1 marked success, 1 failure" in text
    first, second = recorded(root)
    assert (first.info.operator_mark, second.info.operator_mark) == ("success", "failure")
    assert first.info.operator == "ana" and not first.info.truncated
    moved = np.abs(first.actions[:, :6]).max()
    assert moved > 0.05, "the held key moved nothing"
    assert np.all(second.actions[:, :6] == 0), "nothing was pressed in the second episode"
    assert set(first.sources) == {Source.TELEOP}
    assert main(["episodes", "check", "--workspace", str(root)]) == 0


def test_the_emergency_stop_ends_the_episode_and_ctrl_c_the_session(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    with terminal("record", "--workspace", str(root), "--task", TASK, "--operator", "keyboard") as person:
        person.wait_for("READY")
        person.press(b"\r")
        person.wait_for("RECORDING")
        person.press(UP, times=10)
        person.press(b" ")
        person.wait_for("(?i)stopped")
        person.press(b"c")
        person.wait_for("READY")
        person.press(b"\r")
        person.wait_for("RECORDING")
        time.sleep(0.5)
        person.process.send_signal(signal.SIGINT)
        status, text = person.finish()
    assert status == 130, text
    first, second = recorded(root)
    assert first.info.truncated and first.info.extra["ended"]["by"] == "emergency stop"
    assert second.info.truncated and len(second.actions) > 0
    assert "2 episodes in" in text and "next: recap label" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--operator", "gampad"), "did you mean"),
        (("--operator", "keyboard", "--rate", "0"), "rate"),
        (("--operator", "keyboard", "--max-seconds", "0"), "no step"),
        (("--operator", "none"), "nobody would drive"),
        (("--operator", "keyboard"), "needs a terminal"),
    ],
)
def test_what_cannot_be_recorded_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    root = tmp_path / "workspace"
    assert main(["record", "--workspace", str(root), "--task", TASK, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(root.rglob("*.h5*"))


def test_a_site_without_an_input_device_says_how_to_name_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recap.toml").write_text('[robot]\ntype = "kinova_gen3"\n')
    assert main(["record", "--workspace", str(tmp_path), "--task", TASK]) == 2
    assert "--operator" in capsys.readouterr().err
    (tmp_path / "recap.toml").write_text('[robot]\ntype = "kinova_gen3"\n[cameras.table]\ntype = "webcam"\n')
    assert main(["record", "--workspace", str(tmp_path), "--task", TASK, "--operator", "keyboard"]) == 2
    assert "webcam" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recap.toml"]


def test_a_policy_drives_and_a_held_key_takes_over_and_gives_back(tmp_path: Path) -> None:
    from tests.tiny_checkpoint import save_tiny_checkpoint

    root = Workspace(tmp_path / "workspace").create().root
    checkpoint = save_tiny_checkpoint(tmp_path / "checkpoint")
    arguments = ("rollout", "--workspace", str(root), "--task", TASK, "--operator", "keyboard")
    with terminal(*arguments, "--policy", str(checkpoint), "--episodes", "1") as person:
        person.wait_for("READY")
        person.press(b"\r")
        person.wait_for("(?i)policy")
        time.sleep(1.0)
        person.press(UP, times=15)
        time.sleep(2.0)
        person.press(b"s")
        status, text = person.finish()
    assert status == 0, text
    (episode,) = recorded(root)
    driven = "".join(str(source) for source in episode.sources)
    assert re.fullmatch("1+2+1+", driven), f"policy, person, policy: {driven}"
    assert episode.info.policy_checkpoint == str(checkpoint)
    by_person = np.array(episode.sources) == Source.INTERVENTION
    assert np.abs(episode.actions[by_person, 0]).max() > 0.05
    assert np.isfinite(episode.policy_actions[by_person]).any(), "what the policy wanted meanwhile"


def test_a_policy_on_another_machine_drives_and_is_only_watched(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "recap.toml").write_text("")  # is enough of a workspace
    with (
        serving(Weighing("far-away")) as server,
        terminal(
            *(
                "rollout",
                "--workspace",
                str(root),
                "--task",
                TASK,
                "--operator",
                "none",
                "--policy",
                server.url,
            ),
            *("--episodes", "1", "--max-seconds", "1.5", "--auto-start", "0.5"),
        ) as person,
    ):
        status, text = person.finish()
    assert status == 0, text
    (episode,) = recorded(root)
    assert episode.info.policy_checkpoint == "far-away" and set(episode.sources) == {Source.POLICY}


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.tiny_checkpoint import save_tiny_checkpoint

    root = Workspace(tmp_path / "workspace").create().root
    checkpoint = save_tiny_checkpoint(tmp_path / "checkpoint")
    (root / "recap.toml").write_text('[robot]\ntype = "simulated_gen3"\noptions = { cameras = ["table"] }\n')
    line = ["rollout", "--workspace", str(root), "--task", TASK, "--operator", "none", "--policy"]
    assert main([*line, str(checkpoint)]) == 2
    assert "needs camera 'wrist'" in capsys.readouterr().err
    assert main([*line, str(tmp_path / "nowhere")]) == 2
    assert main([*line, "tcp://127.0.0.1:1"]) == 1  # the server may be there a moment later
    error = capsys.readouterr().err
    assert error.count("\n") == 2
    assert not list(root.rglob("*.h5*"))

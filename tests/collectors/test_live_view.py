"""The operator's view: the words of every state, plain lines in a log, and a terminal that takes nothing."""

from __future__ import annotations

import io
import os
import pty
import select
import termios
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from collectors.live_panel import _keys, panel
from collectors.live_view import LiveView
from collectors.operator_keys import KEY_HELP, TerminalInput
from collectors.telemetry import Phase, Snapshot, TelemetryFeed
from pipeline.episode import Source

RUNNING = Snapshot(
    Phase.RUNNING,
    "pick up the red cube",
    episode=4,
    done=3,
    wanted=20,
    seconds=72.4,
    frames=2172,
    rate_hz=29.96,
    wanted_rate_hz=30.0,
    driver=Source.TELEOP,
    disk_free_bytes=412 * 10**9,
)
LOST = {"wrist": "no image for 2 s: is the cable plugged in?"}


@pytest.fixture(autouse=True)
def _usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")  # whatever the tests themselves are started from
    monkeypatch.delenv("NO_COLOR", raising=False)


def drawn(snapshot: Snapshot, width: int = 96) -> str:
    console = Console(file=io.StringIO(), width=width, record=True, force_terminal=True)
    console.print(panel(snapshot, KEY_HELP))
    return console.export_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            [
                "● RECORDING  episode 4  1:12",
                "you drive",
                "30.0 of 30 Hz",
                "3 of 20",
                "412 GB free",
                "are well",
            ],
        ),
        ({"driver": Source.POLICY}, ["the policy drives"]),
        ({"driver": Source.INTERVENTION}, ["YOU have taken over"]),
        ({"driver": None, "starved": 7}, ["the arm holds still", "too slow for 7 steps"]),
        ({"phase": Phase.WAITING}, ["READY", "nothing is recorded", "enter start"]),
        ({"phase": Phase.PAUSED}, ["PAUSED", "the arm holds still", "p pause"]),
        ({"phase": Phase.ENDED, "wanted": None}, ["ENDED"]),
        ({"lost_cameras": LOST}, ["▲ camera wrist: no image for 2 s: is the cable plugged in?"]),
        ({"limits": ("workspace: held at z = 0.02 m",)}, ["▲ workspace: held at z = 0.02 m"]),
        ({"dropped": 5}, ["▲ frames are being lost: the disk is too slow"]),
        ({"disk_free_bytes": 4 * 10**9}, ["▲ the disk is nearly full: 4 GB free"]),
        (
            {"phase": Phase.STOPPED, "stopped": "protective stop"},
            ["ARM STOPPED", "■ protective stop", "c clear faults"],
        ),
    ],
)
def test_every_state_is_said_in_words(changes: dict[str, Any], words: list[str]) -> None:
    text = drawn(replace(RUNNING, **changes))
    for each in words:
        assert each in text
    problem = any(
        name in changes for name in ("lost_cameras", "limits", "dropped", "disk_free_bytes", "stopped")
    )
    assert ("are well" in text) == (not problem and changes.get("phase") is not Phase.ENDED)


def test_only_keys_that_do_something_are_shown() -> None:
    assert "clear faults" not in drawn(RUNNING)
    assert "SPACE or ESC emergency stop" in drawn(RUNNING)
    waiting = drawn(replace(RUNNING, phase=Phase.WAITING))
    assert "q stop" in waiting
    assert "s success" not in waiting
    evaluating = KEY_HELP.replace("d discard", "d again")
    shown = {phase: str(_keys(replace(RUNNING, phase=phase), evaluating)) for phase in Phase}
    assert {phase for phase, keys in shown.items() if "d again" in keys} == {Phase.RUNNING, Phase.PAUSED}


def test_a_line_that_the_condition_has_is_not_said_twice() -> None:
    message = "protective stop\nstart 1 of 2"
    text = drawn(replace(RUNNING, phase=Phase.STOPPED, stopped="protective stop", message=message))
    assert text.count("protective stop") == 1 and "start 1 of 2" in text


def test_words_fit_the_number_and_the_phase() -> None:
    assert "too slow for 1 step:" in drawn(replace(RUNNING, starved=1))
    ready = drawn(replace(RUNNING, phase=Phase.WAITING, starved=7, dropped=5))
    assert "too slow" not in ready and "being lost" not in ready, "of an episode that is over"
    assert "emergency stop" not in drawn(replace(RUNNING, phase=Phase.ENDED))


@pytest.mark.parametrize("width", [40, 60, 80])
def test_figures_are_whole_or_not_there(width: int) -> None:
    text = drawn(replace(RUNNING, done=120, wanted=200), width=width)
    assert "…" not in text and "120 of 200" in text
    assert ("dropped" in text) == (width > 40)


def test_a_narrow_terminal_still_says_it() -> None:
    text = drawn(replace(RUNNING, phase=Phase.STOPPED, stopped="fault 7 in joint 3 " * 4), width=40)
    assert "ARM STOPPED" in text
    assert text.count("fault 7") >= 3
    assert max(len(line) for line in text.splitlines()) <= 40


def test_elsewhere_it_is_a_line_for_each_event_and_a_few_between() -> None:
    out = io.StringIO()
    now = [0.0]

    def said() -> list[str]:
        lines = out.getvalue().splitlines()
        out.seek(0)
        out.truncate()
        return lines

    waiting = replace(RUNNING, phase=Phase.WAITING, seconds=0.0, frames=0)
    with LiveView(Console(file=out), line_every_s=5.0, clock_s=lambda: now[0]) as view:
        view.update(waiting)
        assert said() == ["waiting: episode 4, 3 of 20 kept · pick up the red cube · 412 GB free"]
        view.update(waiting)
        now[0] = 60.0
        view.update(waiting)  # nothing happens for long: nothing is said
        assert said() == []
        view.update(RUNNING)
        assert said() == ["running: episode 4, 3 of 20 kept · pick up the red cube · 412 GB free"]
        for tick in range(101):  # ten seconds of updates
            now[0] = 60.0 + tick / 10
            view.update(replace(RUNNING, seconds=tick / 10))
        assert len(said()) == 2
        view.update(replace(RUNNING, driver=Source.INTERVENTION))
        assert said()[0].startswith("YOU have taken over · episode 4 · 1:12 · 2172 frames · 30.0 of 30 Hz")
        view.update(replace(RUNNING, driver=Source.INTERVENTION, lost_cameras=LOST))
        assert said() == [f"WARNING: camera wrist: {LOST['wrist']}"]
        view.update(replace(RUNNING, driver=Source.INTERVENTION))
        assert said() == [f"over: camera wrist: {LOST['wrist']}"]
        why = "emergency stop by the operator"
        view.update(replace(RUNNING, phase=Phase.STOPPED, stopped=why, message=why))
        assert [line.split(":")[0] for line in said()] == ["WARNING", "stopped"]


def test_a_terminal_that_cannot_move_its_cursor_gets_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    with LiveView(Console(file=out, force_terminal=True)) as view:
        view.update(RUNNING)
    assert out.getvalue().startswith("running: episode 4")


class Terminal:
    """A pseudo-terminal: ``console`` writes to it, ``read`` is what a person would see, if one looked."""

    def __init__(self) -> None:
        """Opens it, wide enough for a line."""
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (40, 100))
        self.console = Console(file=os.fdopen(os.dup(self.slave), "w"), force_terminal=True, width=100)

    def read(self, words: str) -> str:
        """Everything up to ``words``."""
        seen = ""
        while words not in seen:
            assert select.select([self.master], [], [], 30)[0], f"{words!r} never came after {seen!r}"
            seen += os.read(self.master, 65536).decode(errors="replace")
        return seen

    def close(self) -> None:
        """Closes both ends, which also frees a writer that hangs."""
        os.close(self.master)
        os.close(self.slave)


def test_on_a_terminal_it_draws_while_keys_are_read() -> None:
    terminal = Terminal()
    before = termios.tcgetattr(terminal.slave)
    with TerminalInput(fd=terminal.slave) as keys, LiveView(terminal.console) as view:
        reading = termios.tcgetattr(terminal.slave)
        with TelemetryFeed(view) as feed:
            feed.put(RUNNING)
            drawn_panel = terminal.read("emergency stop")
            assert "you drive" in drawn_panel
            assert "\n" not in drawn_panel.replace("\r\n", "")  # each line begins at the left
            feed.put(replace(RUNNING, driver=Source.POLICY))
            terminal.read("the policy drives")
            assert termios.tcgetattr(terminal.slave) == reading
            os.write(terminal.master, b"s")
            deadline = time.monotonic() + 20
            while not keys.take_keys():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        reader = threading.Thread(target=terminal.read, args=("\x1b[?25h",))  # the cursor is back
        reader.start()
    reader.join(20)
    assert not reader.is_alive()
    assert termios.tcgetattr(terminal.slave) == before
    terminal.close()


def test_a_terminal_that_takes_nothing_delays_nobody() -> None:
    terminal = Terminal()
    longest = 0.0
    with LiveView(terminal.console) as view:
        deadline = time.monotonic() + 2.0  # about 16 panels of 40 kB; a terminal buffers 4 kB
        while (start := time.monotonic()) < deadline:
            view.update(replace(RUNNING, message="x" * 4000))
            longest = max(longest, time.monotonic() - start)
            time.sleep(0.01)
        drawing = next(thread for thread in threading.enumerate() if thread.name == "live view")
        closing = time.monotonic()
    assert drawing.is_alive()  # it hangs on the terminal,
    assert time.monotonic() - closing < 20  # the session ends all the same,
    assert longest < 1.0  # and no update waited
    while drawing.is_alive():  # now somebody looks
        if select.select([terminal.master], [], [], 0.05)[0]:
            os.read(terminal.master, 65536)
    terminal.close()


def test_a_terminal_that_goes_away_ends_the_view_alone(caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    with LiveView(terminal.console) as view:
        view.update(RUNNING)
        terminal.read("you drive")
        terminal.close()
        deadline = time.monotonic() + 20
        while "the live view has ended" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        view.update(RUNNING)


def test_a_session_without_a_device_to_take_over_with_says_so() -> None:
    for phase in (Phase.WAITING, Phase.RUNNING):
        alone = drawn(replace(RUNNING, phase=phase, can_take_over=False), width=120)
        assert "NOBODY CAN TAKE OVER (SPACE stops the arm)" in alone and "follows you" not in alone
        assert "NOBODY" not in drawn(replace(RUNNING, phase=phase), width=120)


def test_the_keys_that_correct_the_episode_before_are_shown_while_they_do() -> None:
    waiting = replace(RUNNING, phase=Phase.WAITING)
    assert "s f d correct the last" in drawn(replace(waiting, can_correct=True), width=120)
    assert "correct the last" not in drawn(waiting, width=120)

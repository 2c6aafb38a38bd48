"""The operator's keys, through a real pseudo-terminal; the decoding of what terminals send, byte by byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.operator_keys import KEY_HELP, KEYS, KeysFromNow, KeySources, OperatorKey, TerminalInput
from collectors.terminal_keys import ESCAPE_DELAY_S, LATE_TAIL_S, KeyDecoder
from pipeline.errors import InputError
from tests.collectors.terminal import Terminal, open_terminal
from tests.contracts.operator_contract import wait_until

ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left"}
SEQUENCES = ARROWS | {
    b"\x1bOA": "up",
    b"\x1b[5~": "page_up",
    b"\x1b[6~": "page_down",
    b"\x1b[1;2C": "right",
    b"\x1b[H": "home",
    b"\x1b[3~": "delete",
}
STOPS = {"escape", "space"}


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A pseudo-terminal."""
    yield from open_terminal()


def collect(keys: TerminalInput, wanted: int) -> list[OperatorKey]:
    """Waits for some keys."""
    found: list[OperatorKey] = []

    def enough() -> bool:
        found.extend(keys.take_keys())
        return len(found) >= wanted

    wait_until(enough, f"{wanted} keys")
    return found


def test_keys_arrive_in_order_and_once(terminal: Terminal) -> None:
    """Letters count in either case."""
    with TerminalInput(fd=terminal.fd) as keys:
        terminal.type(b"\rsFdpqc")
        assert collect(keys, 7) == [
            OperatorKey.START,
            OperatorKey.SUCCESS,
            OperatorKey.FAILURE,
            OperatorKey.DISCARD,
            OperatorKey.PAUSE,
            OperatorKey.STOP,
            OperatorKey.CLEAR_FAULTS,
        ]
        assert keys.take_keys() == []


@pytest.mark.parametrize("stop", [b" ", b"\x1b", b"\x1bx", b"\x1b[A\x1b", b"\x1b "])
def test_space_and_escape_stop_at_once_from_the_reading_thread(terminal: Terminal, stop: bytes) -> None:
    """Also when the main thread is busy."""
    threads: list[str] = []
    with TerminalInput(lambda: threads.append(threading.current_thread().name), fd=terminal.fd) as keys:
        terminal.type(stop)
        wait_until(lambda: bool(threads), "the emergency stop")
        assert set(threads) == {"terminal keys"}
        assert OperatorKey.EMERGENCY_STOP in collect(keys, 1)


@pytest.mark.parametrize("sequence", sorted(SEQUENCES))
def test_arrow_keys_are_no_emergency_stop(terminal: Terminal, sequence: bytes) -> None:
    """They begin with the byte of Escape, whole or piece by piece."""
    names: list[str] = []
    with TerminalInput(fd=terminal.fd) as keys:
        keys.subscribe(names.append)
        terminal.type(sequence)
        wait_until(lambda: names == [SEQUENCES[sequence]], "the key")
        time.sleep(2 * ESCAPE_DELAY_S)
        assert keys.take_keys() == []


def test_a_failing_emergency_stop_does_not_silence_the_keys(terminal: Terminal) -> None:
    """The next press may succeed."""
    calls: list[int] = []

    def fails_first() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no connection")

    with TerminalInput(fails_first, fd=terminal.fd):
        terminal.type(b" ")
        wait_until(lambda: len(calls) == 1, "the first stop")
        terminal.type(b" ")
        wait_until(lambda: len(calls) == 2, "the second stop")


def test_the_terminal_is_restored(terminal: Terminal) -> None:
    """Also when an exception ends it; meanwhile there is no echo, no Ctrl-S and no Ctrl-Z."""
    before = termios.tcgetattr(terminal.fd)
    with pytest.raises(RuntimeError, match="planned"), TerminalInput(fd=terminal.fd):
        during = termios.tcgetattr(terminal.fd)
        assert not during[3] & (termios.ECHO | termios.ICANON)
        assert during[3] & termios.ISIG, "Ctrl-C works as ever"
        assert not during[0] & termios.IXON
        assert during[6][termios.VSUSP] == b"\x00"
        raise RuntimeError("planned")
    assert termios.tcgetattr(terminal.fd) == before


def test_a_second_reader_is_refused(terminal: Terminal) -> None:
    """It would take half of the keys, the emergency stop among them."""
    with TerminalInput(fd=terminal.fd), pytest.raises(InputError, match="read already"):
        TerminalInput(fd=terminal.fd).__enter__()
    with TerminalInput(fd=terminal.fd) as again:
        assert again.is_reading


def test_keys_typed_before_are_forgotten(terminal: Terminal) -> None:
    """An Enter from while the arm was connecting must not start an episode."""
    with TerminalInput(fd=terminal.fd):
        pass
    terminal.type(b"\r\n")
    with TerminalInput(fd=terminal.fd) as keys:
        terminal.type(b"p")
        assert collect(keys, 1) == [OperatorKey.PAUSE]


def test_a_closed_terminal_stops_the_session(terminal: Terminal) -> None:
    """Nobody could stop it by key any more."""
    with TerminalInput(fd=terminal.fd) as keys:
        terminal.hang_up()
        assert collect(keys, 1) == [OperatorKey.STOP]
        assert keys.lost is not None


def test_without_a_terminal_there_are_no_keys() -> None:
    """A pipe is not a keyboard."""
    reading, writing = os.pipe()
    try:
        with TerminalInput(fd=reading) as keys:
            os.write(writing, b" s")
            assert not keys.is_reading
            assert keys.take_keys() == []
    finally:
        os.close(reading)
        os.close(writing)


def test_several_sources_are_one_and_the_emergency_stop_comes_first(terminal: Terminal) -> None:
    """A pad's stop is not behind a terminal's success."""
    with TerminalInput(fd=terminal.fd) as keys:
        other = TerminalInput()
        other._keys = [OperatorKey.EMERGENCY_STOP]
        terminal.type(b"s")
        wait_until(lambda: bool(keys._keys), "the key")
        assert KeySources([keys, other]).take_keys() == [OperatorKey.EMERGENCY_STOP, OperatorKey.SUCCESS]


def test_of_the_keys_from_before_the_arm_was_ready_what_keeps_it_still_is_not_forgotten() -> None:
    """Pause too: it holds off a start by itself."""

    class Typed:
        def __init__(self, *keys: OperatorKey) -> None:
            self.keys = list(keys)

        def take_keys(self) -> list[OperatorKey]:
            keys, self.keys = self.keys, []
            return keys

    start, success, _, _, pause, stop, emergency_stop, _ = OperatorKey
    typed, pad = Typed(start, success, pause, stop), Typed(start, emergency_stop)
    keys = KeysFromNow(typed, others=[pad])
    typed.keys, pad.keys = [start], [stop]
    assert keys.take_keys() == [emergency_stop, pause, stop, start]
    assert keys.take_keys() == [] and pad.take_keys() == [stop], "who has the pad reads it from now on"


def test_the_help_names_every_key() -> None:
    """One line for the screen."""
    assert "\n" not in KEY_HELP
    for key in OperatorKey:
        assert str(key).split(" ", maxsplit=1)[0] in KEY_HELP
    assert set(KEYS.values()) == set(OperatorKey)


CHILD = """
import sys, time
from collectors.operator_keys import TerminalInput
with TerminalInput(fd=int(sys.argv[1])) as keys:
    try:
        print("reading", keys.is_reading, flush=True)
        time.sleep(60)
    finally:
        print("unwound", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_restore_the_terminal_and_end_contexts(terminal: Terminal, number: signal.Signals) -> None:
    """So the arm is stopped by whoever holds it."""
    before = termios.tcgetattr(terminal.fd)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(terminal.fd)],
        pass_fds=(terminal.fd,),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading True\n"
        child.send_signal(number)
        assert child.stdout.readline() == "unwound\n"
        child.wait(timeout=30)
    assert child.returncode != 0
    assert termios.tcgetattr(terminal.fd) == before


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(sorted(SEQUENCES)), max_size=8), st.data())
def test_sequences_survive_any_cut(sequences: list[bytes], data: st.DataObject) -> None:
    """However a link cuts them into pieces, if it delivers them in time."""
    stream = b"".join(sequences)
    decoder, names, now = KeyDecoder(), list[str](), 0.0
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        names += decoder.feed(stream[:cut], now)
        stream, now = stream[cut:], now + 0.5 * ESCAPE_DELAY_S
    assert names + decoder.expire(now + LATE_TAIL_S) == [SEQUENCES[s] for s in sequences]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(ARROWS)), st.floats(ESCAPE_DELAY_S, 0.9 * LATE_TAIL_S))
def test_the_late_rest_of_an_arrow_key_is_not_typed_letters(sequence: bytes, late: float) -> None:
    """A very slow link makes it an Escape, which is safe, but never discard (D) or clear faults (C)."""
    decoder = KeyDecoder()
    assert decoder.feed(sequence[:1], 0.0) == []
    keys = decoder.expire(ESCAPE_DELAY_S) + decoder.feed(sequence[1:], late)
    assert keys == ["escape", ARROWS[sequence]]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(min_size=1, max_size=12), max_size=6))
def test_a_stop_is_never_swallowed(noise: list[bytes]) -> None:
    """Whatever came before, space stops, and Escape does once nothing follows it."""
    decoder, now = KeyDecoder(), 0.0
    for data in noise:
        decoder.feed(data, now)
        now += 0.01
    assert "space" in decoder.feed(b" ", now)
    for data in noise:
        decoder.feed(data, now)
        now += 0.01
    decoder.feed(b"\x1b", now)
    assert decoder.expire(now + 2 * ESCAPE_DELAY_S) == ["escape"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=64))
def test_no_bytes_break_it_and_names_are_known(data: bytes) -> None:
    """Mouse reports, pasted text, letters of any language."""
    decoder = KeyDecoder()
    known = {*SEQUENCES.values(), *STOPS, "enter", "tab", "backspace", "end", "insert"}
    names = decoder.feed(data, 0.0) + decoder.expire(10.0)
    assert all(name in known or (len(name) == 1 and name.isascii()) for name in names)

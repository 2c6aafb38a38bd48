"""What a Kinova arm reports, in plain words: error sub-codes, fault banks, arm states; and what to do.

Inputs are the numbers of the vendor's interface; outputs are :class:`Stop` values, whose ``words`` are one
line for the operator. Nothing here talks to an arm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

CLEAR_HINT = "see why, then clear the faults"
"""What an operator does after most stops: the key in a collector, or ``recap arm clear-faults``."""


class StopCause(StrEnum):
    """Why an arm takes no commands; decides what clearing it has to do."""

    FAULT = "fault"
    EMERGENCY_STOP = "emergency stop"
    NOT_IN_CONTROL = "not in control"
    WRONG_MODE = "wrong servoing mode"
    NO_SESSION = "no session"
    NOT_READY = "not ready"
    CONNECTION_LOST = "connection lost"
    NO_ANSWER = "no answer"
    REFUSED = "refused"
    DRIVER = "driver"


@dataclass(frozen=True)
class Stop:
    """A stop: its cause, and one line that says what happened and what to do."""

    cause: StopCause
    words: str
    from_refusal: bool = False  # known only from a command that was refused

    @property
    def needs_new_connection(self) -> bool:
        """Whether clearing it needs new sessions, as the old ones are dead or another client's turn."""
        return self.cause in _RECONNECT

    @property
    def arm_stopped_itself(self) -> bool:
        """Whether it means that the arm stands still whatever was sent to it."""
        return self.cause in (StopCause.FAULT, StopCause.EMERGENCY_STOP)

    def says_more_than(self, other: Stop) -> bool:
        """Whether it names the fault where ``other`` only says that there is one."""
        return self.words.startswith(_NAMED) and not other.words.startswith(_NAMED)


_ERROR_NUMBER = re.compile(r"\[(?:Errno|WinError|SSL)[^\]]*\] ?")
_SYSTEM_WORDS = {
    "Broken pipe": "the connection was closed",
    "Bad file descriptor": "the connection was closed",
    "Transport endpoint is not connected": "the connection was closed",
    "Connection reset by peer": "the other end closed the connection",
    "Connection refused": "the other end refused the connection",
    "No route to host": "there is no way to that address",
    "Network is unreachable": "there is no way to that network",
}

_NAMED = "the arm stopped itself: "
_RECONNECT = frozenset(
    {StopCause.CONNECTION_LOST, StopCause.NO_SESSION, StopCause.NO_ANSWER, StopCause.NOT_IN_CONTROL}
)

_SUB_CODES: dict[int, tuple[StopCause, str]] = {
    12: (StopCause.NO_SESSION, "the arm no longer knows our session; clear the faults to connect anew"),
    21: (StopCause.NOT_READY, "the arm is not ready (still starting up?); wait, then clear the faults"),
    22: (StopCause.FAULT, f"the arm is in fault; {CLEAR_HINT}"),
    25: (
        StopCause.EMERGENCY_STOP,
        "the emergency stop is active; release it when it is safe, then clear the faults",
    ),
    54: (
        StopCause.NOT_IN_CONTROL,
        "another client has the arm; close the arm's web application and other programs, "
        "then clear the faults",
    ),
    75: (StopCause.WRONG_MODE, "the arm is in another servoing mode, set by someone else; clear the faults"),
    130: (
        StopCause.NOT_IN_CONTROL,
        "our session has lost control of the arm (web application, its joystick, hand guiding or a second "
        "program); let go of it there, then clear the faults",
    ),
    131: (StopCause.NO_ANSWER, "the arm did not carry out a command in time; clear the faults to try again"),
}
"""Sub-codes of the vendor's error reply that mean more to an operator than "refused"."""

_SUB_CODE_NAMES = {
    12: "INVALID_SESSION",
    21: "ROBOT_NOT_READY",
    22: "ROBOT_IN_FAULT",
    25: "EMERGENCY_STOP",
    54: "INVALID_USER_SESSION_ACCESS",
    75: "WRONG_SERVOING_MODE",
    130: "SESSION_NOT_IN_CONTROL",
    131: "METHOD_TIMEOUT",
}

# Bits of base.fault_bank_a, lowest first, as in the vendor's table of base safeties.
_BASE_FAULTS = (
    "a firmware update failed",
    "external communication failed",
    "the ambient temperature is too high",
    "the processor is too hot",
    "a joint is in fault",
    "cyclic data came too irregularly",
    "the event log is full",
    "no kinematics for this arm",
    "too many joints",
    "network error",
    "the pose cannot be reached",
    "a joint was not detected",
    "the network did not start",
    "the current is too high",
    "the voltage is too high",
    "the voltage is too low",
    "the tool moved too fast",
    "the tool turned too fast",
    "the tool accelerated too fast",
    "the tool's turning accelerated too fast",
    "protective stop: the force at the tool is too high (collision?)",
    "protective stop: the torque at the tool is too high (collision?)",
    "the payload is too heavy",
    "the emergency stop is pressed",
    "the emergency line is open",
    "the inrush current limiter failed",
    "the settings memory is corrupted",
    "the firmware versions do not match",
    "the self-test at power-on failed",
    "a digital input is stuck",
    "the arm is in a position that is not allowed",
)
_EMERGENCY_BITS = (1 << 23) | (1 << 24)

IN_FAULT = 4
LOW_LEVEL_SERVOING = 6
_STATES: dict[int, tuple[StopCause, str]] = {
    1: (StopCause.NOT_READY, "the arm is starting up; wait, then clear the faults"),
    3: (StopCause.NOT_READY, "the arm is starting up; wait, then clear the faults"),
    IN_FAULT: (StopCause.FAULT, f"the arm is in fault; {CLEAR_HINT}"),
    5: (
        StopCause.NOT_READY,
        "the arm is in maintenance; end that in its web application, then clear the faults",
    ),
    LOW_LEVEL_SERVOING: (
        StopCause.WRONG_MODE,
        "the arm is in low-level servoing, set by another program; end that program, then clear the faults",
    ),
}
"""Arm states in which it takes no twist. Idle, ready, playing a sequence and manual control are not among
them: the arm reports manual control also while it follows our own twist."""


def stop_from_error(error_code: int, sub_code: int, text: str = "") -> Stop:
    """What an error reply means. ``text`` is the client's own message, quoted where the code is unknown."""
    if sub_code in _SUB_CODES:
        cause, words = _SUB_CODES[sub_code]
        return Stop(cause, f"{words} ({_SUB_CODE_NAMES[sub_code]})", from_refusal=True)
    detail = f": {one_line(text)}" if text.strip() else ""
    return Stop(
        StopCause.REFUSED, f"the arm refused a command (error {error_code}, sub-code {sub_code}{detail})"
    )


def base_faults(fault_bank_a: int, fault_bank_b: int = 0) -> Iterator[str]:
    """The faults of the two banks of ``base``, in words; nothing for 0."""
    for bit, words in enumerate(_BASE_FAULTS):
        if fault_bank_a >> bit & 1:
            yield words
    unknown = fault_bank_a >> len(_BASE_FAULTS)
    if unknown:
        yield f"unknown fault (bank A {fault_bank_a:#x})"
    if fault_bank_b:
        yield f"unknown fault (bank B {fault_bank_b:#x})"


def stop_from_feedback(active_state: int, fault_bank_a: int, fault_bank_b: int) -> Stop | None:
    """Whether the arm's own feedback says that it takes no commands, and why."""
    faults = list(base_faults(fault_bank_a, fault_bank_b))
    if faults:
        if fault_bank_a & _EMERGENCY_BITS:
            hint, cause = "release it when it is safe, then clear the faults", StopCause.EMERGENCY_STOP
        else:
            hint, cause = CLEAR_HINT, StopCause.FAULT
        return Stop(cause, f"{_NAMED}{'; '.join(faults)}; {hint}")
    if active_state in _STATES:
        return Stop(*_STATES[active_state])
    return None


def one_line(text: str) -> str:
    """The text without line breaks and the operating system's error numbers, at most 200 characters."""
    plain = _ERROR_NUMBER.sub("", " ".join(text.split()))
    for system, words in _SYSTEM_WORDS.items():
        plain = plain.replace(system, words)
    return plain[:200]

"""A look at a Kinova arm for ``recap doctor``: is it there, who has it, which firmware, how fast is feedback.

Nothing is commanded: not even Stop, so that an arm which somebody else drives is not disturbed. A process of
its own does it, as the vendor's client needs another protobuf than everything else here and its calls may
hang: ``python -m collectors.kinova_inspection`` reads its settings from standard input and prints JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from collectors.kinova_client import FeedbackClient
from collectors.kinova_connection import CallError, Connection, vendor_client
from collectors.kinova_faults import one_line, stop_from_feedback
from collectors.kinova_link import DriverSettings, Mode
from pipeline.errors import InputError

CALL_WITHIN_S = 1.0
LOOK_S = 1.0
TIME_LIMIT_S = 30.0
MOVING = 0.5  # deg/s, of any joint
_DEVICE_CONFIG = "kortex_api.autogen.client_stubs.DeviceConfigClientRpc"


@dataclass(frozen=True)
class ArmFindings:
    """What a look at an arm found. Empty texts and ``None``: the arm does not tell.

    ``stopped`` is why it takes no commands; ``last_commander`` the address of the client whose command last
    changed its state; ``moves`` whether a joint turned during the look.
    """

    stopped: str | None
    last_commander: str
    firmware: str
    feedback_hz: float
    moves: bool


def inspect_arm(settings: DriverSettings, within_s: float = TIME_LIMIT_S) -> ArmFindings:
    """Looks at the arm from a process of its own; ends in ``within_s``.

    Raises ``InputError`` in one line: client, address, ports, user and password.
    """
    environment = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "collectors.kinova_inspection"],
            input=json.dumps(settings.to_dict()),
            env=environment,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"kinova_gen3: {settings.address} took a connection and then said nothing for {within_s:.0f} s: "
            "switch the arm off and on"
        ) from error
    answer = _last_answer(done.stdout)
    if "error" in answer:
        raise InputError(answer["error"])
    if answer:
        return ArmFindings(**answer)
    said = done.stderr.strip().splitlines()
    raise InputError(
        f"kinova_gen3: looking at the arm ended with status {done.returncode}: {said[-1] if said else ''}"
    )


def _last_answer(output: str) -> dict[str, Any]:
    """The last line that is ours: the vendor's client prints from its threads. Empty where there is none."""
    for line in reversed(output.splitlines()):
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
    return {}


def look(settings: DriverSettings) -> ArmFindings:
    """The look itself, in this process. Raises ``InputError``."""
    commands = Connection(settings, over_udp=False)
    commands.open()
    try:
        commander = _last_commander(commands)
        firmware = _firmware(commands)
        rate, stopped, moves = _feedback(settings)
    finally:
        commands.close()
    return ArmFindings(stopped, commander, firmware, rate, moves)


def _last_commander(connection: Connection) -> str:
    with contextlib.suppress(CallError, AttributeError):
        base = vendor_client().BaseClient(connection.router)
        state = connection.call(base.GetArmState, timeout_s=CALL_WITHIN_S)
        return str(state.connection.connection_information)
    return ""


def _firmware(connection: Connection) -> str:
    """As a hexadecimal number: how it is composed is not documented."""
    with contextlib.suppress(CallError, AttributeError, ImportError):
        client = importlib.import_module(_DEVICE_CONFIG).DeviceConfigClient(connection.router)
        version = connection.call(client.GetFirmwareVersion, timeout_s=CALL_WITHIN_S)
        return f"{int(version.firmware_version):#010x}"
    return ""


def _feedback(settings: DriverSettings) -> tuple[float, str | None, bool]:
    """Readings a second, what stops the arm by its own word, and whether it moves."""
    client = FeedbackClient(settings)
    client.open()
    latest: Any = None
    count, moves, began = 0, False, time.monotonic()
    try:
        while time.monotonic() - began < LOOK_S:
            with contextlib.suppress(CallError):
                latest = client.read()
                count += 1
                moves |= bool(np.abs([a.velocity for a in latest.actuators]).max(initial=0.0) > MOVING)
            time.sleep(0.002)
        seconds = time.monotonic() - began
    finally:
        client.close()
    if latest is None:
        return 0.0, "no feedback from the arm", False
    base = latest.base
    stop = stop_from_feedback(int(base.active_state), int(base.fault_bank_a), int(base.fault_bank_b))
    return count / seconds, None if stop is None else stop.words, moves


def main() -> None:
    """The process: settings in, findings or one line of error out."""
    try:
        settings = DriverSettings.from_dict(json.loads(sys.stdin.read()) | {"mode": Mode.LOOK})
        answer = asdict(look(settings))
    except InputError as error:
        answer = {"error": one_line(str(error))}
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

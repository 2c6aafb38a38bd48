"""From the operator's key to the command on the arm's wire: ``python -m tests.benchmarks.control_latency``.

All parts are the real ones: a key is written to a pseudo-terminal, read by ``TerminalInput``, turned into a
twist by ``gen3_keyboard``, taken by the recording loop (20 Hz, two 640×480 cameras, frames going to a file),
sent by ``kinova_gen3`` to its driver process and by that, through the stand-in for ``kortex_api``, over TCP
to the simulated arm, whose receive log says when it came. Arm and recording run in processes of their own.

Measured twice, with keys at random moments: while a person teleoperates, and while a policy drives that takes
400 ms for each plan, so that the key is a take-over. Both medians and 99th percentiles are printed; the last
line is one JSON object. ``takeover_p99_periods`` is the worse of the two 99th percentiles in control periods
of 1/20 s. ``--quick`` presses fewer keys.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import ACTION_NAMES, CAMERAS
from tests.kortex_stand_in.simulated_arm import SimulatedArm

RATE_HZ = 20.0  # what recap record and rollout use by default
POLICY_CALL_S = 0.4
PLAN_STEPS = 20
KEYS = (b"r", b"v")  # raise and lower by turns, so that the arm stays where it is
QUIET_S = 0.9  # longer than the keyboard keeps the arm after the last key: each key takes over anew
UP = 2  # index of the vertical speed in a twist


class SlowPolicy:
    """Drives to and fro sideways, never up or down, and thinks for 400 ms about each plan."""

    def __init__(self) -> None:
        """Begins to the left."""
        self._plans = 0

    def reset(self, task: str, seed: int | None = None) -> None:
        """Any task will do."""

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Float32 (20, 7): a second of motion."""
        time.sleep(POLICY_CALL_S)
        self._plans += 1
        actions = np.zeros((PLAN_STEPS, len(ACTION_NAMES)), np.float32)
        actions[:, 1] = 0.03 if self._plans % 2 else -0.03
        return actions


def press_keys(terminal: int, count: int, pressed_ns: list[int], done: threading.Event) -> None:
    """Writes keys to the terminal at random moments of the control period; notes when."""
    rng = np.random.default_rng(0)
    time.sleep(3.0)  # the episode is under way and the policy has a plan
    for number in range(count):
        time.sleep(QUIET_S + rng.uniform(0.0, 0.2))
        pressed_ns.append(time.monotonic_ns())
        os.write(terminal, KEYS[number % len(KEYS)])
    time.sleep(QUIET_S)
    done.set()


def record(arguments: argparse.Namespace) -> None:
    """The recording's process: one episode, ended when all keys were pressed; prints when that was."""
    from collectors.collection_session import SessionSettings, run_session
    from collectors.config_simulated_camera import SimulatedCameraConfig
    from collectors.kinova_gen3 import KinovaGen3, KinovaGen3Config
    from collectors.operator_keys import OperatorKey, TerminalInput
    from collectors.teleoperators import Gen3Keyboard, Gen3KeyboardConfig
    from pipeline.workspace import Workspace

    done = threading.Event()

    class Ending:
        """Presses the success key when all keys of the arm were pressed, then the stop key."""

        def take_keys(self) -> list[OperatorKey]:
            if not done.is_set():
                return []
            return [OperatorKey.SUCCESS, OperatorKey.STOP]

    cameras = {name: SimulatedCameraConfig(fps=30) for name in CAMERAS}
    config = KinovaGen3Config(
        ip="127.0.0.1", tcp_port=arguments.tcp_port, udp_port=arguments.udp_port, cameras=dict(cameras)
    )
    settings = SessionSettings(
        "measure",
        "benchmark",
        RATE_HZ,
        episodes=1,
        auto_start_s=0,
        policy_name="slow" if arguments.policy else None,
    )
    ours, theirs = pty.openpty()
    pressed_ns: list[int] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        terminal = stack.enter_context(TerminalInput(fd=theirs))
        keyboard = Gen3Keyboard(Gen3KeyboardConfig(max_linear_speed=0.1))
        keyboard.use_terminal(terminal)
        stack.enter_context(keyboard)
        robot = stack.enter_context(KinovaGen3(config))
        fingers = threading.Thread(
            target=press_keys, args=(ours, arguments.keys, pressed_ns, done), daemon=True
        )
        fingers.start()
        summary = run_session(
            Workspace(folder).create(),
            robot,
            keyboard,
            Ending(),
            settings,
            policy=SlowPolicy() if arguments.policy else None,
        )
    episode = summary.episodes[0]
    take_overs = episode.summary.take_overs
    print(json.dumps({"pressed_ns": pressed_ns, "take_overs": take_overs, "dropped": episode.dropped_frames}))


def latencies_ms(keys: int, policy: bool) -> np.ndarray:
    """For each key the time until the arm received a command that it caused, ms."""
    with SimulatedArm() as arm:
        command = [sys.executable, "-m", "tests.benchmarks.control_latency", "--record", "--keys", str(keys)]
        command += ["--tcp-port", str(arm.tcp_port), "--udp-port", str(arm.udp_port)]
        done = subprocess.run(
            command + (["--policy"] if policy else []),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **arm.client_environment()},
        )
        if done.returncode:
            sys.exit(f"the recording failed:\n{done.stderr}")
        said = json.loads(done.stdout.splitlines()[-1])
        up_ns = np.array(
            [one.received_ns for one in arm.received("SendTwistCommand") if abs(one.values[UP]) > 1e-4]
        )
        assert not arm.violations, arm.violations
    pressed = np.array(said["pressed_ns"])
    assert len(pressed) == keys
    assert not policy or said["take_overs"] == keys, said
    following = np.searchsorted(up_ns, pressed)
    assert following[-1] < len(up_ns), "the last key never reached the arm"
    assert len(set(following)) == keys, "a key never reached the arm"
    return (up_ns[following] - pressed) / 1e6


def main() -> None:
    """Prints a line for each case, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer keys")
    parser.add_argument("--record", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--policy", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keys", type=int, help="how many keys each time")
    parser.add_argument("--tcp-port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--udp-port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.keys = arguments.keys or (10 if arguments.quick else 100)
    if arguments.record:
        record(arguments)
        return
    figures: dict[str, float] = {"rate_hz": RATE_HZ, "keys": arguments.keys}
    worst = 0.0
    for name, policy in (("teleoperation", False), ("takeover", True)):
        found = latencies_ms(arguments.keys, policy)
        median, p99 = np.percentile(found, (50, 99))
        driver = f"a policy with {POLICY_CALL_S * 1e3:.0f} ms a call" if policy else "a person"
        print(
            f"{driver} drives at {RATE_HZ:g} Hz: key to wire median {median:.1f} ms, p99 {p99:.1f} ms",
            flush=True,
        )
        figures |= {f"{name}_median_ms": round(median, 1), f"{name}_p99_ms": round(p99, 1)}
        worst = max(worst, float(p99))
    figures["takeover_p99_periods"] = round(worst * RATE_HZ / 1e3, 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

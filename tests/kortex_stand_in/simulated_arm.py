"""A simulated Gen3 that listens on the network as the real one does, for the stand-in or the vendor's client.

``python -m tests.kortex_stand_in.simulated_arm --tcp-port 10000 --udp-port 10001`` runs it alone, so that
everything can be tried without an arm. It prints its ports and serves until Ctrl-C.

What the real arm does when its client dies is documented for one case, and done here: after the session's
``connection_inactivity_timeout`` without a frame it stops motions that the session began; after
``session_inactivity_timeout`` the session ends. A closed connection alone stops nothing here, which is
the worse case. ``obeys_inactivity=False`` is worse still: a twist stays in force for good.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from pipeline.gen3_kinematics import tool_pose
from tests.kortex_stand_in.arm_calls import ReceivedCommand
from tests.kortex_stand_in.arm_disturbances import Disturbances
from tests.kortex_stand_in.arm_server import ArmServer
from tests.kortex_stand_in.kortex_api.stand_in.violations import VIOLATIONS_VARIABLE

__all__ = ["PACKAGE_FOLDER", "ReceivedCommand", "SimulatedArm"]

PACKAGE_FOLDER = Path(__file__).parent
"""On a child process's ``PYTHONPATH``, ``import kortex_api`` finds the stand-in."""
_MOVING = 1e-4  # rad/s


class SimulatedArm(Disturbances):
    """A context manager: a Gen3 in its ready pose on 127.0.0.1, moved in real time by a thread.

    Look at it and disturb it from any thread.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        tcp_port: int = 0,
        udp_port: int = 0,
        username: str = "admin",
        password: str = "admin",
        obeys_inactivity: bool = True,
    ) -> None:
        """Ports of 0 are chosen by the system when the arm is entered."""
        self.address = address
        self.tcp_port, self.udp_port = tcp_port, udp_port
        self.username, self.password = username, password
        super().__init__(ArmServer(username, password, obeys_inactivity))
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        """Starts serving."""
        self._folder = tempfile.TemporaryDirectory(prefix="simulated-arm-")
        self.tcp_port, self.udp_port = self._server.start(self.address, self.tcp_port, self.udp_port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops serving."""
        self._server.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def client_environment(self) -> dict[str, str]:
        """Variables for a process that shall use the stand-in, to be laid over ``os.environ``."""
        path = os.pathsep.join(filter(None, [str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH")]))
        return {
            "PYTHONPATH": path,
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
            VIOLATIONS_VARIABLE: str(self._violations_path),
        }

    @property
    def _violations_path(self) -> Path:
        assert self._folder is not None, "the arm has not been entered"
        return Path(self._folder.name) / "violations.txt"

    @property
    def violations(self) -> list[str]:
        """What clients in :meth:`client_environment` did that the vendor's client would not survive."""
        path = self._violations_path
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    @property
    def log(self) -> list[ReceivedCommand]:
        """A copy of what was received, oldest first; feedback and keep-alives are only counted."""
        with self._server.lock:
            return list(self._calls.log)

    def received(self, name: str) -> list[ReceivedCommand]:
        """The part of :attr:`log` with that name."""
        return [command for command in self.log if command.name == name]

    def twist_now(self) -> np.ndarray:
        """The twist in force (6,), m/s and rad/s in base; zeros when none is."""
        with self._server.lock:
            self._server.advance()
            return self._calls.motion.twist_in_base()

    def joint_velocities(self) -> np.ndarray:
        """Of the moment (7,), rad/s."""
        with self._server.lock:
            self._server.advance()
            return self._calls.motion.velocities.copy()

    def joint_positions(self) -> np.ndarray:
        """Of the moment (7,), rad, unwrapped."""
        with self._server.lock:
            self._server.advance()
            return self._calls.motion.joints.copy()

    def tool_position(self) -> np.ndarray:
        """Of the moment (3,), m in base."""
        return tool_pose(self.joint_positions())[:3, 3]

    def gripper_position(self) -> float:
        """0 open to 1 closed."""
        with self._server.lock:
            self._server.advance()
            return self._calls.motion.gripper

    def is_moving(self) -> bool:
        """Whether any joint turns."""
        return bool(np.abs(self.joint_velocities()).max() > _MOVING)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
        """Waits until ``condition`` holds; whether it did within ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def wait_until_still(self, timeout_s: float = 20.0) -> bool:
        """Waits until no twist is in force and no joint turns; whether that came."""
        return self.wait_for(lambda: not self.twist_now().any() and not self.is_moving(), timeout_s)

    def wait_until_moving(self, timeout_s: float = 20.0) -> bool:
        """Waits until a joint turns; whether that came."""
        return self.wait_for(self.is_moving, timeout_s)

    @property
    def session_count(self) -> int:
        """How many sessions are open."""
        with self._server.lock:
            self._server.advance()
            return len(self._server.sessions)

    @property
    def feedback_count(self) -> int:
        """How often feedback was asked for."""
        return self._calls.feedback_count

    @property
    def keep_alive_count(self) -> int:
        """How many keep-alives arrived."""
        return self._server.keep_alive_count


def main() -> None:
    """Serves an arm until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A simulated Gen3 on the network.")
    parser.add_argument("--address", default="127.0.0.1", help="where to listen")
    parser.add_argument("--tcp-port", type=int, default=10000, help="0: any that is free")
    parser.add_argument("--udp-port", type=int, default=10001, help="0: any that is free")
    wanted = parser.parse_args()
    with SimulatedArm(address=wanted.address, tcp_port=wanted.tcp_port, udp_port=wanted.udp_port) as arm:
        print(
            f"simulated arm at {arm.address}: tcp_port = {arm.tcp_port}, udp_port = {arm.udp_port}",
            flush=True,
        )
        print(f"user and password: admin, admin; the client to use with it: PYTHONPATH={PACKAGE_FOLDER}")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()

"""What tests do to the simulated arm: faults, other clients, a pulled cable."""

from __future__ import annotations

import numpy as np

from tests.kortex_stand_in.arm_calls import BASE, EMERGENCY_LINE, EMERGENCY_STOP, ERRORS
from tests.kortex_stand_in.arm_server import ArmServer


class Disturbances:
    """The disturbing half of :class:`tests.kortex_stand_in.simulated_arm.SimulatedArm`; from any thread."""

    def __init__(self, server: ArmServer) -> None:
        """Disturbs the arm of ``server``."""
        self._server = server
        self._calls = server.calls

    def set_joint_positions(self, joints: np.ndarray) -> None:
        """Puts the arm somewhere (7,), in rad, standing still."""
        with self._server.lock:
            self._calls.motion.stop()
            self._calls.motion.joints = np.array(joints, dtype=float)
            self._calls.motion.velocities = np.zeros(7)

    def set_gripper(self, position: float) -> None:
        """Puts the gripper somewhere, 0 open to 1 closed."""
        with self._server.lock:
            self._calls.motion.move_gripper(speed=0.0)
            self._calls.motion.gripper = float(np.clip(position, 0.0, 1.0))

    def set_wrench(self, wrench: np.ndarray) -> None:
        """The external force and torque (6,) to report, N and N·m."""
        with self._server.lock:
            self._calls.wrench = np.array(wrench, dtype=float)

    def go_silent(self, *, still_obeys: bool = False) -> None:
        """As a pulled cable: nothing arrives and nothing is said. ``still_obeys``: only replies are lost."""
        with self._server.lock:
            self._server.silent, self._server.deaf = True, not still_obeys

    def speak_again(self) -> None:
        """Ends :meth:`go_silent`."""
        with self._server.lock:
            self._server.silent = self._server.deaf = False

    def close_connections(self) -> None:
        """Closes every TCP connection; what is in force stays in force."""
        with self._server.lock:
            self._server.close_connections()

    def end_sessions(self) -> None:
        """Forgets all sessions, as after a restart: calls get INVALID_SESSION."""
        with self._server.lock:
            self._server.sessions.close_all()

    def raise_fault(self, name: str = "JOINT_FAULT", *, stuck: bool = False) -> None:
        """A fault of ``SafetyIdentifier``; the arm stops. ``stuck``: clearing does not help."""
        with self._server.lock:
            self._calls.set_faults(int(BASE[name]), stuck)

    def protective_stop(self) -> None:
        """What a collision may do: the arm stops itself, with a fault for too much force at the tool."""
        self.raise_fault("MAXIMUM_END_EFFECTOR_TRANSLATION_FORCE")

    def emergency_stop_pressed(self) -> None:
        """Somebody pressed the red button; clearing does not help until it is let go."""
        with self._server.lock:
            self._calls.set_faults(EMERGENCY_STOP | EMERGENCY_LINE, stuck=True)

    def emergency_stop_released(self) -> None:
        """The button is out again; the faults still need clearing. Stuck faults are stuck no more."""
        with self._server.lock:
            self._calls.stuck_faults = 0

    def take_control_from_client(self) -> None:
        """Somebody guides the arm by hand or by its web application: commands get SESSION_NOT_IN_CONTROL.

        The motion ends, as the other's command replaces it.
        """
        self._deny("SESSION_NOT_IN_CONTROL", hand_guided=True)

    def second_client_connects(self) -> None:
        """A second client takes the arm: commands get INVALID_USER_SESSION_ACCESS. The motion ends."""
        self._deny("INVALID_USER_SESSION_ACCESS", hand_guided=False)

    def give_control_back(self) -> None:
        """Ends the two above."""
        with self._server.lock:
            self._calls.denied, self._calls.hand_guided = None, False

    def _deny(self, sub_code: str, hand_guided: bool) -> None:
        with self._server.lock:
            self._calls.motion.stop()
            self._calls.denied, self._calls.hand_guided = sub_code, hand_guided
            self._calls.commander = "192.0.2.7:50000"

    def set_ready(self, ready: bool) -> None:
        """Whether the arm has finished starting up; until then commands get ROBOT_NOT_READY."""
        with self._server.lock:
            self._calls.motion.stop()
            self._calls.ready = ready

    def delay_replies(self, seconds: float, *calls: str) -> None:
        """Each reply comes that much later (0: at once again); only those to ``calls``, if any are named."""
        with self._server.lock:
            self._server.reply_delay_s, self._server.delayed_calls = seconds, calls

    def reject_next(
        self,
        error_code: int = 3,
        sub_code: int | str = "ROBOT_NOT_READY",
        call: str | None = None,
        times: int = 1,
    ) -> None:
        """The next calls (of that name, if given; feedback and session calls are never) are refused."""
        number = ERRORS[sub_code] if isinstance(sub_code, str) else sub_code
        with self._server.lock:
            self._calls.refusals += [(call, error_code, int(number))] * times

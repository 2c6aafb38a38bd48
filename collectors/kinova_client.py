"""What the driver asks of a Kinova arm, in our units: commands over TCP, feedback over UDP.

Each has a connection and a session of its own (``collectors.kinova_connection``); every method raises
:class:`~collectors.kinova_connection.CallError`. Only calls that every firmware of the Gen3 has are used.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from collectors.kinova_connection import CallError, Connection, vendor_client
from collectors.kinova_faults import StopCause
from collectors.kinova_link import DriverSettings
from collectors.kinova_units import joints_to_arm, twist_to_arm

SINGLE_LEVEL_SERVOING = 2
FRAME_BASE = 3
GRIPPER_POSITION = 3
ACTION_ENDED, ACTION_ABORTED = 1, 2


class CommandClient:
    """The arm's commands over TCP, in our units."""

    def __init__(self, settings: DriverSettings) -> None:
        """Connects nothing; see :meth:`open`."""
        self._settings = settings
        self._connection = Connection(settings, over_udp=False)
        self._base: Any = None

    def open(self) -> None:
        """Connects and logs in; raises ``InputError``."""
        self._connection.open()
        self._base = vendor_client().BaseClient(self._connection.router)

    def close(self) -> None:
        """Logs out and disconnects; harmless when not open."""
        self._connection.close()

    def take_control(self, patience_s: float = 1.0) -> None:
        """Sets single-level servoing and sends a zero twist, which only the client in control may.

        Right after a change of mode the arm may refuse for a moment; that is waited out. Raises CallError.
        """
        deadline = time.monotonic() + patience_s
        mode = vendor_client().ServoingModeInformation(servoing_mode=SINGLE_LEVEL_SERVOING)
        while True:
            try:
                self._call(self._base.SetServoingMode, mode)
                self.send_twist(np.zeros(6))
            except CallError as error:
                if error.stop.cause is not StopCause.NOT_IN_CONTROL or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def send_twist(self, twist: np.ndarray) -> None:
        """A tool twist (6,) in base, m/s and rad/s; stays in force until the next. Raises CallError."""
        command = vendor_client().TwistCommand()
        command.reference_frame = FRAME_BASE
        part = command.twist
        part.linear_x, part.linear_y, part.linear_z, part.angular_x, part.angular_y, part.angular_z = (
            twist_to_arm(twist)
        )
        self._call(self._base.SendTwistCommand, command)

    def send_gripper(self, position: float) -> None:
        """Where the gripper goes, 0 open to 1 closed. Raises CallError."""
        command = vendor_client().GripperCommand()
        command.mode = GRIPPER_POSITION
        finger = command.gripper.finger.add()
        finger.finger_identifier = 1
        finger.value = position
        self._call(self._base.SendGripperCommand, command)

    def stop(self) -> None:
        """Stops whatever the arm does; a new command moves it again. Raises CallError."""
        self._call(self._base.Stop)

    def emergency_stop(self) -> None:
        """Stops the arm with its own emergency stop, until the faults are cleared. Raises CallError."""
        self._call(self._base.ApplyEmergencyStop)

    def clear_faults(self) -> None:
        """Clears the arm's faults. Raises CallError."""
        self._call(self._base.ClearFaults)

    def go_to_joints(self, joints: np.ndarray, when_ended: Callable[[bool], None]) -> None:
        """Starts a motion to joint angles (7,) in rad, at the arm's own speed; CallError.

        ``when_ended`` is called from another thread: True at its end, False where the arm gave up.
        """
        api = vendor_client()

        def notified(notification: Any) -> None:
            if notification.action_event in (ACTION_ENDED, ACTION_ABORTED):
                when_ended(notification.action_event == ACTION_ENDED)

        self._call(self._base.OnNotificationActionTopic, notified, api.NotificationOptions())
        action = api.Action()
        action.name = "joint angles"
        for number, degrees in enumerate(joints_to_arm(joints)):
            angle = action.reach_joint_angles.joint_angles.joint_angles.add()
            angle.joint_identifier = number
            angle.value = degrees
        self._call(self._base.ExecuteAction, action)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return self._connection.call(method, *arguments, timeout_s=self._settings.call_timeout_s)


class FeedbackClient:
    """The arm's feedback over UDP."""

    def __init__(self, settings: DriverSettings) -> None:
        """Connects nothing; see :meth:`open`."""
        self._settings = settings
        self._connection = Connection(settings, over_udp=True)
        self._cyclic: Any = None

    def open(self) -> None:
        """Connects and logs in; raises ``InputError``."""
        self._connection.open()
        self._cyclic = vendor_client().BaseCyclicClient(self._connection.router)

    def read(self) -> Any:
        """One feedback message. Raises CallError, after ``feedback_timeout_s`` for a silent arm."""
        return self._connection.call(
            self._cyclic.RefreshFeedback, timeout_s=self._settings.feedback_timeout_s
        )

    def close(self) -> None:
        """Logs out and disconnects; harmless when not open."""
        self._connection.close()


@contextlib.contextmanager
def opened(settings: DriverSettings) -> Iterator[CommandClient]:
    """A command connection for a moment: closed at the end, whatever happens."""
    client = CommandClient(settings)
    client.open()
    try:
        yield client
    finally:
        client.close()

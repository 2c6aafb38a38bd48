"""Calls of the arm's base: motion, gripper, faults, state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...NotificationHandler import NotificationHandler
from ...RouterClient import RouterClient, RouterClientSendOptions

_Options = RouterClientSendOptions | None


class BaseClient:
    """Each call blocks until the arm answers or ``options.timeout_ms`` have passed."""

    def __init__(self, router: RouterClient) -> None:
        """Uses the router's session."""
        self._router = router
        self._notifications = NotificationHandler()

    def SetServoingMode(self, message: Any, deviceId: int = 0, options: _Options = None) -> None:
        """A ``ServoingModeInformation``."""
        self._router.call("SetServoingMode", message, deviceId, options)

    def SendTwistCommand(self, message: Any, deviceId: int = 0, options: _Options = None) -> None:
        """A ``TwistCommand`` in m/s and deg/s; it stays in force until the next command."""
        self._router.call("SendTwistCommand", message, deviceId, options)

    def SendJointSpeedsCommand(self, message: Any, deviceId: int = 0, options: _Options = None) -> None:
        """``JointSpeeds`` in deg/s."""
        self._router.call("SendJointSpeedsCommand", message, deviceId, options)

    def SendGripperCommand(self, message: Any, deviceId: int = 0, options: _Options = None) -> None:
        """A ``GripperCommand``: position 0 open to 1 closed, or speed, positive opens."""
        self._router.call("SendGripperCommand", message, deviceId, options)

    def ReadAllActions(self, message: Any, deviceId: int = 0, options: _Options = None) -> Any:
        """The ``ActionList`` of the stored actions of a ``RequestedActionType``: Home, Retract, Zero."""
        return self._router.call("ReadAllActions", message, deviceId, options)

    def ExecuteAction(self, message: Any, deviceId: int = 0, options: _Options = None) -> None:
        """Starts an ``Action``; its end is notified."""
        self._router.call("ExecuteAction", message, deviceId, options)

    def Stop(self, deviceId: int = 0, options: _Options = None) -> None:
        """Stops every motion."""
        self._router.call("Stop", None, deviceId, options)

    def StopAction(self, deviceId: int = 0, options: _Options = None) -> None:
        """Aborts the action under way."""
        self._router.call("StopAction", None, deviceId, options)

    def ClearFaults(self, deviceId: int = 0, options: _Options = None) -> None:
        """Lets a stopped arm move again, if nothing is wrong any more."""
        self._router.call("ClearFaults", None, deviceId, options)

    def ApplyEmergencyStop(self, deviceId: int = 0, options: _Options = None) -> None:
        """Stops the arm until ``ClearFaults``."""
        self._router.call("ApplyEmergencyStop", None, deviceId, options)

    def GetArmState(self, deviceId: int = 0, options: _Options = None) -> Any:
        """An ``ArmStateInformation``."""
        return self._router.call("GetArmState", None, deviceId, options)

    def OnNotificationActionTopic(
        self, callback: Callable[[Any], None], message: Any, deviceId: int = 0, options: _Options = None
    ) -> Any:
        """Calls back with an ``ActionNotification`` when an action starts, ends or aborts; gives a handle."""
        self._notifications.register("ActionTopic", ("Base", "ActionNotification"), callback)
        return self._router.call("ActionTopic", message, deviceId, options)

    def Unsubscribe(self, message: Any, deviceId: int = 0, options: _Options = None) -> None:
        """Ends the subscription of a ``NotificationHandle``."""
        self._router.call("Unsubscribe", message, deviceId, options)
        self._notifications.unregister("ActionTopic")

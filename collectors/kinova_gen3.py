"""The LeRobot robot ``kinova_gen3``: a real Kinova Gen3 (7 joints) with gripper, and any LeRobot camera.

Observations and actions are those of ``pipeline.episode``: joints (rad), tool pose in base, gripper, wrench;
a tool twist in base (m/s, rad/s) and a gripper target, 0 open to 1 closed. Found by LeRobot's own commands
with ``--robot.discover_packages_path=collectors --robot.type=kinova_gen3``.

The arm is driven by a process of its own, ``collectors.kinova_driver``, which keeps the limits and stops the
arm when commands stop coming. Should that process die or hang, a fresh one is started that does nothing but
stop the arm. Not covered: both processes killed at the same moment, and a computer or network that dies: then
the arm's own session time-out and its red button remain.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from lerobot.robots import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from collectors.arm_interface import ArmCondition, ArmStopped
from collectors.config_kinova_gen3 import KinovaGen3Config
from collectors.kinova_handle import DriverHandle, Status
from collectors.kinova_limits import limit_action
from collectors.kinova_link import Mode
from collectors.kinova_lock import ArmLock
from collectors.kinova_process import stop_afresh
from collectors.kinova_units import GRIPPER
from pipeline.episode import ACTION_NAMES, STATE_NAMES, action_to_dict
from pipeline.errors import InputError

if TYPE_CHECKING:
    from collectors.cameras import CameraSet

__all__ = ["KinovaGen3", "KinovaGen3Config", "stop_arm_of"]

OBSERVE_WITHIN_S = 0.5  # the longest that get_observation waits
FRESH_NS = 60_000_000  # a state that old is still given at once; the driver sends more than 100 a second
CLEAR_WITHIN_S = 40.0
HOME_WITHIN_S = 65.0


class KinovaGen3(Robot):
    """A Kinova Gen3. Constructing is cheap; :meth:`connect` starts cameras and driver, and moves nothing.

    Beyond LeRobot's interface it offers what ``collectors.arm_interface`` describes, and :meth:`home`.
    """

    config_class = KinovaGen3Config
    name = "kinova_gen3"

    def __init__(self, config: KinovaGen3Config, *, look_only: bool = False) -> None:
        """Remembers the settings. ``look_only`` never sends the arm a command: others may drive it."""
        super().__init__(config)
        self.config = config
        self._look_only = look_only
        self._camera_set: CameraSet | None = None
        self._driver: DriverHandle | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._unlock: weakref.finalize[..., Any] | None = None
        self._capture_times_ns: dict[str, int] = {}
        self._limits: tuple[str, ...] = ()

    @property
    def cameras(self) -> dict[str, Any]:
        """The cameras' configurations by name; LeRobot's recorder counts them."""
        return dict(self.config.cameras)

    @property
    def observation_features(self) -> dict[str, Any]:
        """``float`` for each of ``STATE_NAMES``, then (height, width, 3) for each camera."""
        features: dict[str, Any] = dict.fromkeys(STATE_NAMES, float)
        for name, camera in self.config.cameras.items():
            features[name] = (camera.height, camera.width, 3)
        return features

    @property
    def action_features(self) -> dict[str, Any]:
        """``float`` for each of ``ACTION_NAMES``."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def is_connected(self) -> bool:
        """Whether ``connect`` has succeeded and ``disconnect`` has not been called since."""
        return self._driver is not None

    @property
    def is_calibrated(self) -> bool:
        """Always true: the arm knows its joints."""
        return True

    def calibrate(self) -> None:
        """Does nothing: the arm knows its joints."""

    def configure(self) -> None:
        """Does nothing: the driver sets what it needs."""

    def connect(self, calibrate: bool = True) -> None:
        """Connects cameras and arm; nothing moves.

        Raises ``DeviceAlreadyConnectedError``, and ``InputError`` in one line for a missing client, a wrong
        address, port or password, another client in control, another program on this computer that drives the
        same arm (not in look-only mode), and a camera that is not there. An arm in fault
        is connected all the same: ``condition`` says so, and ``clear_faults`` clears it.
        """
        if self._driver is not None:
            raise DeviceAlreadyConnectedError(f"{self} is already connected")
        with contextlib.ExitStack() as undo:
            if not self._look_only:
                lock = ArmLock(self.config.ip, self.config.tcp_port)
                # Also when the robot is dropped without disconnect(), and after the driver has ended.
                self._unlock = weakref.finalize(self, lock.release)
                undo.callback(self._unlock)
            cameras = self._start_cameras()
            if cameras is not None:
                undo.callback(cameras.disconnect)
            driver = self._start_driver()
            undo.pop_all()
        self._camera_set = cameras
        self._hold(driver)

    def disconnect(self) -> None:
        """Stops the arm and ends driver and cameras; harmless when not connected."""
        finalizer, self._finalizer, self._driver = self._finalizer, None, None
        cameras, self._camera_set = self._camera_set, None
        if finalizer is not None:
            finalizer()
        if self._unlock is not None:
            self._unlock()  # only now: the driver is gone
        if cameras is not None:
            cameras.disconnect()

    def get_observation(self) -> dict[str, Any]:
        """The newest state and images, at once as long as feedback comes, and within half a second always.

        Raises ``ArmStopped`` with one line for an arm that takes no commands or gives no feedback.
        """
        status = self._fresh_status()
        if status.stopped is not None:
            raise ArmStopped(status.stopped)
        observation: dict[str, Any] = dict(zip(STATE_NAMES, status.state.tolist(), strict=True))
        if self._camera_set is not None:
            images = self._camera_set.latest()
            self._capture_times_ns = {name: image.timestamp_ns for name, image in images.items()}
            observation.update({name: image.image for name, image in images.items()})
        return observation

    def send_action(self, action: Mapping[str, Any]) -> dict[str, float]:
        """Sends an action and returns what the limits leave of it, which is what the driver sends on.

        Raises ``InputError`` for a missing or non-finite component, after telling the arm to hold still, and
        ``ArmStopped`` for an arm that takes no commands.
        """
        driver = self._connected_driver()
        wanted = np.array([_number(action.get(name)) for name in ACTION_NAMES])
        status = driver.status
        if not np.isfinite(wanted).all():
            gripper = float(status.state[GRIPPER]) if status is not None else 0.0
            driver.send_command(np.array([0.0] * 6 + [gripper]))
            missing = [name for name in ACTION_NAMES if action.get(name) is None]
            problem = f"lacks {missing[0]!r}" if missing else f"is not finite: {wanted.tolist()}"
            raise InputError(f"kinova_gen3: the action {problem}")
        if driver.stopped is not None or status is None:
            raise ArmStopped(driver.stopped or "the arm has given no feedback yet")
        driver.send_command(wanted)
        limited = limit_action(wanted, status.state, self.config.limits)
        self._limits = limited.limits
        return action_to_dict(limited.action)

    @property
    def condition(self) -> ArmCondition:
        """How the arm is now; never waits."""
        driver = self._driver
        if driver is None:
            return ArmCondition(stopped="not connected")
        status, stopped = driver.status, driver.stopped
        limits = status.limits if status is not None and stopped is None else ()
        return ArmCondition(stopped=stopped, limits=limits)

    @property
    def capture_times_ns(self) -> dict[str, int]:
        """When each image of the latest observation was taken, ns since 1970."""
        return dict(self._capture_times_ns)

    @property
    def lost_cameras(self) -> dict[str, str]:
        """Cameras that give no new images, name to why."""
        return dict(self._camera_set.lost) if self._camera_set is not None else {}

    def emergency_stop(self) -> None:
        """Applies the arm's own emergency stop; from any thread, without waiting."""
        if self._driver is not None:
            self._driver.emergency_stop()

    def clear_faults(self) -> None:
        """Clears faults and connects anew where the connection or the driver is gone; takes up to 40 s.

        On the operator's word only. The arm stays still until the next action. Raises ``ArmStopped`` where it
        remains stopped.
        """
        driver = self._connected_driver()
        if driver.gone:
            self._release(driver)
            try:
                driver = self._start_driver()
            except InputError as error:
                self._driver = driver
                raise ArmStopped(str(error)) from error
            self._hold(driver)
        driver.request("clear_faults", CLEAR_WITHIN_S)

    def home(self) -> None:
        """Moves the arm to its Home pose and waits. Speed and way are the arm's own: no limit here applies.

        Raises ``ArmStopped`` where it does not get there. An exception while waiting, such as Ctrl-C, stops
        it.
        """
        self._connected_driver().request("home", HOME_WITHIN_S, keep_moving=True)

    @property
    def driver_pid(self) -> int:
        """The driver's process id; 0 when not connected."""
        return self._driver.pid if self._driver is not None else 0

    def state(self) -> np.ndarray:
        """The newest state (28,) in the order of ``STATE_NAMES``, also of an arm that is stopped."""
        return self._fresh_status().state

    def _fresh_status(self) -> Status:
        driver = self._connected_driver()
        if driver.gone:
            raise ArmStopped(driver.stopped or "the arm's driver is gone")
        status = driver.wait_for_status(time.monotonic_ns() - FRESH_NS, OBSERVE_WITHIN_S)
        if status is None or time.monotonic_ns() - status.at_ns > OBSERVE_WITHIN_S * 1e9:
            words = driver.stopped or "no feedback from the arm; check arm and cable, then clear the faults"
            raise ArmStopped(words)
        return status

    def _connected_driver(self) -> DriverHandle:
        if self._driver is None:
            raise DeviceNotConnectedError(f"{self} is not connected; call connect() first")
        return self._driver

    def _start_cameras(self) -> CameraSet | None:
        if not self.config.cameras:
            return None
        from collectors.cameras import CameraSet

        cameras = CameraSet(self.config.cameras)
        cameras.connect()
        return cameras

    def _start_driver(self) -> DriverHandle:
        settings = self.config.driver_settings(Mode.LOOK if self._look_only else Mode.DRIVE)
        driver = DriverHandle(settings, self.config.driver_log)
        driver.start()
        return driver

    def _hold(self, driver: DriverHandle) -> None:
        self._driver = driver
        # Also at the interpreter's end, and when the robot is dropped without disconnect().
        self._finalizer = weakref.finalize(self, driver.close)

    def _release(self, driver: DriverHandle) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        driver.close()


def stop_arm_of(config: KinovaGen3Config) -> bool:
    """Stops whatever moves that arm, from a process of its own; whether the arm took it. Waits up to 15 s."""
    return stop_afresh(config.driver_settings(Mode.STOP), config.driver_log)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")

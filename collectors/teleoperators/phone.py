"""A phone as operator: while the screen is touched, the tool moves as the hand does.

It is LeRobot's phone (its extra ``phone``): an Android phone opens a page in its browser, an iPhone runs HEBI
Mobile I/O. The touch is a clutch: put the phone anywhere, touch, and only what moves from there counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.teleoperators import TeleoperatorConfig

from collectors.teleoperators.device_config import DeviceOperatorConfig
from collectors.teleoperators.device_input import DeviceAbsent, DeviceInput
from collectors.teleoperators.phone_motion import PhoneMotion, PhonePose
from collectors.teleoperators.polled_operator import PolledOperator

_POLL_S = 0.008
_SILENT_S = 1.0  # the page reports 60 times a second while it is in use, touched or not
_SLIDER_REST = 0.1
_MISSING = "the phone needs LeRobot's extra: pip install 'lerobot[phone]'"
_IOS_AXES = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""From HEBI's axes to forward, left, up: as LeRobot maps its positions; turns are mapped alike."""


@TeleoperatorConfig.register_subclass("gen3_phone")
@dataclass(kw_only=True)
class Gen3PhoneConfig(DeviceOperatorConfig):
    """Settings of the phone. Its motion is measured, so there is no dead zone and no curve."""

    dead_zone: float = 0.0
    curve: float = 0.0
    phone_os: str = "android"
    """``android`` (a page in the browser) or ``ios`` (the app HEBI Mobile I/O)."""
    scale: float = 1.0
    """How far the tool moves for each metre that the hand moves."""
    host: str = "127.0.0.1"
    """Address to serve an Android phone at. Only a phone on a cable (``adb reverse``) reaches the loopback
    address; ``0.0.0.0`` serves all networks, and whoever reaches it can drive the arm."""
    port: int = 4443

    def __post_init__(self) -> None:
        """Rejects settings that make no sense."""
        super().__post_init__()
        self._check("phone_os", self.phone_os in ("android", "ios"), "android or ios")
        self._check("scale", 0.0 < self.scale <= 10.0, "above 0 and at most 10")
        self._check("port", 0 < self.port < 65536, "a port number")


class PhoneDevice:
    """LeRobot's phone, asked for news; its own calls may wait, which is why a thread makes them."""

    def __init__(self, config: Gen3PhoneConfig) -> None:
        """Remembers the settings."""
        self._config = config
        self._phone: Any = None
        self._motion = PhoneMotion()
        self._seen: tuple[Any, ...] = ()
        self._inputs: dict[str, Any] = {}

    @property
    def waits_for(self) -> str | None:
        """What the person has to do before anything can come, in one line."""
        if (
            self._config.phone_os != "android"
            or self._phone is None
            or self._phone.silent_for_s() < _SILENT_S
        ):
            return None
        where = f"https://{self._config.host}:{self._config.port}"
        return f"nothing comes from the phone: open {where} on it and start (see docs/kinova.md)"

    def open(self) -> None:
        """Begins to listen to the phone; ``DeviceAbsent`` with what to install or do otherwise."""
        self._motion = PhoneMotion()
        self._seen = ()
        try:
            if self._phone is None:
                self._phone = self._make()
            if self._config.phone_os == "android" or not self._phone.is_connected:
                self._phone.connect()
        except ImportError as error:
            raise DeviceAbsent(_MISSING) from error
        except RuntimeError as error:  # LeRobot's, when the app is not found
            raise DeviceAbsent(
                "no iPhone was found: open HEBI Mobile I/O on it, family HEBI, name mobileIO"
            ) from error

    def poll(self) -> DeviceInput:
        """What the hand does now."""
        time.sleep(_POLL_S)
        touched, twist = self._motion.update(self._new_pose(), time.monotonic())
        config = self._config
        full = np.repeat([config.max_linear_speed, config.max_angular_speed], 3)
        scale = np.repeat([config.scale, 1.0], 3)
        axes = np.zeros(6) if not touched else twist * scale / full
        x, y, z, roll, pitch, yaw = (float(a) for a in axes)
        return DeviceInput((x, y, z, roll, pitch, yaw), gripper=self._gripper(), engaged=touched)

    def close(self) -> None:
        """Forgets where the phone was; its page stays served until the process ends."""
        self._inputs = {}

    def _make(self) -> Any:
        from lerobot.teleoperators.phone.config_phone import PhoneConfig, PhoneOS
        from lerobot.teleoperators.phone.teleop_phone import IOSPhone

        from collectors.teleoperators.phone_server import PhoneServer

        if self._config.phone_os == "ios":
            return IOSPhone(PhoneConfig(phone_os=PhoneOS.IOS))
        config = PhoneConfig(phone_os=PhoneOS.ANDROID)
        return PhoneServer(config, self._config.host, self._config.port)

    def _new_pose(self) -> PhonePose | None:
        """The phone's pose if it is a new one. A phone in a hand is never still to the last bit."""
        try:
            action = self._phone.get_action()
        except TypeError as error:  # LeRobot's iPhone, when no message came for half a second
            raise DeviceAbsent("the iPhone has gone silent; open HEBI Mobile I/O on it again") from error
        if not action:
            return None
        position, rotation = np.asarray(action["phone.pos"], dtype=float), action["phone.rot"]
        self._inputs = action["phone.raw_inputs"]
        touched = bool(action["phone.enabled"])
        seen = (touched, position.tobytes(), np.asarray(rotation.as_quat()).tobytes())
        if seen == self._seen:
            return None
        self._seen = seen
        if not np.isfinite(position).all():
            return None
        return PhonePose(position, rotation, touched)

    def _gripper(self) -> float:
        if self._config.phone_os == "ios":
            slider = float(self._inputs.get("a3", 0.0))
            return slider if abs(slider) > _SLIDER_REST else 0.0
        return float(self._inputs.get("reservedButtonA", 0)) - float(self._inputs.get("reservedButtonB", 0))


class _TurnedPhoneDevice(PhoneDevice):
    """An iPhone, whose axes are not those of the base."""

    def poll(self) -> DeviceInput:
        state = super().poll()
        x, y, z = _IOS_AXES @ state.axes[:3]
        roll, pitch, yaw = _IOS_AXES @ state.axes[3:]
        axes = (float(x), float(y), float(z), float(roll), float(pitch), float(yaw))
        return DeviceInput(axes, state.gripper, engaged=state.engaged)


class Gen3Phone(PolledOperator):
    """Touch and hold to move; the page's buttons A and B (the app's slider a3) close and open the gripper.

    Success, failure, discard and the rest are the terminal's keys. Letting go of the screen stops the arm.
    """

    config_class = Gen3PhoneConfig
    name = "gen3_phone"
    open_within_s = 120.0  # an iPhone has to be held in a certain way first

    def __init__(self, config: Gen3PhoneConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Remembers the settings; ``connect`` begins to listen."""
        device = _TurnedPhoneDevice(config) if config.phone_os == "ios" else PhoneDevice(config)
        super().__init__(config, device, label="the phone", clock=clock)
        self._phone_device = device

    def _lost(self) -> str | None:
        return super()._lost() or (self._phone_device.waits_for if self.is_connected else None)

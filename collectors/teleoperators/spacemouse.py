"""A SpaceMouse as operator: push, pull, tilt and turn its cap, and the tool does the same.

``hidapi`` reads it. On Linux its ``hidraw`` backend is used, which works over USB, receiver and Bluetooth
and leaves the kernel's driver in place; it needs read access to ``/dev/hidraw*``, which :data:`UDEV_RULE`
grants.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lerobot.teleoperators import TeleoperatorConfig

from collectors.teleoperators.device_config import DeviceOperatorConfig
from collectors.teleoperators.device_input import DeviceAbsent, DeviceInput, Press
from collectors.teleoperators.polled_operator import PolledOperator
from collectors.teleoperators.spacemouse_reports import SpaceMouseReports, is_spacemouse

UDEV_RULE = (
    'KERNEL=="hidraw*", KERNELS=="*:256F:*", MODE="0660", TAG+="uaccess"\n'
    'KERNEL=="hidraw*", KERNELS=="*:046D:C62[0-9AB].*", MODE="0660", TAG+="uaccess"'
)
"""By the name of the HID device above, which a SpaceMouse on Bluetooth has, too."""
UDEV_FILE = "/etc/udev/rules.d/70-spacemouse.rules"
PERMISSION_HELP = (
    f"write the udev rule that `python -m collectors.teleoperators` prints to {UDEV_FILE}, "
    "run `sudo udevadm control --reload`, and plug it in again"
)
_WAIT_MS = 10
_LONGEST_REPORT = 64
_MOST_REPORTS = 32  # in one poll: a device that floods must not keep the thread


@TeleoperatorConfig.register_subclass("gen3_spacemouse")
@dataclass(kw_only=True)
class Gen3SpaceMouseConfig(DeviceOperatorConfig):
    """Settings of the SpaceMouse; ``path`` chooses among several (``/dev/hidraw3``); empty: the first."""

    path: str = ""


class SpaceMouseDevice:
    """One SpaceMouse through hidapi."""

    def __init__(self, path: str, *, toggle: bool, hid: Any = None) -> None:
        """``hid`` is a module like hidapi's; by default hidapi's own, imported when it is needed."""
        self._path = path
        self._toggle = toggle
        self._hid = hid
        self._device: Any = None
        self._reports = SpaceMouseReports(0, toggle)

    def open(self) -> None:
        """Opens the first SpaceMouse (or the one at ``path``); ``DeviceAbsent`` with what to do otherwise."""
        hid = self._hid if self._hid is not None else import_hid()
        found = [entry for entry in hid.enumerate() if is_spacemouse(entry)]
        if self._path:
            found = [entry for entry in found if entry["path"].decode() == self._path]
        if not found:
            where = f" at {self._path}" if self._path else ""
            raise DeviceAbsent(f"no SpaceMouse is plugged in{where}; plug it in, or switch it on")
        device = hid.device()
        try:
            device.open_path(found[0]["path"])
        except OSError as error:
            path = found[0]["path"].decode()
            raise DeviceAbsent(f"the SpaceMouse at {path} may not be opened: {PERMISSION_HELP}") from error
        self._device = device
        self._reports = SpaceMouseReports(found[0]["product_id"], self._toggle)

    def poll(self) -> DeviceInput:
        """Waits for a report, 10 ms at most; ``DeviceAbsent`` when the device is gone."""
        presses: tuple[Press, ...] = ()
        try:
            report = self._device.read(_LONGEST_REPORT, _WAIT_MS)
            for _ in range(_MOST_REPORTS):
                if not report:
                    break
                presses += self._reports.feed(bytes(report), time.monotonic())
                report = self._device.read(_LONGEST_REPORT, 0)
        except (OSError, ValueError) as error:
            raise DeviceAbsent("the SpaceMouse is unplugged; plug it in again, or switch it on") from error
        return self._reports.state(time.monotonic(), presses)

    def close(self) -> None:
        """Lets go of it."""
        if self._device is not None:
            self._device.close()
            self._device = None


class Gen3SpaceMouse(PolledOperator):
    """The cap moves the tool. Left button: close, right button: open (mode ``rate``).

    In mode ``toggle`` the left button closes or opens, and the right one held is slow mode. Both at once
    are the emergency stop. A Pro or Enterprise has more: 1 success, 2 failure, 3 discard, 4 pause, Esc
    emergency stop, Shift held slow.
    """

    config_class = Gen3SpaceMouseConfig
    name = "gen3_spacemouse"

    def __init__(
        self,
        config: Gen3SpaceMouseConfig,
        *,
        hid: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remembers the settings; ``hid`` is a module like hidapi's, by default hidapi's own."""
        device = SpaceMouseDevice(config.path, toggle=config.gripper == "toggle", hid=hid)
        super().__init__(config, device, label="the SpaceMouse", clock=clock)


def import_hid() -> Any:
    """hidapi's module: the ``hidraw`` backend where it exists (Linux), else the platform's own."""
    for name in ("hidraw", "hid"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module, "device"):  # another package has a module called hid, too
            return module
    raise DeviceAbsent("the SpaceMouse needs hidapi: pip install 'lerobot[gamepad]'")

"""An operator whose device is read by a thread of its own."""

from __future__ import annotations

from collections.abc import Callable

from collectors.teleoperators.device_config import DeviceOperatorConfig
from collectors.teleoperators.device_input import NEUTRAL, DeviceInput, PolledDevice
from collectors.teleoperators.device_operator import DeviceOperator
from collectors.teleoperators.device_thread import DeviceThread


class PolledOperator(DeviceOperator):
    """A :class:`DeviceOperator` that reads ``device`` with a :class:`DeviceThread`."""

    open_within_s = 10.0

    def __init__(
        self,
        config: DeviceOperatorConfig,
        device: PolledDevice,
        *,
        label: str,
        clock: Callable[[], float],
    ) -> None:
        """``label`` names the device in messages to the operator."""
        self._thread: DeviceThread | None = None
        super().__init__(config, clock=clock)
        self._device = device
        self._label = label

    @property
    def is_connected(self) -> bool:
        """Whether ``connect`` was called; a device that is unplugged later stays connected but ``lost``."""
        return self._thread is not None

    def _start(self) -> None:
        thread = DeviceThread(
            self._device,
            name=self._label,
            rest=self.config.dead_zone,
            on_press=self._press,
            open_within_s=self.open_within_s,
        )
        thread.start()
        self._thread = thread

    def _stop(self) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def _read(self) -> DeviceInput:
        return NEUTRAL if self._thread is None else self._thread.latest()

    def _lost(self) -> str | None:
        return None if self._thread is None else self._thread.lost

"""The SpaceMouse, from the bytes of real HID reports on; only the USB cable is missing."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.operator_keys import OperatorKey
from collectors.teleoperators import finding
from collectors.teleoperators.device_input import DeviceAbsent, GripperPress, Press
from collectors.teleoperators.spacemouse import (
    Gen3SpaceMouse,
    Gen3SpaceMouseConfig,
    SpaceMouseDevice,
    import_hid,
)
from collectors.teleoperators.spacemouse_reports import SILENT_AFTER_S, SpaceMouseReports, is_spacemouse
from pipeline.episode import action_from_dict
from pipeline.errors import InputError
from tests.contracts.operator_contract import DeviceContract, wait_until

COMPACT, PRO_WIRELESS = 0xC635, 0xC632


class SpaceMouseOnAWire:
    """Stands where hidapi stands: ``enumerate()`` and ``device()``, giving the reports that a test makes.

    Like the device it reports every 16 ms while its cap is displaced, once with zeros when it is let go,
    and then no more; a device that is unplugged makes ``read`` raise ``OSError``, as hidapi does.
    """

    def __init__(self, product: int = COMPACT, *, six_axes_in_one: bool = False) -> None:
        """Plugged in, untouched. Newer models send all six axes in one report."""
        self.product = product
        self.six_axes_in_one = six_axes_in_one
        self.axes: tuple[int, ...] = (0,) * 6
        self.plugged = True
        self.permitted = True
        self._queue: list[bytes] = []
        self._last_report = 0.0

    def enumerate(self) -> list[dict[str, Any]]:
        """As hidapi lists it: with a keyboard beside it."""
        keyboard = {"vendor_id": 0x046D, "product_id": 0xC31C, "path": b"/dev/hidraw0", "product_string": ""}
        mouse = {
            "vendor_id": 0x256F,
            "product_id": self.product,
            "path": b"/dev/hidraw7",
            "product_string": "SpaceMouse Compact",
            "usage_page": 1,
            "usage": 8,
        }
        return [keyboard, mouse] if self.plugged else [keyboard]

    def device(self) -> SpaceMouseOnAWire:
        """hidapi's handle."""
        return self

    def open_path(self, path: bytes) -> None:
        """Opens it."""
        if not (self.plugged and self.permitted and path == b"/dev/hidraw7"):
            raise OSError("open failed")

    def read(self, most: int, timeout_ms: int = 0) -> list[int]:
        """The next report, or nothing when the time is up."""
        if not self.plugged:
            raise OSError("read error")
        now = time.monotonic()
        if any(self.axes) and now - self._last_report > 0.016:
            self._last_report = now
            self._queue += self._axis_reports()
        if not self._queue:
            time.sleep(timeout_ms / 1000)
            return []
        return list(self._queue.pop(0)[:most])

    def close(self) -> None:
        """Closes it."""

    def _axis_reports(self) -> list[bytes]:
        if self.six_axes_in_one:
            return [struct.pack("<B6h", 1, *self.axes)]
        return [struct.pack("<B3h", 1, *self.axes[:3]), struct.pack("<B3h", 2, *self.axes[3:])]

    def displace(self, *axes: int) -> None:
        """Holds the cap at six raw values: right, back, down, and the turns about these."""
        self.axes = axes
        if not any(axes):
            self._queue += self._axis_reports()

    def buttons(self, mask: int) -> None:
        """Holds the buttons of ``mask`` down."""
        self._queue.append(struct.pack("<BI", 3, mask))

    def push(self, share: float) -> None:
        """Pushes the cap forward."""
        self.displace(0, round(-350 * share), 0, 0, 0, 0)

    def let_go(self) -> None:
        """Lets the cap go."""
        self.displace(0, 0, 0, 0, 0, 0)

    def unplug(self) -> None:
        """Pulls the plug."""
        self.plugged = False

    def plug_in(self) -> None:
        """Puts it back."""
        self.plugged = True


class TestSpaceMouseContract(DeviceContract):
    """The suite that all operators pass."""

    @pytest.fixture
    def hand(self) -> Iterator[SpaceMouseOnAWire]:
        """The hand on the cap."""
        self.wire = SpaceMouseOnAWire()
        yield self.wire

    def make_operator(self) -> Gen3SpaceMouse:
        """One with the suite's release time."""
        return Gen3SpaceMouse(Gen3SpaceMouseConfig(release_after_s=self.release_after_s), hid=self.wire)


class TestNewerSpaceMouseContract(TestSpaceMouseContract):
    """A model that sends all six axes in one report."""

    @pytest.fixture
    def hand(self) -> Iterator[SpaceMouseOnAWire]:
        """The hand on the cap."""
        self.wire = SpaceMouseOnAWire(PRO_WIRELESS, six_axes_in_one=True)
        yield self.wire


@pytest.mark.parametrize(
    ("raw", "component", "sign"),
    [
        ((0, -350, 0, 0, 0, 0), 0, 1),  # pushed away: forward
        ((-350, 0, 0, 0, 0, 0), 1, 1),  # to the left
        ((0, 0, -350, 0, 0, 0), 2, 1),  # pulled up
        ((0, 0, 0, 0, -350, 0), 3, 1),  # tilted to the right
        ((0, 0, 0, -350, 0, 0), 4, 1),  # tilted away
        ((0, 0, 0, 0, 0, -350), 5, 1),  # turned to the left
        ((0, 0, 350, 0, 0, 0), 2, -1),
    ],
)
def test_the_cap_moves_the_tool_as_it_is_moved(raw: tuple[int, ...], component: int, sign: int) -> None:
    """From the device's axes (right, back, down) to the base's, turns alike: one rotation for both."""
    wire = SpaceMouseOnAWire()
    with Gen3SpaceMouse(Gen3SpaceMouseConfig(), hid=wire) as operator:
        wire.displace(*raw)
        expected = np.zeros(6)
        expected[component] = sign * (0.2 if component < 3 else 0.8)
        wait_until(
            lambda: np.allclose(action_from_dict(operator.get_action())[:6], expected, atol=1e-6),
            "moving that way",
        )


def test_buttons_close_and_open_the_gripper() -> None:
    """Left closes, right opens, while they are held; both are the emergency stop."""
    wire = SpaceMouseOnAWire()
    with Gen3SpaceMouse(Gen3SpaceMouseConfig(gripper_speed=4.0), hid=wire) as operator:
        wire.buttons(1)
        wait_until(lambda: operator.get_action()["gripper.target"] == 1.0, "closing")
        wire.buttons(0)
        wire.buttons(2)
        wait_until(lambda: operator.get_action()["gripper.target"] == 0.0, "opening")
        stopped: list[int] = []
        operator.on_emergency_stop = lambda: stopped.append(1)
        wire.buttons(3)
        wait_until(lambda: stopped == [1], "the emergency stop")
        assert operator.take_keys() == [OperatorKey.EMERGENCY_STOP]


def test_toggle_mode_and_the_keypad_of_a_pro() -> None:
    """A press is told once, however long it is held."""
    reports = SpaceMouseReports(PRO_WIRELESS, toggle=True)
    presses: list[Press] = []
    for mask in (1, 1, 0, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 22):
        presses += reports.feed(struct.pack("<BI", 3, mask), 0.0)
    assert presses == [
        GripperPress.TOGGLE,
        OperatorKey.SUCCESS,
        OperatorKey.FAILURE,
        OperatorKey.DISCARD,
        OperatorKey.PAUSE,
        OperatorKey.EMERGENCY_STOP,
    ]
    reports.feed(struct.pack("<BI", 3, 2), 0.0)
    assert reports.state(0.0, ()).slow
    reports.feed(struct.pack("<BI", 3, 1 << 24), 0.0)
    assert reports.state(0.0, ()).slow


def test_a_mouse_that_falls_silent_counts_as_let_go() -> None:
    """Its battery may be empty: nobody will ever send the zeros."""
    reports = SpaceMouseReports(COMPACT, toggle=False)
    reports.feed(struct.pack("<B3h", 1, 0, -350, 0), 10.0)
    assert reports.state(10.0 + 0.9 * SILENT_AFTER_S, ()).axes[0] == 1.0
    assert not any(reports.state(10.0 + 1.1 * SILENT_AFTER_S, ()).axes)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=32), max_size=20), st.booleans())
def test_no_report_breaks_the_parser(data: list[bytes], toggle: bool) -> None:
    """Reports of other kinds, cut or too long."""
    reports = SpaceMouseReports(PRO_WIRELESS, toggle)
    for report in data:
        reports.feed(report, 1.0)
    assert np.isfinite(reports.state(1.0, ()).axes).all()


def test_only_spacemice_are_taken_for_one() -> None:
    """A receiver has several interfaces, a maker has other products."""
    assert not is_spacemouse({"vendor_id": 0x046D, "product_id": 0xC31C})
    assert is_spacemouse({"vendor_id": 0x046D, "product_id": 0xC626, "usage_page": 0, "usage": 0})
    assert is_spacemouse({"vendor_id": 0x256F, "product_id": 0xC652, "usage_page": 1, "usage": 8})
    assert not is_spacemouse({"vendor_id": 0x256F, "product_id": 0xC652, "usage_page": 1, "usage": 6})


def test_a_mouse_without_permission_says_what_to_do() -> None:
    """The commonest trouble on Linux."""
    wire = SpaceMouseOnAWire()
    wire.permitted = False
    with pytest.raises(InputError, match="udev rule"):
        Gen3SpaceMouse(Gen3SpaceMouseConfig(), hid=wire).connect()


def test_it_is_described_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For ``recap doctor``: its path here does not exist, so nobody may read it."""
    monkeypatch.setattr(finding, "import_hid", SpaceMouseOnAWire)
    line = next(line for line in finding.describe_devices() if line.startswith("SpaceMouse"))
    assert line.startswith(
        "SpaceMouse at /dev/hidraw7: SpaceMouse Compact; it may not be opened: write the udev"
    )


def test_another_path_than_asked_for_is_refused() -> None:
    """Two mice, one meant."""
    with pytest.raises(InputError, match="/dev/hidraw9"):
        Gen3SpaceMouse(Gen3SpaceMouseConfig(path="/dev/hidraw9"), hid=SpaceMouseOnAWire()).connect()


def test_with_hidapi_itself() -> None:
    """The real library lists what is there; without a SpaceMouse it says so."""
    pytest.importorskip("hid", reason="needs hidapi: pip install 'lerobot[gamepad]'")
    if any(is_spacemouse(entry) for entry in import_hid().enumerate()):
        pytest.skip("a SpaceMouse is plugged in")
    with pytest.raises(DeviceAbsent, match="no SpaceMouse is plugged in"):
        SpaceMouseDevice("", toggle=False).open()

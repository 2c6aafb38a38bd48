"""The Orbbec camera over a stand-in for the SDK; its image code over the real SDK where it is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.cameras import CameraSet
from collectors.config_orbbec import OrbbecConfig
from collectors.orbbec_process import colour_image, formats, load_sdk
from collectors.simulated_camera import SimulatedCable
from pipeline.errors import InputError
from tests.contracts.camera_contract import next_image, wait_for

STAND_IN = Path(__file__).with_name("camera_stand_ins") / "orbbec"


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedCable:
    """What the stand-in suffers from."""
    cable = SimulatedCable(tmp_path / "bolt")
    monkeypatch.setenv("ORBBEC_STAND_IN_CABLE", str(cable.path))
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    return cable


@pytest.fixture
def sdk() -> Any:
    """The real one."""
    try:
        importlib.metadata.version("pyorbbecsdk2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs Orbbec's SDK: pip install --no-deps pyorbbecsdk2")
    return load_sdk()


@pytest.mark.parametrize("trouble", ["unplugged", "silent"])
def test_lost_and_back(cable: SimulatedCable, trouble: str) -> None:
    """Unplugged, the SDK gives no frames and refuses to be stopped."""
    cameras = CameraSet({"table": OrbbecConfig()}, retry_every_s=0.05, lost_after_s=0.3)
    cameras.connect()
    try:
        last = cameras.latest()["table"]
        cable.unplug() if trouble == "unplugged" else cable.silence()
        wait_for(lambda: cameras.lost, "the loss")
        if trouble == "unplugged":
            wait_for(lambda: "sees no Orbbec" in cameras.lost["table"], "the loss, in words")
        cable.mend()
        wait_for(lambda: not cameras.lost, "its return")
        assert next_image(cameras, "table").timestamp_ns > last.timestamp_ns
    finally:
        cameras.disconnect()


def test_camera_that_offers_jpeg_only(cable: SimulatedCable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORBBEC_STAND_IN_ONLY_JPEG", "1")
    cameras = CameraSet({"table": OrbbecConfig()})
    cameras.connect()
    try:
        image = cameras.latest()["table"].image
    finally:
        cameras.disconnect()
    assert image.shape == (720, 1280, 3)
    assert image[..., 0].mean() == pytest.approx(200, abs=6)  # the stand-in's red


@pytest.mark.parametrize(
    ("settings", "serials", "words"),
    [
        (
            {"serial_number": "XX"},
            "CL8F253004Z",
            r"= \"XX\": the SDK sees no Orbbec with that.*serial CL8F253004Z",
        ),
        ({}, "", "sees no Orbbec"),
        ({}, "A1,B2", "serial_number is not given, and there are A1, B2"),
        ({"width": 640, "height": 480}, "A1", "does not offer 640x480 at 30 Hz"),
        ({"serial_number": "A1", "fps": 60}, "A1", r"connected but cannot be opened with 1280x720 at 60 Hz"),
    ],
)
def test_what_cannot_work_is_one_line(
    cable: SimulatedCable, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], serials: str, words: str
) -> None:
    monkeypatch.setenv("ORBBEC_STAND_IN_SERIALS", serials)
    with pytest.raises(InputError, match=words) as raised:
        CameraSet({"table": OrbbecConfig(**settings)}).connect()
    assert str(raised.value).startswith("camera 'table' (orbbec)")
    assert "\n" not in str(raised.value)


def test_without_the_sdk_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyorbbecsdk.py").write_text("raise ModuleNotFoundError(\"No module named 'pyorbbecsdk'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match="not installed: pip install --no-deps pyorbbecsdk2"):
        CameraSet({"table": OrbbecConfig()}).connect()


def test_real_sdk_offers_what_is_used(sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name that the stand-in offers is the real SDK's, too."""
    monkeypatch.syspath_prepend(STAND_IN)
    monkeypatch.delitem(sys.modules, "pyorbbecsdk")
    stand_in = importlib.import_module("pyorbbecsdk")
    assert Path(stand_in.__file__ or "").parent == STAND_IN
    for name, value in vars(stand_in).items():
        if isinstance(value, type) and value.__module__ == "pyorbbecsdk":
            real = getattr(sdk, name)
            for member in vars(value):
                if not member.startswith("_"):
                    assert hasattr(real, member), f"{name}.{member}"
    sys.modules["pyorbbecsdk"] = sdk


def test_real_sdks_frames_become_images(sdk: Any) -> None:
    """The SDK makes frames without a device: RGB and BGR, in a buffer of our own."""
    pixels = np.arange(48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)
    for kind, expected in ((sdk.OBFormat.RGB, pixels), (sdk.OBFormat.BGR, pixels[..., ::-1])):
        frame = sdk.Frame.create_video_frame(sdk.OBFrameType.COLOR_FRAME, kind, 64, 48, 64 * 3)
        frame.update_data(pixels.reshape(-1))
        frames = sdk.Frame.create_frame_set()
        frames.push_frame(frame)
        image = colour_image(frames.get_color_frame(), sdk)
        np.testing.assert_array_equal(image, expected)
        assert image.flags.owndata
    assert sdk.OBFormat.MJPG in formats(sdk)


def test_real_sdk_without_a_device_says_so(sdk: Any) -> None:
    if sdk.Context().query_devices().get_count():
        pytest.skip("there is a device; see tests/hardware")
    with pytest.raises(InputError, match="the SDK sees no Orbbec"):
        CameraSet({"table": OrbbecConfig()}).connect()

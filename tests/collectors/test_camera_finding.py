"""What is connected: from SDKs that work, abort, hang or are missing, and from the kernel's lists."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from collectors import camera_finding
from collectors.camera_finding import describe_connected, usb_cameras, video_devices

REALSENSE = """
class camera_info:
    name, serial_number, usb_type_descriptor = "name", "serial", "usb"
class Device:
    def get_info(self, what):
        return {"name": "Intel RealSense D435I", "serial": "0123456789", "usb": USB}[what]
class context:
    def query_devices(self):
        return [Device()]
"""


@pytest.fixture
def sdk_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the asked processes import from first; no USB or video devices of this machine."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "pyorbbecsdk.py").write_text("raise ModuleNotFoundError('not installed')")
    (tmp_path / "pyrealsense2.py").write_text("raise ModuleNotFoundError('not installed')")
    monkeypatch.setattr(camera_finding, "USB_DEVICES", tmp_path / "none")
    monkeypatch.setattr(camera_finding, "VIDEO_DEVICES", tmp_path / "none")
    return tmp_path


def test_nothing_connected_and_nothing_installed(sdk_folder: Path) -> None:
    assert describe_connected() == []


@pytest.mark.parametrize(("usb", "words"), [("3.2", "(USB 3.2)"), ("2.1", "(USB 2.1, a slow port")])
def test_a_camera_is_named_with_what_goes_into_the_settings(sdk_folder: Path, usb: str, words: str) -> None:
    (sdk_folder / "pyrealsense2.py").write_text(f"USB = {usb!r}\n{REALSENSE}")
    (line,) = describe_connected()
    assert line.startswith("Intel RealSense D435I serial 0123456789 ")
    assert words in line


def test_sdk_that_aborts_lacks_libusb_or_raises_is_one_line_each(sdk_folder: Path) -> None:
    (sdk_folder / "pyrealsense2.py").write_text(
        "raise ImportError('libusb-1.0.so.0: cannot open shared object')"
    )
    (sdk_folder / "pyorbbecsdk.py").write_text("import os; os.abort()")
    realsense, orbbec = describe_connected()
    assert realsense.startswith("realsense: ")
    assert "install libusb-1.0-0" in realsense
    assert orbbec == "orbbec: its SDK ended with status -6"
    (sdk_folder / "pyrealsense2.py").write_text("raise RuntimeError('out of\\nluck')")
    assert describe_connected()[0] == "realsense: its SDK ended with status 1 (luck)"


def test_sdk_that_hangs_is_given_up(sdk_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sdk_folder / "pyrealsense2.py").write_text("import time; time.sleep(1000)")
    (sdk_folder / "pyorbbecsdk.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setattr(camera_finding, "TIME_LIMIT_S", 0.5)
    began = time.monotonic()
    lines = describe_connected()
    assert [line.partition(":")[0] for line in lines] == ["realsense", "orbbec"]
    assert all("did not answer" in line for line in lines)
    assert time.monotonic() - began < 30


def test_usb_cameras_and_video_devices_from_the_kernels_lists(
    sdk_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that its SDK lists is not listed twice; one that it cannot see is."""
    usb, video = sdk_folder / "usb", sdk_folder / "video"
    for folder, vendor, product, serial in (
        ("1-1", "045e", "097c", "000123"),
        ("1-2", "8086", "0b3a", "0123456789"),
        ("1-3", "1d6b", "0003", "hub"),
        ("1-4", "2bc5", "066b", ""),
    ):
        (usb / folder).mkdir(parents=True)
        (usb / folder / "idVendor").write_text(f"{vendor}\n")
        (usb / folder / "idProduct").write_text(f"{product}\n")
        if serial:
            (usb / folder / "serial").write_text(f"{serial}\n")
    (video / "video0").mkdir(parents=True)
    (video / "video0" / "name").write_text("HD Webcam\n")
    assert usb_cameras(usb) == [
        ("Azure Kinect", "000123"),
        ("RealSense D435I", "0123456789"),
        ("Orbbec Femto Bolt", ""),
    ]
    assert video_devices(video) == ["/dev/video0 HD Webcam"]
    monkeypatch.setattr(camera_finding, "USB_DEVICES", usb)
    monkeypatch.setattr(camera_finding, "VIDEO_DEVICES", video)
    (sdk_folder / "pyrealsense2.py").write_text(f"USB = '3.2'\n{REALSENSE}")
    assert describe_connected() == [
        "Intel RealSense D435I serial 0123456789 (USB 3.2)",
        "Azure Kinect serial 000123 (on USB)",
        "Orbbec Femto Bolt (on USB)",
        "/dev/video0 HD Webcam",
    ]

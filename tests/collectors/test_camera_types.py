"""The contract suite for every camera type, each over what runs without hardware.

Simulated: the real thing. OpenCV: LeRobot's class over a pipe of JPEGs. RealSense: the SDK's playback of a
recording that its software device made. Azure Kinect and Orbbec: all of our code, processes included, over a
stand-in for the SDK.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lerobot.cameras import CameraConfig

from collectors.config_azure_kinect import AzureKinectConfig
from collectors.config_network_camera import NetworkCameraConfig
from collectors.config_orbbec import OrbbecConfig
from collectors.config_realsense import RealSenseConfig
from collectors.config_simulated_camera import SimulatedCameraConfig
from tests.collectors.opencv_pipe import FFMPEG_OPTIONS, JpegSource, OpenCVPipeConfig
from tests.contracts.camera_contract import CameraContract

STAND_INS = Path(__file__).with_name("camera_stand_ins")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of colour and depth, as RealSense tools record it."""
    pytest.importorskip("pyrealsense2", reason="needs pyrealsense2 and libusb-1.0")
    from tests.collectors.realsense_recording import record

    path = tmp_path_factory.mktemp("realsense") / "recording.bag"
    record(path)
    return path


class TestSimulatedCamera(CameraContract):
    """The simulated device."""

    type_name = "simulated_camera"
    clock = "device"

    @pytest.fixture
    def config(self) -> CameraConfig:
        """Faster than real, so that the tests are."""
        return SimulatedCameraConfig(width=96, height=64, fps=60)


class TestOpenCVCamera(CameraContract):
    """LeRobot's OpenCV camera; its time is that of arrival."""

    type_name = "opencv_pipe"
    clock = "arrival"

    @pytest.fixture
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CameraConfig]:
        """A pipe that a thread writes into."""
        monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
        source = JpegSource(tmp_path / "camera.mjpeg")
        source.plug_in()
        yield OpenCVPipeConfig(index_or_path=source.path, width=64, height=48, fps=50, warmup_s=0)
        source.unplug()


class TestNetworkCamera(CameraContract):
    """Our network camera over a pipe, which FFmpeg opens as it would an address."""

    type_name = "network_camera"
    clock = "arrival"

    @pytest.fixture
    def config(self, tmp_path: Path) -> Iterator[CameraConfig]:
        """A pipe that a thread writes into."""
        source = JpegSource(tmp_path / "camera.mjpeg")
        source.plug_in()
        yield NetworkCameraConfig(url=str(source.path), width=64, height=48, fps=50)
        source.unplug()


class TestRealSense(CameraContract):
    """Our RealSense camera over a recording."""

    type_name = "realsense"
    clock = "device"

    @pytest.fixture
    def config(self, recording: Path) -> CameraConfig:
        """Played in a circle."""
        return RealSenseConfig(recording=recording, width=64, height=48, fps=30)


class TestAzureKinect(CameraContract):
    """Our Azure Kinect camera and its process, over a stand-in for the SDK on that process's path."""

    type_name = "azure_kinect"
    clock = "device"

    @pytest.fixture
    def config(self, monkeypatch: pytest.MonkeyPatch) -> CameraConfig:
        """This interpreter, with the stand-in."""
        monkeypatch.setenv("PYTHONPATH", str(STAND_INS / "azure"))
        return AzureKinectConfig(python=sys.executable, serial_number="000123")


class TestOrbbec(CameraContract):
    """Our Orbbec camera, over a stand-in for the SDK."""

    type_name = "orbbec"
    clock = "device"

    @pytest.fixture
    def config(self, monkeypatch: pytest.MonkeyPatch) -> CameraConfig:
        """The stand-in, also where the real SDK is installed."""
        monkeypatch.setenv("PYTHONPATH", str(STAND_INS / "orbbec"))
        return OrbbecConfig(serial_number="CL8F253004Z")

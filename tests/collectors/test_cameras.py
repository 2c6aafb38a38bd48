"""A set of cameras through what happens in a day: unplugged, hung, silent, late, gone, back again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.camera_reader import MAX_LEFT_BEHIND
from collectors.cameras import CameraSet, CapturedImage
from collectors.simulated_camera import SimulatedCable, SimulatedCameraConfig, frame_number
from pipeline.errors import Failure, InputError
from tests.collectors.opencv_pipe import FFMPEG_OPTIONS, JpegSource, OpenCVPipeConfig
from tests.contracts.camera_contract import next_image, wait_for


def simulated(cable: SimulatedCable | None = None, phase: int = 0) -> SimulatedCameraConfig:
    path = cable.path if cable is not None else None
    return SimulatedCameraConfig(width=96, height=64, fps=60, phase=phase, cable=path)


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[SimulatedCable]:
    """The wrist camera's; mended in the end, so that no thread hangs longer than its test."""
    cable = SimulatedCable(tmp_path / "wrist")
    yield cable
    cable.mend()


@pytest.fixture
def cameras(cable: SimulatedCable) -> Iterator[CameraSet]:
    """Two cameras that run; the wrist's has the cable."""
    cameras = CameraSet(
        {"table": simulated(), "wrist": simulated(cable, phase=40)}, retry_every_s=0.05, lost_after_s=0.3
    )
    cameras.connect()
    yield cameras
    cameras.disconnect()


def camera_threads() -> list[threading.Thread]:
    """Every thread that has to do with a camera."""
    return [t for t in threading.enumerate() if t.name.startswith(("camera ", "SimulatedCamera"))]


def assert_lost_and_found(cameras: CameraSet, cable: SimulatedCable, why: str) -> None:
    """The wrist camera is lost for that reason while the other runs on; mended, it comes back."""
    wait_for(lambda: why in cameras.lost.get("wrist", ""), f"{why!r} in {cameras.lost}")
    wait_for(lambda: set(cameras.lost) == {"wrist"}, "the table camera, if the machine was too busy for it")
    assert "\n" not in cameras.lost["wrist"]
    last = cameras.latest()["wrist"]
    for _ in range(3):
        next_image(cameras, "table")
    assert cameras.latest()["wrist"] is last, "the last image and its old time must stay"
    assert "table" not in cameras.lost
    cable.mend()
    wait_for(lambda: not cameras.lost, "the wrist camera's return")
    returned = next_image(cameras, "wrist")
    assert returned.sequence > last.sequence
    assert returned.timestamp_ns > last.timestamp_ns


def test_images_are_new_and_told_apart(cameras: CameraSet) -> None:
    first = cameras.latest()
    later = {name: next_image(cameras, name).image for name in first}
    for name, image in later.items():
        assert frame_number(image) > frame_number(first[name].image)
    assert (later["table"] != later["wrist"]).any()
    assert cameras.clocks == {"table": "device", "wrist": "device"}


def test_unplugged_in_mid_run(cameras: CameraSet, cable: SimulatedCable) -> None:
    cable.unplug()
    assert_lost_and_found(cameras, cable, "unplugged")


def test_unplugged_again_and_again(cameras: CameraSet, cable: SimulatedCable) -> None:
    for _ in range(3):
        cable.unplug()
        assert_lost_and_found(cameras, cable, "unplugged")


def test_read_that_hangs(cameras: CameraSet, cable: SimulatedCable) -> None:
    cable.hang()
    assert_lost_and_found(cameras, cable, "reading it hangs")


def test_open_but_silent(cameras: CameraSet, cable: SimulatedCable) -> None:
    """Seen as lost before it is opened anew, and reopened without end."""
    cable.silence()
    assert_lost_and_found(cameras, cable, "no new image for")


def test_latest_and_lost_never_wait(cameras: CameraSet, cable: SimulatedCable) -> None:
    cable.hang()
    wait_for(lambda: cameras.lost, "the loss")
    began = time.monotonic()
    for _ in range(1000):
        cameras.latest()
        assert "wrist" in cameras.lost
    assert time.monotonic() - began < 2.0  # 1 ms each would already be far too long for waiting


def test_hanging_for_long_leaves_few_threads_behind(cameras: CameraSet, cable: SimulatedCable) -> None:
    """Each try hangs anew; a day of that must not pile up threads, and it must still come back."""
    cable.hang()

    def readers() -> list[threading.Thread]:
        return [thread for thread in camera_threads() if thread.name == "camera wrist"]

    wait_for(lambda: len(readers()) == MAX_LEFT_BEHIND + 1, "as many threads as are allowed")
    time.sleep(1.0)
    assert len(readers()) == MAX_LEFT_BEHIND + 1
    assert_lost_and_found(cameras, cable, "hangs")
    wait_for(lambda: len(readers()) == 1, "the end of those that hung")


def age_ns(image: CapturedImage) -> int:
    """How long ago an image that has just come was taken."""
    return time.time_ns() - image.timestamp_ns


def test_late_images_keep_the_time_at_which_they_were_taken(
    cameras: CameraSet, cable: SimulatedCable
) -> None:
    cable.delay(0.4)
    wait_for(lambda: age_ns(next_image(cameras, "wrist")) > 0.39e9, "a late image")
    cable.mend()
    wait_for(lambda: age_ns(next_image(cameras, "wrist")) < 0.3e9, "one that is not")


def test_disconnect_while_a_read_hangs(cameras: CameraSet, cable: SimulatedCable) -> None:
    cable.hang()
    wait_for(lambda: cameras.lost, "the loss")
    began = time.monotonic()
    cameras.disconnect()
    assert time.monotonic() - began < 10.0
    assert cameras.latest() == {}
    assert cameras.lost == {}
    cable.mend()
    wait_for(lambda: not camera_threads(), "the end of all threads")


def test_disconnect_ends_all_threads(cameras: CameraSet) -> None:
    cameras.disconnect()
    assert not camera_threads()


def test_camera_that_is_absent_when_connecting(cable: SimulatedCable) -> None:
    """One line that names the camera; the other camera is closed again."""
    cable.unplug()
    cameras = CameraSet({"table": simulated(), "wrist": simulated(cable)})
    with pytest.raises(
        InputError, match=r"camera 'wrist' .simulated_camera.*unplugged.*connected: "
    ) as raised:
        cameras.connect()
    assert "\n" not in str(raised.value)
    assert not cameras.is_connected
    assert not camera_threads()
    cable.mend()
    cameras.connect()
    assert set(cameras.latest()) == {"table", "wrist"}
    cameras.disconnect()


@pytest.mark.parametrize("trouble", ["silent", "hung"])
def test_camera_whose_first_image_never_comes(cable: SimulatedCable, trouble: str) -> None:
    cable.silence() if trouble == "silent" else cable.hang()
    cameras = CameraSet({"wrist": simulated(cable)}, first_image_s=0.5)
    with pytest.raises(Failure, match=r"camera 'wrist' .* within 0\.5 s: unplug it") as raised:
        cameras.connect()
    assert "\n" not in str(raised.value)
    assert not cameras.is_connected


def test_no_cameras_at_all() -> None:
    cameras = CameraSet({})
    cameras.connect()
    assert cameras.features == {}
    assert cameras.latest() == {}
    assert cameras.lost == {}
    cameras.disconnect()


def test_frame_number_survives_jpeg() -> None:
    """The benchmark reads it from recorded images."""
    import cv2

    from collectors.simulated_camera import _background, _picture

    config = SimulatedCameraConfig(width=640, height=480)
    for number in (1, 2, 1000, 123_456_789, 2**32 - 1):
        picture = _picture(_background(config), number, phase=0)
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        assert frame_number(decoded) == number


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # LeRobot's read thread
def test_lerobots_opencv_camera_unplugged_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot's class stops its thread for good when reads fail; the set makes a new one."""
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
    source = JpegSource(tmp_path / "usb.mjpeg")
    source.plug_in()
    config = OpenCVPipeConfig(index_or_path=source.path, width=64, height=48, fps=50, warmup_s=0)
    cameras = CameraSet({"usb": config}, retry_every_s=0.05, lost_after_s=0.3)
    cameras.connect()
    try:
        last = cameras.latest()["usb"]
        source.unplug()
        wait_for(lambda: "Failed to open" in cameras.lost.get("usb", ""), "the loss")
        assert cameras.latest()["usb"].sequence >= last.sequence
        source.plug_in()
        wait_for(lambda: not cameras.lost, "its return")
        assert next_image(cameras, "usb").timestamp_ns > last.timestamp_ns
    finally:
        cameras.disconnect()
        source.unplug()


def test_camera_that_delivers_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
    source = JpegSource(tmp_path / "usb.mjpeg")
    source.plug_in()
    config = OpenCVPipeConfig(index_or_path=source.path, width=80, height=60, fps=50, warmup_s=0)
    cameras = CameraSet({"usb": config})
    try:
        with pytest.raises(InputError, match=r"48x64x3 uint8.*60x80x3.*\[cameras\.usb\.options\]"):
            cameras.connect()
    finally:
        source.unplug()

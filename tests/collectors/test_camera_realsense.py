"""RealSense without hardware: the SDK's software device, syncer and align; recordings; a missing libusb."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.camera_clock import DeviceClock
from collectors.cameras import CameraSet
from collectors.config_realsense import RealSenseConfig
from collectors.realsense_process import capture_time_ns, colour_pixels
from pipeline.errors import InputError

rs = pytest.importorskip("pyrealsense2", reason="needs pyrealsense2 and libusb-1.0")


def run_camera(camera: Any, sink: Any, times_ms: list[float], domain: Any) -> Iterator[Any]:
    """Gives a software camera colour and depth of those times; yields ``sink``, where they arrive."""
    camera.device.create_matcher(rs.matchers.dlr_c)
    for sensor, profile in ((camera.colour, camera.colour_profile), (camera.depth, camera.depth_profile)):
        sensor.open(profile)
        sensor.start(sink)
    for number, time_ms in enumerate(times_ms, start=1):
        camera.give(number, time_ms, domain)
        yield sink
    for sensor in (camera.colour, camera.depth):
        sensor.stop()
        sensor.close()


@pytest.fixture
def camera() -> Any:
    """A D435i of software."""
    from tests.collectors.realsense_recording import SoftwareCamera

    return SoftwareCamera()


def test_software_device_gives_our_images_and_the_systems_time(camera: Any) -> None:
    """Aligned with its depth, the picture is what was put in, and its time the SDK's global time."""
    now_ms = time.time() * 1000
    times = [now_ms - 200 + 33 * i for i in range(5)]
    align = rs.align(rs.stream.color)
    seen = 0
    for syncer in run_camera(camera, rs.syncer(10), times, rs.timestamp_domain.global_time):
        pair = syncer.wait_for_frames(5000)
        if not pair.get_depth_frame() or not pair.get_color_frame():
            continue  # the first may come alone
        seen, pair = seen + 1, align.process(pair)
        frame = pair.get_color_frame()
        image = colour_pixels(frame)
        assert image.shape == (48, 64, 3)
        assert image.dtype == np.uint8
        assert image[0, frame.get_frame_number()].tolist() == [230, 230, 230]
        assert image[0, 63].tolist() == [160, 60, 40]
        assert np.asanyarray(pair.get_depth_frame().get_data()).shape == (48, 64)
        taken_ns = capture_time_ns(frame, DeviceClock(), time.time_ns())
        assert min(abs(taken_ns / 1e6 - t) for t in times) < 1e-3
    assert seen


def test_device_that_counts_from_its_own_start_is_mapped(camera: Any) -> None:
    """Without global time the device's clock counts from its start; arrival tells where that was."""
    frames = []
    queue = rs.frame_queue(20)
    for sink in run_camera(
        camera, queue, [5000.0, 5033.0, 5066.0, 5099.0], rs.timestamp_domain.hardware_clock
    ):
        pair = [sink.wait_for_frame(5000), sink.wait_for_frame(5000)]
        frames += [f.as_video_frame() for f in pair if f.get_profile().stream_type() == rs.stream.color]
    assert len(frames) == 4
    clock, boot_ns = DeviceClock(), time.time_ns() - 5_000_000_000
    delays_ns = [9_000_000, 3_000_000, 40_000_000, 5_000_000]  # how long each took to arrive
    times = [
        capture_time_ns(frame, clock, boot_ns + round(frame.get_timestamp() * 1e6) + delay)
        for frame, delay in zip(frames, delays_ns, strict=True)
    ]
    errors = [
        taken - boot_ns - frame.get_timestamp() * 1e6 for taken, frame in zip(times, frames, strict=True)
    ]
    assert all(error == pytest.approx(3_000_000, abs=1000) for error in errors[1:]), "the least delay, always"


def test_clock_forgets_when_the_device_begins_anew() -> None:
    clock = DeviceClock(window=10)
    assert clock.system_ns(1_000, 5_000_000_000) == 5_000_000_000
    assert clock.system_ns(10_001_000, 5_012_000_000) == 5_010_000_000
    # Started again: it counts from 0 while the system's time goes on.
    assert clock.system_ns(0, 9_000_000_000) == 9_000_000_000


def test_clock_follows_a_slow_drift() -> None:
    """One part in a thousand too slow: after the window has passed, the error is that of the window only."""
    clock = DeviceClock(window=30)
    for step in range(1000):
        true_ns = step * 33_000_000
        taken_ns = clock.system_ns(round(true_ns * 0.999), true_ns + 2_000_000)
        assert taken_ns <= true_ns + 2_000_000
        assert taken_ns >= true_ns + 2_000_000 - 30 * 33_000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"serial_number": "012345678901"}, r"serial_number = \"012345678901\": the SDK sees no RealSense"),
        ({"recording": Path("/no/such.bag")}, r"recording = \"/no/such.bag\": there is no such file"),
    ],
)
def test_what_is_not_there_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        CameraSet({"wrist": RealSenseConfig(**settings)}).connect()
    assert "cameras connected: " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_size_that_the_recording_lacks_is_one_line(tmp_path: Path) -> None:
    from tests.collectors.realsense_recording import record

    record(tmp_path / "short.bag", frames=3)
    config = RealSenseConfig(recording=tmp_path / "short.bag", width=640, height=480)
    with pytest.raises(InputError, match=r"camera 'wrist' .*short\.bag\": the SDK refuses: "):
        CameraSet({"wrist": config}).connect()


def test_lerobots_own_camera_with_a_wrong_serial_is_one_line() -> None:
    """``intelrealsense``, the type that LeRobot brings."""
    from lerobot.cameras.realsense import RealSenseCameraConfig

    config = RealSenseCameraConfig(serial_number_or_name="012345678901", width=640, height=480, fps=30)
    words = (
        r"camera 'wrist' \(intelrealsense\).*serial_number_or_name = \"012345678901\".*cameras connected: "
    )
    with pytest.raises(InputError, match=words) as raised:
        CameraSet({"wrist": config}).connect()
    assert "\n" not in str(raised.value)


def test_missing_libusb_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK's import says on a machine without libusb."""
    message = "libusb-1.0.so.0: cannot open shared object file: No such file or directory"
    (tmp_path / "pyrealsense2.py").write_text(f"raise ImportError({message!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"libusb-1\.0 is missing: install libusb-1\.0-0"):
        CameraSet({"wrist": RealSenseConfig(serial_number="0123")}).connect()

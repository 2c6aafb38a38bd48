"""A RealSense recording made without a camera: the SDK's software device, with its own recorder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyrealsense2 as rs  # type: ignore[import-untyped]  # it ships none

WIDTH, HEIGHT, RATE_HZ = 64, 48, 30
SERIAL = "000000000001"


class SoftwareCamera:
    """A D435i as the SDK sees it: a colour and a depth sensor whose frames are given to it."""

    def __init__(self) -> None:
        """Makes the device and its two streams, 64x48 at 30 Hz."""
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Intel RealSense D435I")
        self.device.register_info(rs.camera_info.serial_number, SERIAL)
        self.colour = self.device.add_sensor("RGB Camera")
        self.depth = self.device.add_sensor("Stereo Module")
        self.depth.add_read_only_option(rs.option.depth_units, 0.001)
        self.colour_profile = self.colour.add_video_stream(_stream(rs.stream.color, 0, rs.format.rgb8, 3))
        self.depth_profile = self.depth.add_video_stream(_stream(rs.stream.depth, 1, rs.format.z16, 2))
        self.depth_profile.register_extrinsics_to(self.colour_profile, _no_offset())
        self._kept: list[np.ndarray] = []  # the SDK does not copy pixels

    def give(self, number: int, time_ms: float, domain: Any = rs.timestamp_domain.global_time) -> None:
        """A colour image with a bright bar at ``number`` on a reddish ground, and a depth image."""
        colour = np.full((HEIGHT, WIDTH, 3), (160, 60, 40), np.uint8)
        colour[:, number % WIDTH] = 230
        depth = np.full((HEIGHT, WIDTH), 500 + number, np.uint16)
        self._kept += [colour, depth]
        for sensor, profile, pixels in (
            (self.colour, self.colour_profile, colour),
            (self.depth, self.depth_profile, depth),
        ):
            frame = rs.software_video_frame()
            frame.pixels = pixels
            frame.bpp = pixels[0, 0].nbytes
            frame.stride = WIDTH * frame.bpp
            frame.timestamp, frame.domain, frame.frame_number = time_ms, domain, number
            frame.profile = profile.as_video_stream_profile()
            if pixels is depth:
                frame.depth_units = 0.001
            sensor.on_video_frame(frame)


def record(path: Path, frames: int = 30) -> None:
    """Writes a recording of ``frames`` colour and depth images, a thirtieth of a second apart."""
    camera = SoftwareCamera()
    recorder = rs.recorder(str(path), camera.device)
    queue = rs.frame_queue(2 * frames)
    sensors = recorder.query_sensors()
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles()[0])
        sensor.start(queue)
    began_ms = time.time() * 1000 - 3_600_000  # an hour ago, as recordings are
    for number in range(frames):
        camera.give(number, began_ms + number * 1000 / RATE_HZ)
        time.sleep(1 / RATE_HZ)  # the recorder stamps what arrives with its own clock, too
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    # The file is finished when the last of these objects is gone, which is when this function returns.


def _stream(kind: Any, uid: int, pixels: Any, bytes_per_pixel: int) -> Any:
    stream = rs.video_stream()
    stream.type, stream.uid, stream.fmt, stream.bpp = kind, uid, pixels, bytes_per_pixel
    stream.index, stream.fps, stream.width, stream.height = 0, RATE_HZ, WIDTH, HEIGHT
    intrinsics = rs.intrinsics()
    intrinsics.width, intrinsics.height = WIDTH, HEIGHT
    intrinsics.ppx, intrinsics.ppy, intrinsics.fx, intrinsics.fy = WIDTH / 2, HEIGHT / 2, 60.0, 60.0
    intrinsics.model, intrinsics.coeffs = rs.distortion.none, [0.0] * 5
    stream.intrinsics = intrinsics
    return stream


def _no_offset() -> Any:
    extrinsics = rs.extrinsics()
    extrinsics.rotation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    extrinsics.translation = [0.0, 0.0, 0.0]
    return extrinsics

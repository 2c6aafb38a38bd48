"""The network camera: lost and back, and addresses that cannot work, over pipes and loopback sockets."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from collectors.cameras import CameraSet
from collectors.config_network_camera import NetworkCameraConfig
from pipeline.errors import InputError
from tests.collectors.opencv_pipe import JpegSource
from tests.contracts.camera_contract import next_image, wait_for


def test_lost_and_back(tmp_path: Path) -> None:
    source = JpegSource(tmp_path / "camera.mjpeg")
    source.plug_in()
    config = NetworkCameraConfig(url=str(source.path), width=64, height=48, fps=50)
    cameras = CameraSet({"wrist": config}, retry_every_s=0.05, lost_after_s=0.3)
    cameras.connect()
    try:
        last = cameras.latest()["wrist"]
        source.unplug()
        wait_for(lambda: "cannot be reached: No such file" in cameras.lost.get("wrist", ""), "the loss")
        source.plug_in()
        wait_for(lambda: not cameras.lost, "its return")
        assert next_image(cameras, "wrist").timestamp_ns > last.timestamp_ns
    finally:
        cameras.disconnect()
        source.unplug()


def test_motion_jpeg_over_http() -> None:
    """As web cameras send it: one answer that never ends."""
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), (40, 60, 160), np.uint8))[1].tobytes()
    part = b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"
    stopping = threading.Event()

    def serve(server: socket.socket) -> None:
        client, _ = server.accept()
        client.recv(4096)
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=part\r\n\r\n")
        try:
            while not stopping.wait(0.02):
                client.sendall(part)
        except OSError:
            pass
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/video"
        cameras = CameraSet({"web": NetworkCameraConfig(url=url, width=64, height=48, fps=50)})
        try:
            cameras.connect()
            image = next_image(cameras, "web").image
            assert image.mean(axis=(0, 1)) == pytest.approx([160, 60, 40], abs=4)
            stopping.set()
            wait_for(lambda: cameras.lost, "the loss")
        finally:
            stopping.set()
            cameras.disconnect()
            thread.join(timeout=5)


def test_address_where_nothing_listens_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"rtsp://127.0.0.1:{port}/color"
    with pytest.raises(
        InputError, match=rf"url = \"{url}\": it cannot be reached: Connection refused"
    ) as raised:
        CameraSet({"wrist": NetworkCameraConfig(url=url)}).connect()
    assert "\n" not in str(raised.value)


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 100)
    config = NetworkCameraConfig(url=str(tmp_path / "noise"))
    with pytest.raises(InputError, match=r"camera 'wrist' .*noise\": it .*Invalid data") as raised:
        CameraSet({"wrist": config}).connect()
    assert "\n" not in str(raised.value)

"""``[cameras.*]`` of recap.toml: every type; each mistake in one line that names the table and the key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collectors.camera_settings import DEFINED_IN, camera_configs
from collectors.cameras import CameraSet
from pipeline.errors import InputError
from pipeline.site_config import CameraSection, load_site_config

SIZE = {"width": 640, "height": 480, "fps": 30}


def test_all_types_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "recap.toml"
    path.write_text(
        """
[robot]
type = "kinova_gen3"
[cameras.usb]
type = "opencv"
[cameras.usb.options]
index_or_path = "/dev/video0"
width = 640
height = 480
fps = 30
rotation = 90
[cameras.bolt]
type = "orbbec"
[cameras.bolt.options]
serial_number = "CL8F253004Z"
[cameras.kinect]
type = "azure_kinect"
[cameras.kinect.options]
python = "/opt/azure-kinect/bin/python"
[cameras.simulated]
type = "simulated_camera"
"""
    )
    configs = camera_configs(load_site_config(path).cameras)
    assert {name: config.type for name, config in configs.items()} == {
        "usb": "opencv",
        "bolt": "orbbec",
        "kinect": "azure_kinect",
        "simulated": "simulated_camera",
    }
    assert CameraSet(configs).features == {
        "usb": (480, 640, 3),
        "bolt": (720, 1280, 3),
        "kinect": (720, 1280, 3),
        "simulated": (480, 640, 3),
    }


@pytest.mark.parametrize("type_name", ["intelrealsense", "realsense"])
def test_realsense_types(type_name: str) -> None:
    pytest.importorskip("pyrealsense2", reason="LeRobot loads it with the settings")
    serial = "serial_number_or_name" if type_name == "intelrealsense" else "serial_number"
    configs = camera_configs({"wrist": CameraSection(type_name, {serial: "0123456789", **SIZE})})
    assert CameraSet(configs).features == {"wrist": (480, 640, 3)}


@pytest.mark.parametrize(
    ("type_name", "options", "words"),
    [
        ("webcam", {}, r"\[cameras\.table\] has unknown type 'webcam'; known are azure_kinect, .*opencv"),
        ("opencv", SIZE, r"\[cameras\.table\.options\] lacks index_or_path"),
        ("opencv", {"index": 0}, r"unknown key 'index' in \[cameras\.table\.options\].*index_or_path"),
        ("opencv", {"index_or_path": 0, "rotation": 45}, r"options\].*rotation"),
        ("opencv", {"index_or_path": 0, "fps": "fast"}, r"options\].*fps.*'fast'"),
        ("simulated_camera", {"fps": 0}, r"options\]: simulated_camera: fps is 0"),
        ("simulated_camera", {"width": 8}, "width is 8"),
        ("simulated_camera", {"height": 8}, "height is 8"),
        ("realsense", {}, "give either serial_number or recording"),
        ("realsense", {"serial_number": "1", "fps": 0}, "fps is 0"),
        ("orbbec", {"fps": 0}, "fps is 0"),
        ("network_camera", {}, "url is not given, such as rtsp://192.168.1.10/color"),
        ("network_camera", {"url": "rtsp://a", "transport": "ip"}, "transport is 'ip'"),
        ("network_camera", {"url": "rtsp://a", "fps": 0}, "fps is 0"),
        ("azure_kinect", {}, "python is not given.*numpy<2"),
    ],
)
def test_mistakes(type_name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        camera_configs({"table": CameraSection(type_name, options)})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "image size is not known; write width and height"),
        (SIZE | {"color_mode": "bgr"}, "color_mode is 'bgr'.*episodes hold RGB"),
    ],
)
def test_settings_that_cannot_be_recorded(options: dict[str, Any], words: str) -> None:
    configs = camera_configs({"table": CameraSection("opencv", {"index_or_path": 0, **options})})
    with pytest.raises(InputError, match=rf"camera 'table'.*{words}"):
        CameraSet(configs)


def test_absent_video_device_is_one_line() -> None:
    options = {"index_or_path": "/dev/video63", **SIZE}
    cameras = CameraSet(camera_configs({"table": CameraSection("opencv", options)}))
    words = r"camera 'table' \(opencv\) cannot be opened with \[cameras\.table\.options\] index_or_path = "
    with pytest.raises(InputError, match=words) as raised:
        cameras.connect()
    assert "\n" not in str(raised.value)
    assert "lerobot-find-cameras" not in str(raised.value)


def test_types_are_found_by_lerobot_and_load_no_sdk() -> None:
    """What ``--robot.discover_packages_path`` does for our modules: import them, and nothing beyond."""
    ours = [module for module in DEFINED_IN.values() if module.startswith("collectors.")]
    devices = [module.replace("config_", "") for module in ours]
    code = (
        "import importlib, sys\n"
        f"for module in {ours + devices}: importlib.import_module(module)\n"
        "from lerobot.cameras import CameraConfig\n"
        "from lerobot.cameras.utils import make_cameras_from_configs\n"
        "given = {'azure_kinect': {'python': 'python'}, 'realsense': {'serial_number': '1'}}\n"
        "given['network_camera'] = {'url': 'rtsp://a'}\n"
        "for kind in ('azure_kinect', 'network_camera', 'orbbec', 'realsense', 'simulated_camera'):\n"
        "    config = CameraConfig.get_choice_class(kind)(**given.get(kind, {}))\n"
        "    print(type(make_cameras_from_configs({'a': config})['a']).__name__)\n"
        "loaded = {'pyorbbecsdk', 'pyrealsense2', 'pyk4a'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["AzureKinect", "NetworkCamera", "Orbbec", "RealSense", "SimulatedCamera"]

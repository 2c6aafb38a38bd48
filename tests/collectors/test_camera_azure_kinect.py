"""The Azure Kinect's own process: it dies, hangs, loses its device or its parent.

Over a stand-in for the SDK. Where the real one is installed (``AZURE_KINECT_PYTHON`` names its interpreter)
it is asked, too, what it says without a device.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from collectors.cameras import CameraSet
from collectors.config_azure_kinect import AzureKinectConfig
from collectors.simulated_camera import SimulatedCable
from pipeline.errors import InputError
from tests.contracts.camera_contract import next_image, wait_for

STAND_IN = Path(__file__).with_name("camera_stand_ins") / "azure"
SCRIPT = Path(__file__).parents[2] / "collectors" / "azure_kinect_process.py"


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedCable:
    """What the stand-in suffers from."""
    cable = SimulatedCable(tmp_path / "kinect")
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    monkeypatch.setenv("PYK4A_STAND_IN_CABLE", str(cable.path))
    return cable


@pytest.fixture
def cameras(cable: SimulatedCable) -> Iterator[CameraSet]:
    """One that runs."""
    config = AzureKinectConfig(python=sys.executable)
    cameras = CameraSet({"table": config}, retry_every_s=0.05, lost_after_s=0.4)
    cameras.connect()
    yield cameras
    cameras.disconnect()


def kinect_processes(parent: int) -> list[psutil.Process]:
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if SCRIPT.name in " ".join(child.cmdline())]


def assert_comes_back(cameras: CameraSet, cable: SimulatedCable) -> None:
    last = cameras.latest()["table"]
    cable.mend()
    wait_for(lambda: not cameras.lost, "its return")
    assert next_image(cameras, "table").timestamp_ns > last.timestamp_ns


def test_process_that_dies_is_replaced(cameras: CameraSet, cable: SimulatedCable) -> None:
    (process,) = kinect_processes(os.getpid())
    process.send_signal(signal.SIGKILL)
    wait_for(lambda: cameras.latest()["table"].sequence and cameras.lost, "the loss")
    assert_comes_back(cameras, cable)
    (other,) = kinect_processes(os.getpid())
    assert other.pid != process.pid


def test_unplugged_and_back(cameras: CameraSet, cable: SimulatedCable) -> None:
    cable.unplug()
    wait_for(lambda: "plugged in" in cameras.lost.get("table", ""), "the loss, in words")
    assert_comes_back(cameras, cable)


def test_sdk_that_hangs_is_ended_with_its_process(cameras: CameraSet, cable: SimulatedCable) -> None:
    (process,) = kinect_processes(os.getpid())
    cable.hang()
    wait_for(lambda: cameras.lost, "the loss")
    wait_for(lambda: not process.is_running(), "the end of the process that hangs")
    assert_comes_back(cameras, cable)


def test_disconnect_ends_a_process_that_hangs(cameras: CameraSet, cable: SimulatedCable) -> None:
    cable.hang()
    wait_for(lambda: cameras.lost, "the loss")
    cameras.disconnect()
    wait_for(lambda: not kinect_processes(os.getpid()), "the end of the process")


def test_process_ends_when_its_parent_is_killed(cable: SimulatedCable) -> None:
    """Also while the SDK hangs: the device must be free for whoever starts next."""
    parent_code = (
        "import os, subprocess, sys, time\n"
        "ours, theirs = os.pipe()\n"
        "command = [sys.executable, sys.argv[1], '--pipe', str(theirs)]\n"
        "command += ['--width', '1280', '--height', '720', '--fps', '30']\n"
        "process = subprocess.Popen(\n"
        "    command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(theirs,)\n"
        ")\n"
        "os.read(ours, 1)\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    command = [sys.executable, "-c", parent_code, str(SCRIPT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        cable.hang()
        parent.kill()
    wait_for(lambda: not process.is_running(), "the end of the process")


@pytest.mark.parametrize(
    ("settings", "serials", "words"),
    [
        ({"serial_number": "000777"}, "000123,000456", r"serial_number = \"000777\".*only 000123, 000456"),
        ({}, "000123,000456", "serial_number is not given, and 2 are connected"),
        ({"python": "/no/such/python"}, "000123", "'/no/such/python' cannot be run: No such file"),
        ({"python": "/bin/false"}, "000123", "its process ended with status 1"),
    ],
)
def test_what_cannot_work_is_one_line(
    cable: SimulatedCable, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], serials: str, words: str
) -> None:
    monkeypatch.setenv("PYK4A_STAND_IN_SERIALS", serials)
    cameras = CameraSet({"table": AzureKinectConfig(**({"python": sys.executable} | settings))})
    with pytest.raises(InputError, match=words) as raised:
        cameras.connect()
    assert str(raised.value).startswith("camera 'table' (azure_kinect)")
    assert "\n" not in str(raised.value)


def test_environment_without_the_sdk_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stand-in here: this project's own interpreter really lacks pyk4a."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    cameras = CameraSet({"table": AzureKinectConfig(python=sys.executable)})
    with pytest.raises(InputError, match=r"cannot import pyk4a.*pip install 'numpy<2' pyk4a-bundle"):
        cameras.connect()


def test_real_sdk_without_a_device_says_so() -> None:
    python = os.environ.get("AZURE_KINECT_PYTHON")
    if not python:
        pytest.skip(
            "needs pyk4a-bundle in an environment of its own; AZURE_KINECT_PYTHON names its interpreter"
        )
    with pytest.raises(InputError, match="the SDK sees no Azure Kinect"):
        CameraSet({"table": AzureKinectConfig(python=python)}).connect()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "python is not given"),
        ({"python": "p", "width": 640, "height": 480}, "640x480 is none of its sizes: 1280x720"),
        ({"python": "p", "fps": 60}, "fps is 60"),
        ({"python": "p", "width": 4096, "height": 3072}, "fps is 30"),
    ],
)
def test_settings_are_checked_when_they_are_built(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AzureKinectConfig(**settings)


def test_process_needs_nothing_of_this_project() -> None:
    """It runs in an environment that has pyk4a and numpy, and nothing else."""
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names) | {"pyk4a", "numpy"}
    assert "pyk4a" not in sys.modules

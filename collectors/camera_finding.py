"""Which cameras are connected, in words, for error messages and ``recap doctor``.

An SDK is asked in a process of its own, with a time limit: one that lacks a system library may end its
process, and one that hangs must not hang the asker. USB devices are also read from the kernel's own list,
so that a camera which is there but which its SDK cannot use is told apart from one that is not there.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SDKS = ("realsense", "orbbec")
TIME_LIMIT_S = 10.0
LIBUSB_REMEDY = "install libusb-1.0-0 (apt-get install libusb-1.0-0; make setup does it)"

USB_DEVICES = Path("/sys/bus/usb/devices")
VIDEO_DEVICES = Path("/sys/class/video4linux")
# Vendor and product of one USB function of each camera; the Azure Kinect also has two hubs and a microphone.
USB_CAMERAS = {
    ("045e", "097c"): "Azure Kinect",
    ("2bc5", "066b"): "Orbbec Femto Bolt",
    ("2bc5", "0669"): "Orbbec Femto Mega",
    ("8086", "0b07"): "RealSense D435",
    ("8086", "0b3a"): "RealSense D435I",
    ("8086", "0b5b"): "RealSense D405",
    ("8086", "0ad3"): "RealSense D415",
    ("8086", "0b5c"): "RealSense D455",
}


def describe_connected() -> list[str]:
    """One line per connected camera, and one per SDK that cannot be asked; ends within about 10 s.

    A line names what goes into recap.toml: the serial number, or the path of a video device.
    """
    with ThreadPoolExecutor(len(SDKS)) as pool:
        answers = dict(zip(SDKS, pool.map(_ask, SDKS), strict=True))
    lines = [line for answer in answers.values() for line in answer]
    known = "\n".join(lines)
    for name, serial in usb_cameras(USB_DEVICES):
        if not serial or serial not in known:
            lines.append(f"{name}{f' serial {serial}' if serial else ''} (on USB)")
    return lines + video_devices(VIDEO_DEVICES)


def usb_cameras(root: Path) -> list[tuple[str, str]]:
    """Name and serial number (empty where the device tells none) of the known depth cameras on USB."""
    found = []
    for device in sorted(root.glob("*/idVendor")):
        folder = device.parent
        name = USB_CAMERAS.get((_line(device), _line(folder / "idProduct")))
        if name is not None:
            found.append((name, _line(folder / "serial")))
    return found


def video_devices(root: Path) -> list[str]:
    """The kernel's video devices, with their names; nothing is opened."""
    return [f"/dev/{entry.name} {_line(entry / 'name')}".strip() for entry in sorted(root.glob("video*"))]


def require_plugged_in(type_name: str, serial: str) -> None:
    """Raises ``ConnectionError`` where LeRobot's RealSense camera would look in vain for one that is gone.

    That look takes 15 s, in which the SDK holds Python's lock and nothing else runs, the control loop least
    of all. Listing the devices takes a millisecond.
    """
    if type_name != "intelrealsense" or not serial.isdigit():
        return
    rs = importlib.import_module("pyrealsense2")
    if serial not in [
        device.get_info(rs.camera_info.serial_number) for device in rs.context().query_devices()
    ]:
        raise ConnectionError("the SDK sees no RealSense with that number")


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _ask(sdk: str) -> list[str]:
    """What one SDK sees, asked in a child process."""
    command = [sys.executable, "-m", "collectors.camera_finding", sdk]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
            cwd=Path(__file__).parent.parent,
        )
    except subprocess.TimeoutExpired:
        return [f"{sdk}: its SDK did not answer for {TIME_LIMIT_S:.0f} s; plug its cameras in again"]
    last = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
    try:
        return [str(line) for line in json.loads(last[0])]
    except (IndexError, ValueError):
        return [f"{sdk}: {_why_it_failed(sdk, done)}"]


def _why_it_failed(sdk: str, done: subprocess.CompletedProcess[str]) -> str:
    errors = done.stderr.strip().splitlines()
    if "libusb" in done.stderr:
        return f"its SDK cannot be loaded, libusb-1.0 is missing: {LIBUSB_REMEDY}"
    return f"its SDK ended with status {done.returncode}" + (f" ({errors[-1].strip()})" if errors else "")


def _realsense() -> list[str]:
    try:
        rs = importlib.import_module("pyrealsense2")
    except ModuleNotFoundError:
        return []  # not installed: no line, as most sites have one kind of camera
    lines = []
    for device in rs.context().query_devices():
        serial = device.get_info(rs.camera_info.serial_number)
        usb = device.get_info(rs.camera_info.usb_type_descriptor)
        slow = ", a slow port: use a blue one" if usb.startswith("2") else ""
        lines.append(f"{device.get_info(rs.camera_info.name)} serial {serial} (USB {usb}{slow})")
    return lines


def _orbbec() -> list[str]:
    from collectors.orbbec_process import connected_devices

    try:
        return [f"{name} serial {serial}" for name, serial in connected_devices()]
    except ImportError:
        return []


def main(sdk: str) -> None:
    """The child process: asks one SDK and prints its lines as JSON."""
    print(json.dumps({"realsense": _realsense, "orbbec": _orbbec}[sdk]()))


if __name__ == "__main__":
    main(sys.argv[1])

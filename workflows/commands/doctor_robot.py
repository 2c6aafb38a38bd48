"""What ``recap doctor`` looks at besides the machine: arm, cameras and operator's device of ``recap.toml``.

Nothing here moves an arm or sends it a command. Everything ends within a known time.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lerobot.cameras.configs import CameraConfig

from collectors.camera_finding import describe_connected
from collectors.camera_settings import camera_configs
from collectors.cameras import CameraSet
from collectors.kinova_connection import probe
from collectors.kinova_gen3 import KinovaGen3, KinovaGen3Config
from collectors.kinova_inspection import inspect_arm
from collectors.kinova_link import DriverSettings, Mode
from collectors.site_devices import OUR_PREFIX, make_operator, make_robot
from pipeline.episode import ACTION_NAMES
from pipeline.errors import Failure, InputError
from pipeline.site_config import SIMULATED_ROBOT, SiteConfig
from workflows.commands.doctor_check import Check

FEEDBACK_HZ = 100.0  # what the driver needs
RATE_SHARE = 0.9  # a camera that gives less than this share of its rate is amiss
CAMERA_LOOK_S = 2.0
FIRST_IMAGE_S = 12.0
CAMERA_LIMIT_S = 40.0
DEVICES_LIMIT_S = 15.0
_USB_ADVICE = "a USB 3 port of its own (a blue one), a short cable and more light help, or a lower fps"
_NETWORK_ADVICE = "a cable instead of Wi-Fi and no other load on that network help; or ask for a lower fps"
_SPEED_ADVICE = {
    "simulated_camera": "this computer is too busy: end what else runs, or ask for a lower fps",
    "network_camera": _NETWORK_ADVICE,
    "zmq": _NETWORK_ADVICE,
}
_DEVICES = {"gamepad": "gamepad", "spacemouse": "SpaceMouse"}  # by operator: how its lines begin
_NEEDED_DEVICE = "[operator] of recap.toml names it: plug it in, or name another there"


def robot_checks(site: SiteConfig) -> Iterator[Check]:
    """The arm, its cameras and the operator's device, in this order."""
    is_kinova = site.robot.type == KinovaGen3.name
    client = _client(is_kinova)
    yield client
    try:
        robot: Any = make_robot(replace(site, cameras={}))  # a wrong camera is told of below
    except InputError as error:
        robot = None
        yield Check("robot", False, site.robot.type, str(error))
    if is_kinova and robot is not None:
        yield from arm_checks(robot.config) if client.ok else (_port_check(robot.config),)
    yield from _cameras(site)
    yield from _operator(site, robot)


def _client(is_needed: bool) -> Check:
    installed = importlib.util.find_spec("kortex_api") is not None
    remedy = "for a real arm: install the wheel that Kinova gives its users, see docs/kinova.md"
    return Check("kortex_api", installed, "installed" if installed else "not installed", remedy, is_needed)


def _port_check(config: KinovaGen3Config) -> Check:
    """All that can be seen of an arm without its client."""
    place = f"{config.ip}, TCP {config.tcp_port}"
    try:
        probe(config.ip, config.tcp_port)
    except InputError as error:
        return Check("arm", False, place, _without_name(error))
    return Check("arm", True, f"{place} answers; more can be seen with kortex_api", "")


def arm_checks(config: KinovaGen3Config) -> Iterator[Check]:
    """Whether a Gen3 answers and takes commands, who has it, firmware, feedback; within half a minute."""
    settings = DriverSettings(
        address=config.ip,
        tcp_port=config.tcp_port,
        udp_port=config.udp_port,
        username=config.username,
        password=config.password,
        mode=Mode.LOOK,
    )
    place = f"{config.ip}, TCP {config.tcp_port}, UDP {config.udp_port}"
    try:
        found = inspect_arm(settings)
    except InputError as error:
        yield Check("arm", False, place, _without_name(error))
        return
    yield Check("arm", True, f"{place}: sessions can be made", "")
    stopped = found.stopped
    found_state = "takes commands" if stopped is None else "takes none"
    yield Check("arm state", stopped is None, found_state, stopped or "", amiss="stopped")
    last = f"last commanded by {found.last_commander}" if found.last_commander else "it names no commander"
    yield Check(
        "arm control",
        not found.moves,
        f"{'it moves' if found.moves else 'it stands still'}; {last}",
        "somebody drives it now: let them finish, and close the arm's web application before you record",
        needed=False,
        amiss="busy",
    )
    yield Check("arm firmware", True, found.firmware or "the arm does not tell it", "")
    yield Check(
        "arm feedback",
        found.feedback_hz >= FEEDBACK_HZ,
        f"{found.feedback_hz:.0f} Hz",
        f"{FEEDBACK_HZ:.0f} Hz are needed: a cable straight from this computer to the arm, no other load",
        amiss="slow",
    )


def _without_name(error: InputError) -> str:
    return str(error).removeprefix("kinova_gen3: ")


def _cameras(site: SiteConfig) -> Iterator[Check]:
    try:
        with site.named_in_errors():
            configs = camera_configs(site.cameras)
    except InputError as error:
        yield Check("cameras", False, "unusable settings", str(error))
        return
    yield from camera_checks(configs)
    if site.robot.type != SIMULATED_ROBOT:
        there = "; ".join(describe_connected()) or "none"
        remedy = "name them in recap.toml as [cameras.table] and [cameras.wrist], see docs/kinova.md"
        found = f"{len(configs) or 'none'} in recap.toml; connected: {there}"
        yield Check("cameras", bool(configs), found, remedy, needed=False)


def camera_checks(configs: Mapping[str, CameraConfig]) -> Iterator[Check]:
    """Whether each camera is there and keeps its rate, all at once as when recording."""
    found: dict[str, Check] = {}
    threads = [
        threading.Thread(target=_look_through, args=(name, config, found), daemon=True)
        for name, config in configs.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + CAMERA_LIMIT_S
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    hung = f"said nothing for {CAMERA_LIMIT_S:.0f} s"
    for name in configs:
        yield found.get(name) or Check(f"camera {name}", False, hung, "unplug it and plug it in again")


def _look_through(name: str, config: CameraConfig, found: dict[str, Check]) -> None:
    title = f"camera {name}"
    try:
        cameras = CameraSet({name: config}, first_image_s=FIRST_IMAGE_S)
        cameras.connect()
    except (InputError, Failure) as error:
        found[name] = Check(title, False, config.type, str(error))
        return
    try:
        first, began = cameras.latest()[name].sequence, time.monotonic()
        time.sleep(CAMERA_LOOK_S)
        image, seconds = cameras.latest()[name], time.monotonic() - began
        lost = cameras.lost.get(name)
    finally:
        cameras.disconnect()
    rate, asked = (image.sequence - first) / seconds, config.fps
    height, width = image.image.shape[:2]
    found[name] = Check(
        title,
        lost is None and (asked is None or rate >= RATE_SHARE * asked),
        f"{width}x{height} at {rate:.1f} Hz{f' of {asked}' if asked else ''}, {config.type}",
        lost or _SPEED_ADVICE.get(config.type, _USB_ADVICE),
        amiss="slow" if lost is None else "lost",
    )


def _operator(site: SiteConfig, robot: Any) -> Iterator[Check]:
    if site.operator.type:
        try:
            features = dict.fromkeys(ACTION_NAMES, float) if robot is None else robot.action_features
            with site.named_in_errors():
                make_operator(site.operator.type, site.operator.options, features)
        except InputError as error:
            yield Check("operator", False, site.operator.type, str(error))
        else:
            yield Check("operator", True, site.operator.type, "")
    yield from device_checks(site.operator.type)


def device_checks(operator: str = "") -> Iterator[Check]:
    """Gamepads and SpaceMice; looked for in a process of its own, as their libraries may hang or kill it.

    ``operator`` is the type in ``[operator]``: one of that kind is needed, others are not.
    """
    wanted = _DEVICES.get(operator.removeprefix(OUR_PREFIX))
    command = [sys.executable, "-m", "collectors.teleoperators"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEVICES_LIMIT_S, check=False)
        lines = done.stdout.split("\n\n")[0].splitlines() if done.returncode == 0 else []
    except subprocess.TimeoutExpired:
        lines = []
    if not lines:
        remedy = "run 'python -m collectors.teleoperators' to see why"
        yield Check("operator devices", False, "cannot be looked for", remedy, needed=wanted is not None)
    found = [_device_check(line) for line in lines]
    if any(check.ok and wanted == check.name.split()[0] for check in found):
        wanted = None  # there is one; another that cannot be used is nobody's loss
    for check in found:
        needed = wanted == check.name.split()[0]
        yield replace(check, needed=needed, remedy=_NEEDED_DEVICE) if needed else check


def _device_check(line: str) -> Check:
    name, _, rest = line.partition(": ")
    usable = re.match(r"gamepad \d|SpaceMouse at ", name) is not None and "may not be" not in rest
    remedy = "only needed to drive with one; 'gen3_keyboard' and 'gen3_phone' need no device"
    return Check(name, usable, rest, remedy, needed=False)

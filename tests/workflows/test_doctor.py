"""``recap doctor``: arm, cameras and devices of a site, and that looking disturbs no arm."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.camera_settings import camera_configs
from collectors.kinova_inspection import inspect_arm
from collectors.kinova_link import DriverSettings
from collectors.site_devices import make_operator, make_robot
from pipeline.errors import InputError
from pipeline.site_config import CameraSection, load_site_config
from tests.kortex_stand_in.in_process_client import Client, twist
from tests.kortex_stand_in.simulated_arm import PACKAGE_FOLDER, SimulatedArm
from workflows.cli import main
from workflows.commands.doctor_check import Check
from workflows.commands.doctor_robot import camera_checks, device_checks, robot_checks

CAMERA = """
[cameras.{name}]
type = "simulated_camera"
[cameras.{name}.options]
width = 64
height = 48
fps = 20
"""


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedArm]:
    monkeypatch.syspath_prepend(
        PACKAGE_FOLDER
    )  # so that kortex_api is installed, as far as this process sees
    with SimulatedArm() as arm:
        for name, value in arm.client_environment().items():
            if not name.startswith("PROTOCOL_BUFFERS"):  # who needs it sets it
                monkeypatch.setenv(name, value)
        yield arm


def site_text(arm: SimulatedArm, more: str = "") -> str:
    options = f'ip = "{arm.address}"\ntcp_port = {arm.tcp_port}\nudp_port = {arm.udp_port}\n'
    return f'[robot]\ntype = "kinova_gen3"\n[robot.options]\n{options}{more}'


def look(tmp_path: Path, text: str, until: str = "arm feedback") -> dict[str, Check]:
    """The checks of a site up to the one named ``until``; what comes after it is not looked at."""
    (tmp_path / "recap.toml").write_text(text)
    found = {}
    for check in robot_checks(load_site_config(tmp_path / "recap.toml")):
        found[check.name] = check
        if check.name == until:
            return found
    raise AssertionError(f"{until!r} was not looked at, but {', '.join(found)}")


def test_site_that_is_well(arm: SimulatedArm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cameras = CAMERA.format(name="table") + CAMERA.format(name="wrist")
    (tmp_path / "recap.toml").write_text(site_text(arm, cameras + '[operator]\ntype = "gen3_gamepad"\n'))
    main(["doctor", "--workspace", str(tmp_path)])
    lines = {line[8:].split(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in ("kortex_api", "arm", "arm state", "arm control", "arm firmware", "operator"):
        assert lines[name].startswith("ok "), lines[name]
    assert "0x" in lines["arm firmware"] and " Hz" in lines["arm feedback"]
    assert lines["cameras"].startswith("ok      cameras: 2 in recap.toml; connected: ")
    for name in ("table", "wrist"):
        assert "64x48 at" in lines[f"camera {name}"] and "Hz of 20" in lines[f"camera {name}"]
    assert {command.name for command in arm.log} == {"CreateSession", "CloseSession"}
    assert arm.violations == []


def test_arm_in_fault_and_absent_camera_say_what_to_do(arm: SimulatedArm, tmp_path: Path) -> None:
    arm.protective_stop()
    arm.take_control_from_client()
    absent = '[cameras.table]\ntype = "opencv"\n[cameras.table.options]\nindex_or_path = "/dev/video99"\n'
    text = site_text(arm, absent + "width = 64\nheight = 48\nfps = 20\n")
    found = look(tmp_path, text, until="camera table")
    assert str(found["arm state"]).startswith("stopped arm state: takes none -> the arm stopped itself")
    assert "clear the faults" in found["arm state"].remedy
    assert "last commanded by 192.0.2.7" in found["arm control"].found
    assert not found["camera table"].ok and "/dev/video99" in found["camera table"].remedy
    assert {command.name for command in arm.log} == {"CreateSession", "CloseSession"}


def test_looking_does_not_disturb_an_arm_that_somebody_drives(arm: SimulatedArm, tmp_path: Path) -> None:
    driver = Client(arm)
    driver.base.SendTwistCommand(twist(0.01))
    assert arm.wait_until_moving()
    found = look(tmp_path, site_text(arm))
    assert arm.is_moving() and arm.twist_now()[0] == pytest.approx(0.01)
    assert str(found["arm control"]).startswith("busy    arm control: it moves; last commanded by 127.0.0.1:")
    driver.session.CloseSession()
    driver.transport.disconnect()


def test_arm_that_cannot_be_reached_or_refuses(arm: SimulatedArm, tmp_path: Path) -> None:
    found = look(tmp_path, site_text(arm, 'password = "forgotten"\n'), until="arm")
    assert not found["arm"].ok and "check username and password" in found["arm"].remedy
    closed = '[robot]\ntype = "kinova_gen3"\n[robot.options]\nip = "127.0.0.1"\ntcp_port = 1\n'
    found = look(tmp_path, closed, until="arm")
    assert not found["arm"].ok and "refuses port 1" in found["arm"].remedy
    found = look(tmp_path, site_text(arm, "speed = 3\n"), until="robot")
    assert not found["robot"].ok and "speed" in found["robot"].remedy and "arm" not in found


def test_arm_without_its_client(arm: SimulatedArm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    found = look(tmp_path, site_text(arm), until="arm")
    assert str(found["kortex_api"]).startswith("missing") and "docs/kinova.md" in found["kortex_api"].remedy
    assert found["arm"].ok and "answers" in found["arm"].found and "arm state" not in found


def test_looking_at_a_silent_arm_ends(arm: SimulatedArm) -> None:
    arm.go_silent()
    settings = DriverSettings(arm.address, arm.tcp_port, arm.udp_port, arm.username, arm.password)
    with pytest.raises(InputError, match="said nothing for 2 s"):
        inspect_arm(settings, within_s=2.0)


def test_an_input_device_that_is_named_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pad and no SpaceMouse are plugged in where tests run; where they are, nothing is missing."""
    # Their libraries load in a second, but not while the machine does much else; looked for once for all.
    monkeypatch.setattr("workflows.commands.doctor_robot.DEVICES_LIMIT_S", 120.0)
    run, found = subprocess.run, list[Any]()

    def run_once(*command: Any, **how: Any) -> Any:
        found.extend([] if found else [run(*command, **how)])
        return found[0]

    monkeypatch.setattr("workflows.commands.doctor_robot.subprocess.run", run_once)
    for operator, name in (("gen3_gamepad", "gamepad"), ("spacemouse", "SpaceMouse"), ("gen3_keyboard", "")):
        for check in device_checks(operator):
            wanted = bool(name) and check.name.split()[0] == name
            assert check.ok or check.needed == wanted
            assert check.ok or ("[operator]" in check.remedy) == wanted


def test_a_slow_camera_is_advised_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.commands.doctor_robot.RATE_SHARE", 100.0)  # nothing is fast enough
    configs = camera_configs({"table": CameraSection("simulated_camera", {"width": 64, "height": 48})})
    (check,) = camera_checks(configs)
    assert check.state == "slow" and "too busy" in check.remedy and "USB" not in check.remedy


def test_settings_in_the_documentation_are_accepted(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "kinova.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for number, example in enumerate(examples):
        path = tmp_path / f"recap-{number}.toml"
        path.write_text(example)
        site = load_site_config(path)
        robot = make_robot(site)
        assert {"table", "wrist"} < set(robot.observation_features)
        if site.operator.type:
            make_operator(site.operator.type, site.operator.options, robot.action_features)

"""Connecting: what can be wrong is said in one line before the arm moves; settings are checked when built."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
import psutil
import pytest
from lerobot.robots import RobotConfig, make_robot_from_config

from collectors.config_simulated_camera import SimulatedCameraConfig
from collectors.kinova_faults import one_line
from collectors.kinova_gen3 import KinovaGen3, KinovaGen3Config, stop_arm_of
from collectors.kinova_limits import MotionLimits
from collectors.kinova_lock import ArmLock
from pipeline.errors import InputError
from tests.collectors.kinova_arms import connected, relentless_arm, robot_config
from tests.kortex_stand_in.simulated_arm import SimulatedArm


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedArm]:
    """A simulated arm, for the stand-in's client."""
    with relentless_arm("stand-in", monkeypatch) as arm:
        yield arm


def failure(config: KinovaGen3Config) -> str:
    """Why connecting fails: one line, and no process is left behind."""
    robot = KinovaGen3(config)
    before = set(psutil.Process().children())
    with pytest.raises(InputError) as failed:
        robot.connect()
    assert not robot.is_connected
    assert set(psutil.Process().children()) <= before
    assert "\n" not in str(failed.value)
    return str(failed.value)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_nobody_listens_at_the_port(arm: SimulatedArm) -> None:
    """The address is right, the port is not."""
    arm.tcp_port = free_port()
    assert f"127.0.0.1 refuses port {arm.tcp_port}" in failure(robot_config(arm))


def test_ctrl_c_while_the_arm_does_not_answer(arm: SimulatedArm) -> None:
    """It ends at once, and no driver is left behind that could still find the arm."""
    arm.go_silent()
    robot, me = KinovaGen3(robot_config(arm)), psutil.Process()
    before = set(me.children())
    driver: list[psutil.Process] = []

    def interrupt() -> None:
        while not driver:
            driver.extend(child for child in me.children() if child not in before)
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        robot.connect()
    thread.join()
    assert not robot.is_connected and not driver[0].is_running()


def test_there_is_no_such_host(arm: SimulatedArm) -> None:
    """A name that no resolver knows."""
    arm.address = "no-such-arm.invalid"
    assert "no host 'no-such-arm.invalid'" in failure(robot_config(arm))


def test_there_is_no_route(arm: SimulatedArm) -> None:
    """An address that cannot be reached from here."""
    arm.address = "255.255.255.255"
    assert "no answer from 255.255.255.255" in failure(robot_config(arm))


def test_the_password_is_wrong(arm: SimulatedArm) -> None:
    """It names the user; the password itself is never shown, nor on a command line."""
    words = failure(robot_config(arm, username="ana", password="hunter2"))
    assert "'ana'" in words
    assert "password" in words
    assert "hunter2" not in words
    assert "hunter2" not in repr(robot_config(arm, password="hunter2"))
    with connected(arm) as robot:
        assert "admin" not in " ".join(psutil.Process(robot.driver_pid).cmdline())


@pytest.mark.parametrize("how", ["take_control_from_client", "second_client_connects"])
def test_another_client_has_the_arm(arm: SimulatedArm, how: str) -> None:
    """The web application, a second program: close it first."""
    getattr(arm, how)()
    words = failure(robot_config(arm))
    assert "another client" in words or "lost control" in words
    assert not any(any(command.values) for command in arm.received("SendTwistCommand"))


def test_the_wheel_is_missing(arm: SimulatedArm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no ``kortex_api`` at all: what to install."""
    monkeypatch.delenv("PYTHONPATH")
    present = subprocess.run([sys.executable, "-c", "import kortex_api"], capture_output=True, check=False)
    if present.returncode == 0:
        pytest.skip("Kinova's wheel is installed here")
    words = failure(robot_config(arm))
    assert "kortex_api" in words
    assert "docs/kinova.md" in words


def test_half_a_wheel(arm: SimulatedArm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package of that name without what is needed in it, and one that protobuf does not let in."""
    package = tmp_path / "kortex_api"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "cannot import kortex_api" in failure(robot_config(arm))
    (package / "__init__.py").write_text("raise TypeError('Descriptors cannot be created directly.')")
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in failure(robot_config(arm))


def test_a_missing_camera_leaves_the_arm_alone(arm: SimulatedArm, tmp_path: Path) -> None:
    """Cameras come first: nothing was sent to the arm, no driver started."""
    cable = tmp_path / "cable"
    cable.write_text("unplugged")
    camera = SimulatedCameraConfig(width=64, height=48, cable=cable)
    robot = KinovaGen3(robot_config(arm, cameras={"table": camera}))
    with pytest.raises(InputError, match="table"):
        robot.connect()
    assert not robot.is_connected
    assert arm.log == []


def test_cameras_are_let_go_when_the_arm_is_not_there(arm: SimulatedArm) -> None:
    """So that a second try finds them free."""
    camera = SimulatedCameraConfig(width=64, height=48)
    arm.tcp_port, right_port = free_port(), arm.tcp_port
    failure(robot_config(arm, cameras={"table": camera}))
    arm.tcp_port = right_port
    with connected(arm, cameras={"table": camera}) as robot:
        assert robot.get_observation()["table"].shape == (48, 64, 3)


def test_looking_only_sends_nothing(arm: SimulatedArm) -> None:
    """Another client may drive meanwhile."""
    arm.second_client_connects()
    robot = KinovaGen3(robot_config(arm), look_only=True)
    robot.connect()
    assert robot.state().shape == (28,)
    assert robot.condition.stopped is None
    robot.disconnect()
    assert {command.name for command in arm.log} <= {"CreateSession", "CloseSession"}


def test_two_programs_on_one_arm_of_this_computer(arm: SimulatedArm) -> None:
    """The second one that wants to drive is refused; looking and stopping need no permission."""
    second = KinovaGen3(robot_config(arm))
    with connected(arm):
        with pytest.raises(InputError, match=r"drives the arm \S+ \(this process\)") as refused:
            second.connect()
        assert "\n" not in str(refused.value)
        looking = KinovaGen3(robot_config(arm), look_only=True)
        looking.connect()
        looking.disconnect()
        assert stop_arm_of(robot_config(arm))
    second.connect()
    second.disconnect()


def test_the_lock_ends_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where that is killed; meanwhile it is named."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    code = (
        "from collectors.kinova_lock import ArmLock; lock = ArmLock('127.0.0.1', 9); print('held'); input()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-uc", code], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"process {holder.pid}"):
            ArmLock("localhost", 9)
        holder.kill()
    ArmLock("127.0.0.1", 9).release()


@dataclass
class CommandOptions:
    """What LeRobot's commands parse."""

    robot: RobotConfig


def test_it_is_found_by_lerobots_commands() -> None:
    """By its registered name, with options as on a command line; constructing touches nothing."""
    arguments = ["--robot.type=kinova_gen3", "--robot.ip=10.0.0.9", "--robot.limits.linear_speed=0.1"]
    options = draccus.parse(CommandOptions, args=arguments)
    robot = make_robot_from_config(options.robot)
    assert isinstance(robot, KinovaGen3)
    assert robot.config.ip == "10.0.0.9"
    assert robot.config.limits.linear_speed == 0.1
    assert not robot.is_connected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ip": " "}, "ip"),
        ({"ip": 5}, "ip"),
        ({"tcp_port": 0}, "tcp_port"),
        ({"udp_port": 70000}, "udp_port"),
        ({"udp_port": True}, "udp_port"),
        ({"zero_after_s": 2.0}, "zero_after_s"),
        ({"zero_after_s": math.nan}, "zero_after_s"),
        ({"stop_after_s": 60.0}, "stop_after_s"),
        ({"limits": {"linear_speed": -1.0}}, "linear_speed"),
        ({"limits": {"lineal_speed": 0.1}}, "lineal_speed"),
        ({"cameras": {"table": SimulatedCameraConfig(width=64, height=48), "tool.x": None}}, "tool.x"),
    ],
)
def test_settings_that_contradict_themselves(values: dict[str, Any], words: str) -> None:
    """One line, when the configuration is built."""
    with pytest.raises(InputError, match=words) as failed:
        KinovaGen3Config(**values)
    assert "\n" not in str(failed.value)


def test_limits_as_a_table() -> None:
    """As ``recap.toml`` has them."""
    table: Any = {"box_low": [0.2, -0.3, 0.0]}
    config = KinovaGen3Config(limits=table)
    assert config.limits == MotionLimits(box_low=(0.2, -0.3, 0.0))


def test_importing_the_driver_is_quick_work() -> None:
    """A driver that had to load torch and LeRobot would take seconds to stop an arm from a fresh process."""
    code = (
        "import sys, collectors.kinova_driver; print([m for m in ('torch', 'lerobot') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_the_operating_systems_words_become_plain_ones() -> None:
    """No error numbers on the operator's screen."""
    assert one_line(str(BrokenPipeError(32, "Broken pipe"))) == "the connection was closed"
    assert one_line("[Errno 113] No route to host\n") == "there is no way to that address"

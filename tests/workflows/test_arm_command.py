"""``recap arm`` through the real command, on the simulated arm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import Failure, InputError
from pipeline.gen3_kinematics import HOME
from tests.collectors.kinova_arms import stand_in_arm
from tests.kortex_stand_in.in_process_client import Client, twist
from tests.kortex_stand_in.simulated_arm import SimulatedArm
from workflows.commands.arm import clear_faults, home, look, stop

__all__ = ["stand_in_arm"]  # a fixture


@pytest.fixture
def site(arm: SimulatedArm, tmp_path: Path) -> Path:
    """A workspace whose ``recap.toml`` names the arm and a camera that is not there."""
    (tmp_path / "recap.toml").write_text(
        f"""
[robot]
type = "kinova_gen3"
[robot.options]
ip = "{arm.address}"
tcp_port = {arm.tcp_port}
udp_port = {arm.udp_port}
[cameras.table]
type = "opencv"
[cameras.table.options]
index_or_path = "/dev/video-that-is-not-there"
width = 64
height = 48
fps = 30
"""
    )
    return tmp_path


def test_look(arm: SimulatedArm, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pose, condition and session in lines; the arm gets no command."""
    look(site)
    printed = capsys.readouterr().out
    assert "condition  takes commands" in printed
    assert "x 0.450" in printed
    assert f"port {arm.tcp_port}" in printed
    assert {command.name for command in arm.log} <= {"CreateSession", "CloseSession"}
    arm.raise_fault()
    look(site)
    assert "a joint is in fault" in capsys.readouterr().out


def test_stop(arm: SimulatedArm, site: Path) -> None:
    """It stops what another program has in force."""
    Client(arm).base.SendTwistCommand(twist(0.05, 0.0, 0.0))
    assert arm.wait_until_moving()
    stop(site)
    assert arm.received("Stop")
    assert not arm.twist_now().any()


def test_clear_faults(arm: SimulatedArm, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what it cleared; a fault that stays is a failure."""
    arm.raise_fault()
    clear_faults(site)
    assert "cleared: the arm stopped itself: a joint" in capsys.readouterr().out
    clear_faults(site)
    assert "nothing to clear" in capsys.readouterr().out
    arm.raise_fault(stuck=True)
    with pytest.raises(Failure, match="joint"):
        clear_faults(site)


def test_home(arm: SimulatedArm, site: Path) -> None:
    """It gets there and nothing else moves it."""
    joints = HOME.copy()
    joints[6] += 0.2
    arm.set_joint_positions(joints)
    home(site, yes=True)
    np.testing.assert_allclose(np.angle(np.exp(1j * (arm.joint_positions() - HOME))), 0, atol=0.02)


def test_another_robot(tmp_path: Path) -> None:
    """A workspace of the simulated arm has nothing to look at."""
    with pytest.raises(InputError, match=r"there is no .*recap.toml that names a kinova_gen3"):
        look(tmp_path)
    (tmp_path / "recap.toml").write_text("")
    with pytest.raises(InputError, match="is 'simulated_gen3'"):
        look(tmp_path)


def test_home_moves_nothing_where_nobody_can_answer(arm: SimulatedArm, site: Path) -> None:
    """One line, and the arm has not heard of it."""
    command = [sys.executable, "-m", "workflows.cli", "arm", "home", "--workspace", str(site)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert "needs --yes where nobody can answer" in done.stderr and done.stderr.count("\n") == 1
    assert arm.log == []

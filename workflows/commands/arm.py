"""``recap arm``: the arm of ``recap.toml`` outside of a recording: look, stop, clear faults, home."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from pipeline.episode import STATE_NAMES
from pipeline.errors import Failure, InputError
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, command_group

if TYPE_CHECKING:
    from collectors.kinova_gen3 import KinovaGen3

app = command_group("Look at the Kinova arm of recap.toml, stop it, clear its faults, bring it home.")


@app.command()
def look(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Prints condition, joints, tool and gripper. Reads recap.toml; sends the arm nothing."""
    with _arm(workspace, look_only=True) as robot:
        state = dict(zip(STATE_NAMES, robot.state(), strict=True))
        stopped = robot.condition.stopped
        config = robot.config
    joints = np.rad2deg([state[f"joint_{i}.pos"] for i in range(1, 8)])
    print(f"arm        {config.ip}, commands at port {config.tcp_port}, feedback at port {config.udp_port}")
    print(f"session    user {config.username}")
    print(f"condition  {stopped or 'takes commands'}")
    print(f"joints     {' '.join(f'{angle:.1f}' for angle in joints)} deg")
    print(f"tool       x {state['tool.x']:.3f}  y {state['tool.y']:.3f}  z {state['tool.z']:.3f} m in base")
    force = [state[f"wrench.f{axis}"] for axis in "xyz"]
    print(f"force      {' '.join(f'{value:.1f}' for value in force)} N at the tool")
    print(f"gripper    {state['gripper.pos']:.0%} closed")


@app.command()
def stop(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Stops whatever moves the arm, with a zero twist and the arm's Stop. Not an emergency stop.

    Reads recap.toml.
    """
    from collectors.kinova_gen3 import stop_arm_of

    if not stop_arm_of(_robot(workspace).config):
        raise Failure("the arm did not take the stop: use its emergency stop, then see 'recap arm look'")
    print("the arm was told to stop")


@app.command("clear-faults")
def clear_faults(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Clears the arm's faults, after you have seen why they came. The arm does not move.

    Reads recap.toml.
    """
    with _arm(workspace) as robot:
        before = robot.condition.stopped
        robot.clear_faults()
    print(f"cleared: {before}" if before else "there was nothing to clear; the arm takes commands")


@app.command()
def home(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the way is clear.")] = False,
) -> None:
    """Moves the arm to its Home pose, at the arm's own speed and by the arm's own way. Ctrl-C stops it.

    Reads recap.toml.
    """
    if not yes and not _way_is_clear():
        raise InputError("not moved: clear the way, then try again")
    with _arm(workspace) as robot:
        robot.home()
    print("home")


def _way_is_clear() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError("not moved: 'recap arm home' needs --yes where nobody can answer")
    try:
        return typer.confirm("The arm will move to Home by its own way. Is the way clear?")
    except typer.Abort:  # Ctrl-C or Ctrl-D instead of an answer
        print()
        return False


@contextmanager
def _arm(root: WorkspaceOption, *, look_only: bool = False) -> Iterator[KinovaGen3]:
    robot = _robot(root, look_only=look_only)
    robot.connect()
    try:
        yield robot
    finally:
        robot.disconnect()


def _robot(root: WorkspaceOption, *, look_only: bool = False) -> KinovaGen3:
    """The arm of the workspace's ``recap.toml``, without its cameras."""
    from dataclasses import replace

    from collectors.kinova_gen3 import KinovaGen3
    from collectors.site_devices import make_robot

    path = Workspace(root).config_path
    site = replace(load_site_config(path), cameras={})
    if not path.is_file():
        raise InputError(f"there is no {path} that names a kinova_gen3: write it, see docs/kinova.md")
    robot = make_robot(site)
    if not isinstance(robot, KinovaGen3):
        raise InputError(
            f"the robot of {path} is {robot.name!r}, 'recap arm' is for kinova_gen3: set [robot] type there"
        )
    return KinovaGen3(robot.config, look_only=look_only)

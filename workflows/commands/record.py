"""``recap record``: demonstrations by a person at a device, or by scripted operators of the simulated arm."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.site_config import SIMULATED_ROBOT, load_site_config
from pipeline.workspace import Workspace
from workflows.commands.live_options import (
    AutoStartOption,
    MaxSecondsOption,
    PersonOption,
    RateOption,
    ViewOption,
    refuse_for_scripted,
    require_known_task,
    run_live,
)
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption

SCRIPTED = ("skilled", "sloppy")


def record(
    task: Annotated[str, typer.Option(help="What to do, e.g. 'pick up the red cube'.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    operator: Annotated[
        str | None,
        typer.Option(
            help="The device: gamepad, spacemouse, keyboard, phone, or any LeRobot teleoperator; on the "
            "simulated arm also skilled or sloppy, who are scripted. Default: [operator] of recap.toml, "
            "else skilled."
        ),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="How many; default: until you stop (scripted: 10).", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of simulated scenes and scripted hands.", min=0)] = 0,
    person: PersonOption = None,
    rate: RateOption = None,
    max_seconds: MaxSecondsOption = None,
    auto_start: AutoStartOption = None,
    view: ViewOption = False,
) -> None:
    """Records demonstrations on the arm of recap.toml, or on the simulated Gen3. Writes episodes/.

    Keys: enter start, s success, f failure, d discard, p pause, q stop, SPACE or ESC emergency stop, c clear
    faults. Scripted operators: the same command again continues an interrupted session and repeats nothing.
    Label what was recorded with 'recap label'.
    """
    site = load_site_config(Workspace(workspace).config_path)
    require_known_task(site, task)
    device = operator or site.operator.type
    if not device and site.robot.type == SIMULATED_ROBOT:
        device = SCRIPTED[0]
    if device in SCRIPTED and site.robot.type == SIMULATED_ROBOT:
        refuse_for_scripted(person, max_seconds, auto_start, view)
        from workflows.simulated_recording import record_demonstrations

        record_demonstrations(workspace, task, device, episodes or 10, seed, rate)
        return
    run_live(
        workspace,
        task,
        max_seconds,
        device=device or None,
        person=person,
        episodes=episodes,
        rate_hz=rate,
        auto_start_s=auto_start,
        view=view,
        seed=seed,
    )

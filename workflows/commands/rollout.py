"""``recap rollout``: a policy drives, a person watches and corrects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.site_config import SIMULATED_ROBOT, load_site_config
from pipeline.workspace import Workspace
from workflows.commands.live_options import (
    AutoStartOption,
    MaxSecondsOption,
    PersonOption,
    RateOption,
    TokenFileOption,
    ViewOption,
    refuse_for_scripted,
    require_known_task,
    run_live,
)
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace
from workflows.commands.policy import Ask

CHAMPION = "champion"
SCRIPTED = "scripted"


def rollout(
    task: Annotated[str, typer.Option(help="What to do.")] = "pick up the red cube",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    operator: Annotated[
        str | None,
        typer.Option(
            help="The device to take over with: gamepad, spacemouse, keyboard, phone, or any LeRobot "
            "teleoperator; none: only watch; scripted (simulated arm only). Default: [operator] of "
            "recap.toml, else scripted."
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="champion, a checkpoint's folder, or tcp://HOST:PORT of 'recap policy serve'.")
    ] = CHAMPION,
    token_file: TokenFileOption = None,
    ask: Annotated[
        Ask, typer.Option(help="The advantage in the prompt; a policy server has its own.")
    ] = Ask.POSITIVE,
    episodes: Annotated[
        int | None, typer.Option(help="How many; default: until you stop (scripted: 10).", min=1)
    ] = None,
    supervised: Annotated[
        bool, typer.Option(help="A scripted supervisor takes over when it goes wrong.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the scenes and the policy.", min=0)] = 0,
    person: PersonOption = None,
    rate: RateOption = None,
    max_seconds: MaxSecondsOption = None,
    auto_start: AutoStartOption = None,
    view: ViewOption = False,
) -> None:
    """Rolls out a policy on the arm of recap.toml, asking it for "Advantage: positive". Writes episodes/.

    Your input takes the arm over at once; letting go gives it back. Keys: enter start, s success, f failure,
    d discard, p pause, q stop, SPACE or ESC emergency stop, c clear faults. Reads runs.sqlite and the
    champion's checkpoint in steps/. A champion that was never fine-tuned on advantages gets the bare task.
    """
    existing = existing_workspace(workspace)
    site = load_site_config(Workspace(workspace).config_path)
    require_known_task(site, task)
    device = operator or site.operator.type
    simulated = site.robot.type == SIMULATED_ROBOT
    scripted = device == SCRIPTED or (not device and simulated)
    if scripted and simulated:
        refuse_for_scripted(person, max_seconds, auto_start, view)
        if ask is not Ask.POSITIVE:
            raise InputError(f"--ask {ask.value}: the scripted supervisor takes none; add --operator none")
    if not (scripted or supervised):
        raise InputError("--no-supervised is for the scripted supervisor; --operator none only watches")
    _require_policy(policy, existing)
    if scripted:
        if not simulated:
            raise InputError(f"--operator scripted: only the simulated arm has one, not {site.robot.type}")
        if policy != CHAMPION:
            raise InputError("--policy: the scripted supervisor rolls out the champion; add --operator none")
        from workflows.simulated_recording import record_rollouts

        record_rollouts(existing, task, episodes or 10, supervised, seed, rate)
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
        policy=policy,
        token_file=token_file,
        indicator=ask.indicator,
    )


def _require_policy(policy: str, workspace: Workspace) -> None:
    """Raises ``InputError`` for what can be no policy, before anything else is looked at or loaded."""
    if policy == CHAMPION:
        from workflows.champion_check import require_champion

        require_champion(workspace)
        return
    if "://" in policy:
        from pipeline.policy.channel import parse_url

        parse_url(policy)
    elif not Path(policy).is_dir():
        raise InputError(
            f"--policy {policy}: there is no such folder; give {CHAMPION}, a checkpoint's folder, or "
            "tcp://HOST:PORT of 'recap policy serve'"
        )

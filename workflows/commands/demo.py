"""``recap demo``: the whole loop in simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from workflows.commands.options import WorkspaceOption


def demo(
    workspace: WorkspaceOption = Path("demo-workspace"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Under 4 minutes on two cores, too small to improve much.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of people, networks and batches.", min=0)] = 0,
    demonstrations: Annotated[
        int | None, typer.Option(help="Episodes of each of the two operators.", min=2)
    ] = None,
    rollouts: Annotated[
        int | None, typer.Option(help="Autonomous episodes, and as many supervised ones.", min=2)
    ] = None,
    policy_steps: Annotated[
        int | None, typer.Option(help="Gradient steps of the base policy and of each fine-tune.", min=1)
    ] = None,
    value_steps: Annotated[
        int | None, typer.Option(help="Gradient steps of each value model.", min=1)
    ] = None,
    starts: Annotated[int | None, typer.Option(help="Evaluation episodes of each policy.", min=2)] = None,
) -> None:
    """Runs the whole loop on a simulated Gen3, people included. Needs no robot and no GPU.

    Reads and writes the workspace only: episodes/, labels.sqlite, snapshots/, cache/, steps/,
    datasets/, reports/ and runs.sqlite. Whatever is there already is not computed again; after an
    interruption the same command goes on.
    """
    from workflows.demo import demo as run
    from workflows.settings import FULL, QUICK, LoopSettings

    settings: LoopSettings = replace(QUICK if quick else FULL, seed=seed)
    recording, policy = settings.recording, settings.policy
    if demonstrations is not None:
        recording = replace(
            recording, skilled_demonstrations=demonstrations, sloppy_demonstrations=demonstrations
        )
    if rollouts is not None:
        recording = replace(recording, autonomous_rollouts=rollouts, supervised_rollouts=rollouts)
    if policy_steps is not None:
        policy = replace(policy, base_steps=policy_steps, fine_tune_steps=policy_steps)
    value = settings.value if value_steps is None else replace(settings.value, steps=value_steps)
    evaluated = settings.evaluation_starts if starts is None else starts
    run(
        workspace,
        replace(settings, recording=recording, policy=policy, value=value, evaluation_starts=evaluated),
    )

"""``recap demo``: the whole loop in simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflows.commands.options import (
    PolicyStepsOption,
    RayAddressOption,
    SeedOption,
    StartsOption,
    ValueStepsOption,
    WorkspaceOption,
)


def demo(
    workspace: WorkspaceOption = Path("demo-workspace"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Under 4 minutes on two cores, too small to improve much.")
    ] = False,
    seed: SeedOption = 0,
    demonstrations: Annotated[
        int | None, typer.Option(help="Episodes of each of the two operators.", min=2)
    ] = None,
    rollouts: Annotated[
        int | None, typer.Option(help="Autonomous episodes, and as many supervised ones.", min=2)
    ] = None,
    policy_steps: PolicyStepsOption = None,
    value_steps: ValueStepsOption = None,
    starts: StartsOption = None,
    iterations: Annotated[
        int,
        typer.Option(
            help="Turns of the loop; each but the first rolls out the champion on new scenes.", min=1, max=10
        ),
    ] = 1,
    accept_values: Annotated[
        bool, typer.Option("--accept-values", help="Go on with values that do not pass the gate.")
    ] = False,
    ray_address: RayAddressOption = None,
) -> None:
    """Runs the whole loop on a simulated Gen3, people included. Needs no robot and no GPU.

    Reads and writes the workspace only: episodes/, labels.sqlite, snapshots/, cache/, steps/,
    datasets/, reports/ and runs.sqlite. Whatever is there already is not computed again; after an
    interruption the same command goes on.
    """
    from workflows.cluster_address import cluster_address
    from workflows.demo import demo as run
    from workflows.settings import FULL, QUICK, resized

    settings = resized(
        QUICK if quick else FULL,
        seed=seed,
        demonstrations=demonstrations,
        rollouts=rollouts,
        policy_steps=policy_steps,
        value_steps=value_steps,
        starts=starts,
    )
    run(
        workspace,
        settings,
        accept_values=accept_values,
        iterations=iterations,
        cluster=cluster_address(ray_address),
    )

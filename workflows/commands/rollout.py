"""``recap rollout``: a policy drives, a person watches and corrects; for now on the simulated arm."""

from __future__ import annotations

from typing import Annotated

import typer

from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace


def rollout(
    task: Annotated[str, typer.Option(help="What to do.")] = "pick up the red cube",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    episodes: Annotated[int, typer.Option(help="How many.", min=1)] = 10,
    supervised: Annotated[
        bool, typer.Option(help="A scripted supervisor takes over when it goes wrong.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the scenes.", min=0)] = 0,
) -> None:
    """Rolls out the champion on the simulated Gen3, asking it for "Advantage: positive".

    Reads runs.sqlite and the champion's checkpoint in steps/, writes episodes/. A champion that was
    never fine-tuned on advantages (the base policy) gets the bare task.
    """
    from workflows.simulated_recording import record_rollouts

    record_rollouts(existing_workspace(workspace), task, episodes, supervised, seed)

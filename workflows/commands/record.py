"""``recap record``: demonstrations; for now by the scripted operators of the simulated arm."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption


class Operator(StrEnum):
    """Who demonstrates."""

    SKILLED = "skilled"
    SLOPPY = "sloppy"


def record(
    task: Annotated[str, typer.Option(help="What to do, e.g. 'pick up the red cube'.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    operator: Annotated[Operator, typer.Option(help="Which scripted operator.")] = Operator.SKILLED,
    episodes: Annotated[int, typer.Option(help="How many.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of the operator's hand and the scenes.", min=0)] = 0,
) -> None:
    """Records demonstrations on the simulated Gen3 by a scripted operator. Writes episodes/.

    The same command again continues an interrupted session and repeats nothing. Label what was
    recorded with 'recap label'.
    """
    from workflows.simulated_recording import record_demonstrations

    record_demonstrations(workspace, task, operator.value, episodes, seed)

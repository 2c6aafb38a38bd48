"""``recap policy``: evaluates a checkpoint in simulation."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.prompts import Indicator
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    command_group,
    existing_workspace,
)

app = command_group("Evaluate a policy in simulation.")


class Ask(StrEnum):
    """What the policy is asked for."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NOTHING = "nothing"

    @property
    def indicator(self) -> Indicator | None:
        """As prompts know it."""
        if self is Ask.NOTHING:
            return None
        return "positive" if self is Ask.POSITIVE else "negative"


@app.callback()
def policy() -> None:
    """Evaluate a policy in simulation."""


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Option(help="A LeRobot checkpoint's folder; default: the workspace's champion.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    starts: Annotated[int, typer.Option(help="How many episodes.", min=1)] = 50,
    ask: Annotated[Ask, typer.Option(help="The advantage in the prompt.")] = Ask.POSITIVE,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance on the advantage, e.g. 1.5.", min=0)
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="May be given several times; default: both pick-up tasks.")
    ] = None,
) -> None:
    """Success rate and successes per hour of a checkpoint on numbered starts of the simulator.

    Reads the checkpoint, and runs.sqlite where none is named; writes nothing.
    """
    from collectors.gen3_tasks import split_task
    from workflows.comparison import performance
    from workflows.evaluation import EvaluationConfig
    from workflows.evaluation import evaluate as run
    from workflows.ledger import Ledger
    from workflows.progress import progress_display, reporter
    from workflows.settings import PICK_TASKS
    from workflows.step_files import CHECKPOINT
    from workflows.summary import performance_table

    tasks = tuple(task or PICK_TASKS)
    for one in tasks:
        split_task(one)
    folder = checkpoint
    if folder is None:
        champion = Ledger(existing_workspace(workspace)).champion()
        if champion is None:
            raise InputError("there is no champion yet: name a --checkpoint, or run 'recap improve'")
        folder = champion.path / CHECKPOINT
    config = EvaluationConfig(
        tasks,
        starts,
        indicator=ask.indicator,
        guidance=guidance,
    )
    with progress_display() as display:
        display.start("evaluate", "evaluate")
        attempts = run(folder, config, progress=reporter(display, "evaluate"))
        display.finish("evaluate")
    for line in performance_table({f"asked for {ask.value}": performance(attempts)}):
        print(line)

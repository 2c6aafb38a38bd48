"""``recap policy``: evaluates a checkpoint in simulation, or serves it to a robot on another machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import InputError
from pipeline.prompts import Indicator
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    command_group,
    existing_workspace,
)

if TYPE_CHECKING:
    from workflows.ledger import Champion

app = command_group("Evaluate a policy in simulation, or serve it to a robot.")


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
    """Evaluate a policy in simulation, or serve it to a robot."""


CheckpointOption = Annotated[
    Path | None, typer.Option(help="A LeRobot checkpoint's folder; default: the workspace's champion.")
]


def _chosen(checkpoint: Path | None, workspace: Path) -> tuple[Path, Champion | None]:
    """The checkpoint's folder, and the champion where it is the champion."""
    from workflows.ledger import Ledger
    from workflows.step_files import CHECKPOINT

    if checkpoint is not None:
        return checkpoint, None
    champion = Ledger(existing_workspace(workspace)).champion()
    if champion is None:
        raise InputError("there is no champion yet: name a --checkpoint, or run 'recap improve'")
    return champion.path / CHECKPOINT, champion


@app.command()
def evaluate(
    checkpoint: CheckpointOption = None,
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
    from workflows.progress import progress_display, reporter
    from workflows.settings import PICK_TASKS
    from workflows.summary import performance_table

    tasks = tuple(task or PICK_TASKS)
    for one in tasks:
        split_task(one)
    folder, _ = _chosen(checkpoint, workspace)
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


@app.command()
def serve(
    checkpoint: CheckpointOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    host: Annotated[str, typer.Option(help="Where to listen; another needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: the system chooses one.", min=0, max=65535)] = 8642,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Holds the token that clients need; default: the variable RECAP_POLICY_TOKEN."),
    ] = None,
    ask: Annotated[Ask, typer.Option(help="The advantage in the prompt.")] = Ask.POSITIVE,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ...; default: a GPU where there is one.")
    ] = None,
) -> None:
    """Lets a robot on another machine use a checkpoint: 'recap rollout --policy tcp://HOST:PORT'.

    Reads the checkpoint, and runs.sqlite where none is named; writes nothing. Runs until Ctrl-C. One robot
    uses it at a time. A champion that was never fine-tuned on advantages gets the bare task. The traffic
    is not encrypted: across a network that is not yours keep 127.0.0.1 and run
    'ssh -N -L 8642:127.0.0.1:8642 THIS-MACHINE' beside the robot.
    """
    from pipeline.policy.channel import check_address, read_token
    from pipeline.policy.served_runner import ServedRunner
    from pipeline.policy.server import serve as run

    token = read_token(token_file)
    check_address(host, token)  # before the checkpoint, which takes its time
    folder, champion = _chosen(checkpoint, workspace)
    indicator, name = ask.indicator, None
    if champion is not None:
        name = f"{champion.name}/{champion.key}"
        # A base policy was never trained on prompts with an advantage.
        indicator = indicator if champion.iteration > 0 else None
    run(ServedRunner(folder, device, indicator, name), host, port, token, say=_say)


def _say(line: str) -> None:
    print(line, flush=True)

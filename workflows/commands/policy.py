"""``recap policy``: trains any LeRobot policy, evaluates checkpoints, serves one to another machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import InputError
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    command_group,
    existing_workspace,
)
from workflows.commands.policy_evaluate import Ask, evaluate
from workflows.commands.policy_train import CONTEXT, train

if TYPE_CHECKING:
    from workflows.ledger import Champion

__all__ = ["Ask", "app"]

app = command_group("Train any LeRobot policy, evaluate it, or serve it to a robot.")


@app.callback()
def policy() -> None:
    """Train any LeRobot policy, evaluate it, or serve it to a robot."""


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


app.command("train", context_settings=CONTEXT)(train)
app.command("evaluate")(evaluate)


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

"""``recap policy train``: fine-tunes any LeRobot policy on conditioned data."""

from __future__ import annotations

import difflib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import InputError
from workflows.commands.options import DEFAULT_WORKSPACE, SeedOption, WorkspaceOption, existing_workspace

if TYPE_CHECKING:
    from workflows.policy_door import DoorConfig
    from workflows.step_store import StepResult

# Of this command; words that begin with --policy. go to the policy's own configuration.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


class Precision(StrEnum):
    """In which numbers the forward pass computes."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def train(
    context: typer.Context,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    policy_type: Annotated[
        str | None,
        typer.Option(
            "--policy.type",
            metavar="TYPE",
            help="gen3_vla, smolvla, pi0, pi05, act, diffusion ..., as LeRobot",
        ),
    ] = None,
    policy_path: Annotated[
        str | None,
        typer.Option("--policy.path", metavar="DIR", help="Weights to begin with: a folder, or a hub id."),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A conditioned dataset; default: the workspace's newest advantages."
        ),
    ] = None,
    allow_download: Annotated[
        bool, typer.Option("--allow-download", help="Fetch what is named by a hub id and not here.")
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Gradient steps.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Observations a batch.", min=1)] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches a gradient step.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak, after the warm-up.")] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train low-rank updates of this rank, not the weights.", min=0)
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the forward pass.")] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Of the running mean of the weights that is saved; 0: the last ones.")
    ] = None,
    indicator_dropout: Annotated[
        float | None, typer.Option(help="Share of samples whose prompt is the bare task.", min=0, max=1)
    ] = None,
    positive_share: Annotated[
        float | None, typer.Option(help="Share of each batch drawn from positive frames.", min=0, max=1)
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of a dataset's images in pixels; default 84.", min=16)
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (CUDA_VISIBLE_DEVICES says which).")] = None,
    seed: SeedOption = 0,
) -> None:
    """Fine-tunes any LeRobot policy on conditioned data; the result is an ordinary LeRobot checkpoint.

    Reads episodes/ and the newest steps/advantages, or a dataset; writes steps/train_policy/. A killed
    training goes on where it was when the command is given again, and what was trained before is used again.
    All other words are options of the policy's own configuration, as LeRobot's commands take them:
    --policy.chunk_size=16 --policy.vlm_model_name=DIR. The checkpoint asks for "Advantage: positive" by
    itself in LeRobot's commands; a policy that reads no text gets the advantage in its state. See
    docs/policies.md.
    """
    from workflows.policy_door import DoorConfig

    found = existing_workspace(workspace)
    given = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "lora_rank": lora_rank,
        "precision": precision and precision.value,
        "ema_decay": ema_decay,
        "indicator_dropout": indicator_dropout,
        "positive_share": positive_share,
        "device": device,
        "seed": seed,
    }
    _check_words(context.args)
    if lora_rank and policy_path is None:
        raise InputError("--lora-rank tunes weights that exist: name them with --policy.path")
    if image_size is not None and dataset is None:
        raise InputError(
            "--image-size is for --dataset: the workspace's images have the size of its advantages"
        )
    config = DoorConfig(
        _type(policy_type, policy_path, allow_download),
        policy_path,
        _options(context.args),
        allow_download,
        {name: value for name, value in given.items() if value is not None},
        image_size,
    )
    _run(found.root, config, dataset)


def _run(root: Path, config: DoorConfig, dataset: Path | None) -> None:
    from pipeline.workspace import Workspace
    from workflows.policy_door import dataset_step, newest_data, workspace_step
    from workflows.steps import StepRunner

    workspace = Workspace(root)
    _check_options(config)
    if dataset is None:
        data = newest_data(workspace)
        print(f"data: {data.advantages.path}, labels {data.snapshot.name}")
        step = workspace_step(workspace, data, config)
    else:
        print(f"data: {dataset}")
        step = dataset_step(dataset, config)
    for line in _where_the_advantage_goes(config.policy_type):
        print(line)
    with StepRunner(workspace) as runner:
        result = runner.run(step)
        computed = bool(runner.computed)
    for line in _summary(result, computed):
        print(line)


def _where_the_advantage_goes(policy_type: str) -> list[str]:
    from pipeline.policy.advantage_prompt import WITHOUT_LANGUAGE

    if policy_type not in WITHOUT_LANGUAGE:
        return ['advantage: in the text ("... Advantage: positive")']
    return [
        f"advantage: {policy_type} reads no text, so its state gets one more number: 1 positive, -1 negative,"
        " 0 absent. It cannot tell one task from another"
    ]


def _summary(result: StepResult, computed: bool) -> list[str]:
    from workflows.step_files import CHECKPOINT

    found = result.result
    how = f"{found['samples_per_s']:.0f} samples/s, {result.seconds:.0f} s" if computed else "used again"
    folder = result.path / CHECKPOINT
    return [
        f"trained on {found['frames']} frames, loss {found['final_loss']:.4f} ({how})",
        f"checkpoint: {folder}",
        f"next: recap policy evaluate --checkpoint {folder}",
    ]


def _type(policy_type: str | None, path: str | None, allow_download: bool) -> str:
    """The policy's type: the one given, that of the weights, or our own."""
    from pipeline.policy.new_policy import OURS, stored_type

    if path is None:
        return policy_type or OURS
    stored = stored_type(path, allow_download)
    if policy_type not in (None, stored):
        raise InputError(f"{path} holds a {stored}, not a {policy_type}: leave --policy.type out")
    return stored


def _options(words: list[str]) -> dict[str, Any]:
    from pipeline.policy.policy_options import read_words

    return read_words(words)


def _check_options(config: DoorConfig) -> None:
    """Raises ``InputError`` for a type or option that LeRobot does not know, before anything is begun."""
    from pipeline.policy.policy_options import decoded_options

    decoded_options(config.policy_type, config.options)


def _check_words(words: list[str]) -> None:
    for word in words:
        if word.startswith("-") and not word.startswith("--policy."):
            own = [f"--{name.replace('_', '-')}" for name in train.__annotations__ if name != "return"]
            near = difflib.get_close_matches(word.partition("=")[0], own, n=1)
            hint = f": did you mean {near[0]}?" if near else " (see 'recap policy train --help')"
            raise InputError(f"no such option: {word}{hint}")

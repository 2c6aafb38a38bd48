"""``recap policy train``: fine-tunes any LeRobot policy on conditioned data."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import InputError
from pipeline.site_config import load_site_config
from workflows.cluster_address import cluster_address
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    RayAddressOption,
    SeedOption,
    WorkspaceOption,
    existing_workspace,
    workspace_option,
)
from workflows.commands.policy_train_told import (
    begun,
    idle_cores,
    summary,
    values_told,
    where_the_advantage_goes,
)
from workflows.commands.policy_train_words import check_words
from workflows.driver_lock import require_free

if TYPE_CHECKING:
    from pipeline.workspace import Workspace
    from workflows.policy_door import ConditionedData, DoorConfig

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
            help="gen3_vla, smolvla, pi0, pi05, act, diffusion ..., as LeRobot.",
            show_default="the weights', or gen3_vla",
        ),
    ] = None,
    policy_path: Annotated[
        str | None,
        typer.Option(
            "--policy.path",
            metavar="DIR",
            help="Weights to begin with: champion, base, a folder, or a hub id.",
            show_default="from scratch: random weights",
        ),
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
    steps: Annotated[int | None, typer.Option(help="Gradient steps.", min=1, show_default="1200")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Observations a batch.", min=1, show_default="64")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Batches a gradient step.", min=1, show_default="1")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak, after the warm-up.", show_default="LeRobot's for the type; gen3_vla 0.0005"),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(
            help="Train low-rank updates of this rank, not the weights.",
            min=0,
            show_default="0: the weights",
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Of the forward pass.", show_default="float32")
    ] = None,
    ema_decay: Annotated[
        float | None,
        typer.Option(
            help="Of the running mean of the weights that is saved; 0: the last ones.", show_default="0.995"
        ),
    ] = None,
    indicator_dropout: Annotated[
        float | None,
        typer.Option(
            help="Share of samples whose prompt is the bare task.",
            min=0,
            max=1,
            show_default="0.3; with --dataset 0, which has left some out",
        ),
    ] = None,
    positive_share: Annotated[
        float | None,
        typer.Option(
            help="Share of each batch drawn from positive frames.",
            min=0,
            max=1,
            show_default="as many as there are",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of a dataset's images in pixels.",
            min=16,
            show_default="84, or image_size of [defaults] in recap.toml",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda (CUDA_VISIBLE_DEVICES says which).", show_default="cpu")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that share each batch, each on a core or a GPU of its own.",
            min=1,
            show_default="1",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Cores that the one process computes on.", min=1, show_default="1"),
    ] = None,
    ray_address: RayAddressOption = None,
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
    from pipeline.workspace import Workspace

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
        "workers": workers,
        "threads": threads,
        "seed": seed,
    }
    check_words(context.args, [_option(n) for n in train.__annotations__ if n not in ("return", "context")])
    cluster = cluster_address(ray_address)
    found = Workspace(existing_workspace(workspace).root)
    if lora_rank and policy_path is None:
        raise InputError("--lora-rank tunes weights that exist: name them with --policy.path")
    if image_size is not None and dataset is None:
        raise InputError(
            "--image-size is for --dataset: the workspace's images have the size of its advantages"
        )
    training = {name: value for name, value in given.items() if value is not None}
    require_free(found.root)
    _check_training(training, cluster)
    from workflows.policy_door import DoorConfig
    from workflows.policy_start import find_start, pretrained_words

    start = find_start(policy_path, found)
    data = None
    if not context.args and policy_type is None:
        # Said before LeRobot is loaded, which takes its time; words are checked before the data.
        data = _data(found, dataset)
    kind = _type(policy_type, start.path, allow_download)
    options = _options(kind, context.args)
    size = image_size or load_site_config(found.config_path).defaults.image_size
    config = DoorConfig(kind, start.path, options, allow_download, training, size)
    words = start.words + (pretrained_words(kind, options) if start.path is None else "")
    _run(found, config, data if data is not None else _data_of(found, dataset, config), cluster, words)


def _check_training(training: dict[str, Any], cluster: str | None) -> None:
    """Raises ``InputError`` for what cannot be asked for of a training. Loads nothing large."""
    from workflows.gpu_share import require_threads, require_workers
    from workflows.policy_door import DoorConfig, check_training

    check_training(DoorConfig("gen3_vla", training=training))
    if cluster is None:
        require_workers(training.get("device", "cpu"), training.get("workers", 1))
        require_threads(training.get("threads", 1))


def _data(workspace: Workspace, dataset: Path | None) -> ConditionedData | Path:
    """What is trained on; ``InputError`` where it is not there."""
    from workflows.policy_door import newest_data, require_dataset

    if dataset is None:
        return newest_data(workspace)
    require_dataset(dataset)
    return dataset


def _data_of(workspace: Workspace, dataset: Path | None, config: DoorConfig) -> ConditionedData | Path:
    """The same; where it is not there, what the policy's options have wrong is said before that."""
    from workflows.policy_door import check_policy

    try:
        return _data(workspace, dataset)
    except InputError:
        check_policy(config, config.image_size)
        raise


def _run(
    workspace: Workspace,
    config: DoorConfig,
    data: ConditionedData | Path,
    cluster: str | None,
    start: str,
) -> None:
    from workflows.policy_door import check_policy, dataset_step, labels_told, subtasks_told, workspace_step
    from workflows.steps import StepRunner

    if isinstance(data, Path):
        check_policy(config, config.image_size)
        print(f"{config.policy_type}, {start}\ndata: {data}")
        step = dataset_step(data, config)
    else:
        check_policy(config, data.image_size)
        step = workspace_step(workspace, data, config)
        print(f"{config.policy_type}, {start}")
        print(f"data: {data.advantages.path}, labels {data.snapshot.name}")
        for line in values_told(workspace, data):
            print(line)
        for line in labels_told(workspace, data):
            print(line)
        for line in subtasks_told(data, step, config.path):
            print(line)
    for line in where_the_advantage_goes(config.policy_type):
        print(line)
    if cluster is None and not begun(workspace, step):
        for line in idle_cores(config.parameters()):
            print(line)
    with StepRunner(workspace, cluster=cluster) as runner:
        result = runner.run(step)
        computed = bool(runner.computed)
    for line in summary(result, computed, workspace_option(workspace.root)):
        print(line)


def _type(policy_type: str | None, path: str | None, allow_download: bool) -> str:
    """The policy's type: the one given, that of the weights, or our own."""
    from pipeline.policy.new_policy import OURS, stored_type

    if path is None:
        return policy_type or OURS
    stored = stored_type(path, allow_download)
    if policy_type not in (None, stored):
        raise InputError(f"{path} holds a {stored}, not a {policy_type}: leave --policy.type out")
    return stored


def _options(policy_type: str, words: list[str]) -> dict[str, Any]:
    """The policy's options; ``InputError`` for a name or a value that its type does not have."""
    from pipeline.policy.policy_options import decoded_options, read_words
    from workflows.labelled_subtasks import with_any_name

    found = read_words(words)
    decoded_options(policy_type, with_any_name(found))
    return found


def _option(name: str) -> str:
    """How an argument is said: --policy.type, --batch-size ..."""
    said = name.replace("policy_", "policy.", 1) if name in ("policy_type", "policy_path") else name
    return f"--{said.replace('_', '-')}"

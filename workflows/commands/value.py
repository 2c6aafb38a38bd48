"""``recap value``: trains the value model, scores frames with it, judges it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import InputError
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    RayAddressOption,
    SeedOption,
    WorkspaceOption,
    command_group,
    existing_workspace,
    table,
    workspace_option,
)
from workflows.value_curves import CurveFollower, Log

if TYPE_CHECKING:
    from pipeline.workspace import Workspace
    from workflows.settings import LoopSettings
    from workflows.step_recipe import Step
    from workflows.step_store import StepResult, StepStore

app = command_group("Train the value model, score frames with it, judge it.")

LOGS = "value-curves"


class Network(StrEnum):
    """Which value network."""

    SMALL = "small"
    VLM = "vlm"


class Tune(StrEnum):
    """How much of a pretrained backbone is trained."""

    FROZEN = "frozen"
    LORA = "lora"
    FULL = "full"


@app.callback()
def value() -> None:
    """Train the value model, score frames with it, judge it."""


@app.command()
def train(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    quick: Annotated[bool, typer.Option("--quick", help="Few steps, to see that it works.")] = False,
    network: Annotated[
        Network | None, typer.Option(help="small: from scratch, for a CPU; vlm: a pretrained backbone.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Folder of a Hugging Face checkpoint, or its hub id; for vlm.")
    ] = None,
    allow_download: Annotated[
        bool, typer.Option("--allow-download", help="Fetch a backbone that is a hub id.")
    ] = False,
    tune: Annotated[Tune | None, typer.Option(help="How much of the backbone is trained; for vlm.")] = None,
    folds: Annotated[int | None, typer.Option(help="Parts that episodes are dealt into.", min=2)] = None,
    members: Annotated[int | None, typer.Option(help="Models a fold.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps of each model.", min=1)] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (CUDA_VISIBLE_DEVICES says which).")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train each model together.", min=1)
    ] = None,
    log: Annotated[Log | None, typer.Option(help="Where curves go besides their files.")] = None,
    ray_address: RayAddressOption = None,
    ray: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The same as --ray-address.", hidden=True)
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Trains the value models on every labelled episode: folds × members of them.

    Reads episodes/, labels.sqlite and [value] of recap.toml, which the options override; writes
    snapshots/, cache/, steps/ and value-model.json, with --log value-curves/. What was trained before
    under the same settings and labels, also by 'recap improve', is used again; a killed training goes on.
    """
    from pipeline.site_config import load_site_config
    from workflows.cluster_address import cluster_address
    from workflows.settings import FULL, QUICK, resized, settings_from_site

    cluster = cluster_address(ray or ray_address)
    found = existing_workspace(workspace)
    settings = resized(QUICK if quick else FULL, seed=seed)
    settings = settings_from_site(settings, load_site_config(found.config_path))
    asked = {
        "network": network and network.value,
        "backbone": backbone,
        "allow_download": allow_download or None,
        "tune": tune and tune.value,
        "folds": folds,
        "members": members,
        "steps": steps,
        "device": device,
        "workers": workers,
    }
    settings = _with_options(settings, {k: v for k, v in asked.items() if v is not None})
    _train(found, settings, log, cluster)


def _with_options(settings: LoopSettings, asked: dict[str, Any]) -> LoopSettings:
    """The settings with the options that were given; a backbone alone means a vlm."""
    if "backbone" in asked:
        asked = {"network": "vlm"} | asked
    if asked.get("network") == "small":
        if "tune" in asked or "backbone" in asked:
            raise InputError("--backbone and --tune are for --network vlm, not small")
        asked["backbone"] = ""
    changed = replace(settings, value=replace(settings.value, **asked))
    if "tune" in asked and changed.value.network == "small":
        raise InputError("--tune is for a pretrained backbone: name one with --network vlm --backbone DIR")
    return changed


def _train(found: Workspace, settings: LoopSettings, log: Log | None, cluster: str | None) -> None:
    from workflows.value_requirements import require_backbone

    require_backbone(settings.value)  # Before torch and Ray are loaded for nothing.
    from workflows.improvement import freeze_labels
    from workflows.local_ray import resources
    from workflows.loop_graph import LoopGraph
    from workflows.settings import value_training
    from workflows.steps import StepRunner
    from workflows.value_requirements import (
        penalty_warning,
        require_device,
        require_outcomes,
    )

    entries = found.list_episodes()
    if not entries:
        raise InputError(f"there are no episodes in {found.episodes}: record some with 'recap record'")
    if cluster is None:
        require_device(settings.value)
    value_training(settings)  # A backbone that cannot be read is found here.
    snapshot = freeze_labels(found, [entry.id for entry in entries])
    outcomes = require_outcomes(snapshot, settings.value.folds)
    graph = LoopGraph(found, settings)
    members = graph.value_members(snapshot)
    with ExitStack() as stack:
        runner = stack.enter_context(StepRunner(found, cluster=cluster))
        if cluster is not None and any(runner.store.find(member) is None for member in members):
            runner.start_ray()
            require_device(settings.value, resources())
        if log is not None:
            stack.enter_context(_follow(runner.store, members, log, found.root / LOGS))
        if warning := penalty_warning(settings.value.failure_penalty):
            typer.echo(warning, err=True)
        results = runner.run_all([*graph.cache(snapshot), *members])[-len(members) :]
        computed = {result.key for result in runner.computed}
    _save(found, members[0], results, snapshot.digest)
    for line in _summary(results, computed):
        print(line)
    print(
        f"trained on {_counted(outcomes['success'], 'success', 'es')} and "
        f"{_counted(outcomes['failure'], 'failure')} of {_counted(len(snapshot.rows), 'episode')}; "
        "next: recap value score"
    )


def _counted(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"


def _follow(store: StepStore, members: list[Step], log: Log, folder: Path) -> CurveFollower:
    steps = {f"fold-{step.parameters['fold']}-member-{step.parameters['member']}": step for step in members}
    return CurveFollower(store, steps, log, folder)


def _save(found: Workspace, member: Step, results: list[StepResult], snapshot: str) -> None:
    from workflows.step_files import CHECKPOINT
    from workflows.value_ensemble import ValueEnsemble, save_ensemble

    parameters = member.parameters
    folders = tuple(result.path / CHECKPOINT for result in results)
    save_ensemble(
        found, ValueEnsemble(folders, parameters["training"], int(parameters["image_size"]), snapshot)
    )


def _summary(results: list[StepResult], computed: set[str]) -> list[str]:
    """A table of the models, and a line that counts them."""
    from value_model.checkpoint import read_record
    from workflows.step_files import CHECKPOINT

    rows = []
    for result in results:
        record = read_record(result.path / CHECKPOINT)
        held = record.validation_loss is not None
        loss = record.validation_loss if record.validation_loss is not None else record.train_loss
        seconds = f"{result.seconds:.0f} s" if result.key in computed else "used again"
        rows.append(
            (
                record.fold + 1,
                record.member + 1,
                f"{loss:.3f}{'' if held else ' (training)'}",
                record.best_step,
                seconds,
            )
        )
    folds, members = max(row[0] for row in rows), max(row[1] for row in rows)
    lines = table(("fold", "member", "best loss", "at step", "time"), rows).splitlines()
    return [*lines, f"{len(rows)} value models: {folds} folds of {members}"]


@app.command()
def score(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    episodes: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="May be given several times; default: every episode."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: as many as pay).", min=1)] = None,
    ray_address: RayAddressOption = None,
) -> None:
    """Gives every frame a value, labelled or not: out of fold where a model saw the episode.

    Reads value-model.json, steps/ and episodes/; writes cache/. What was scored before by the same models
    is used again. Episodes that cannot be read are named, and the exit status is then 2.
    """
    from value_model.checkpoint import verify_weights
    from workflows.cluster_address import cluster_address
    from workflows.progress import progress_display, reporter
    from workflows.scoring_pool import score_workspace
    from workflows.value_ensemble import load_ensemble

    cluster = cluster_address(ray_address)
    found = existing_workspace(workspace)
    ensemble = load_ensemble(found)
    # From the folder, not from a list of readable episodes: what is damaged is to be named.
    there = sorted(path.stem for path in found.episodes.glob("*/*.h5"))
    wanted = list(dict.fromkeys(episodes or there))
    if not wanted:
        raise InputError(f"there are no episodes in {found.episodes}: record some with 'recap record'")
    if unknown := [episode_id for episode_id in wanted if episode_id not in set(there)]:
        what = "is no episode" if len(unknown) == 1 else "are no episodes"
        names = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise InputError(f"there {what} {names} in {found.episodes}: see 'recap episodes list'")
    for member in ensemble.members:
        verify_weights(member)
    with progress_display() as display:
        display.start("score", f"score {_counted(len(wanted), 'episode')}")
        result = score_workspace(
            found, ensemble, wanted, workers=workers, progress=reporter(display, "score"), cluster=cluster
        )
        display.finish("score")
    rate = f", {result.frames / result.seconds:.0f} frames/s" if result.frames and result.seconds else ""
    print(
        f"{_counted(result.scored, 'episode')} scored ({_counted(result.frames, 'frame')}, "
        f"{result.seconds:.1f} s{rate}), {result.reused} scored before; run {result.run}"
    )
    for reason in result.failed.values():
        typer.echo(f"not scored: {' '.join(reason.split())}", err=True)
    if result.failed:
        raise InputError(
            f"{len(result.failed)} of {_counted(len(wanted), 'episode')} could not be scored"
            f"{', the rest could' if len(result.failed) < len(wanted) else ''}: see 'recap episodes check'"
        )
    print(f"next: recap value check{workspace_option(found.root)}")


@app.command()
def check(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")] = False,
) -> None:
    """Says whether the values can be trusted: the gate that they must pass before a policy learns from them.

    Reads value-model.json, steps/, episodes/, labels.sqlite, [value] and [gate] of recap.toml; writes values
    that are not there yet into cache/, the labels into snapshots/. A report that was made from exactly these
    is repeated, else they are judged now. The exit status is 1 where a check fails, 2 where there is nothing
    to judge: with --json then an object with "error".
    """
    import json

    from workflows.value_check import check_values

    try:
        status = check_values(existing_workspace(workspace), as_json=as_json)
    except InputError as error:
        if as_json:
            print(json.dumps({"error": str(error)}))
        raise
    if status:
        raise typer.Exit(status)

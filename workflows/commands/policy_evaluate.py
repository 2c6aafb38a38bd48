"""``recap policy evaluate``: how good checkpoints are, in simulation or on the robot, and which is better."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import InputError
from pipeline.prompts import Indicator
from pipeline.site_config import load_site_config
from workflows.commands.live_options import (
    PersonOption,
    RateOption,
    TokenFileOption,
    ViewOption,
    say_starting,
)
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    existing_workspace,
    table,
    workspace_option,
)

if TYPE_CHECKING:
    from pipeline.workspace import Workspace
    from workflows.evaluation import EvaluationConfig
    from workflows.policy_evaluation import NamedCheckpoint


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


def evaluate(
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[A [B]]", help="champion, base, or a checkpoint's folder; with two, B against A."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The same as A: a LeRobot checkpoint's folder; default: the champion.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    starts: Annotated[
        int | None, typer.Option(help="How many episodes of each; default: 50, with --robot 20.", min=1)
    ] = None,
    ask: Annotated[
        Ask | None,
        typer.Option(help="The advantage in the prompt; default: positive where it was trained on."),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance on the advantage, e.g. 1.5.", min=0)
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="May be given several times; default: both pick-up tasks.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="How long an episode may last; default: 8, with --robot 60.", min=0.1)
    ] = None,
    film: Annotated[
        Path | None, typer.Option(metavar="FILE.gif", help="Film A and B side by side, on 3 of the starts.")
    ] = None,
    robot: Annotated[
        bool, typer.Option("--robot", help="On the arm of recap.toml, with you to lay out scenes and judge.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="With --robot: of the evaluation; the same name goes on with it. Default: the time."
        ),
    ] = None,
    operator: Annotated[
        str | None, typer.Option(help="With --robot: the device to take over with, as in 'recap rollout'.")
    ] = None,
    person: PersonOption = None,
    rate: RateOption = None,
    token_file: TokenFileOption = None,
    view: ViewOption = False,
    from_episodes: Annotated[
        bool, typer.Option("--from-episodes", help="No simulation: the recorded rollouts and their labels.")
    ] = False,
    marks: Annotated[
        bool,
        typer.Option("--marks", help="With --from-episodes: the operator's mark where there is no label."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Success rate, successes per hour and interventions per episode, and whether B is better than A.

    In simulation, on numbered starts that are the same for both: reads the checkpoints, and runs.sqlite for
    champion and base; an intervention is an episode in which a scripted supervisor would have taken over.
    With --robot on the arm (--person, --rate, --token-file and --view as in 'recap rollout'): you lay out
    each start, both run it in an order that you are not told, and you say what came of it. Keys: enter
    start, s success, f failure, d does not count and is run again, q stop, SPACE or ESC emergency stop; s, f
    and d also after the attempt. Writes evaluations/, episodes/ and labels.sqlite.
    With --from-episodes on whatever robot the rollouts were recorded: reads episodes/ and labels.sqlite, a
    row a checkpoint; record some with 'recap rollout --policy DIR' and label them. Writes only the film.
    """
    found = existing_workspace(workspace)
    live: dict[str, object] = {"--name": name, "--operator": operator, "--person": person, "--rate": rate}
    live |= {"--token-file": token_file, "--view": view or None}
    given = [option for option, value in live.items() if value is not None]
    if given and not robot:
        raise InputError(f"{given[0]} is for --robot")
    if from_episodes:
        if checkpoints or checkpoint or film or robot or guidance is not None or ask is not None:
            raise InputError("--from-episodes takes --task, --marks and --json, and lists every checkpoint")
        _recorded(found, task or [], marks, as_json)
        return
    if marks:
        raise InputError("--marks is for --from-episodes: otherwise the simulator judges, or you")
    names = [*([str(checkpoint)] if checkpoint else []), *(checkpoints or [])]
    if len(names) > 2 or (film is not None and len(names) != 2 and not (robot and not names)):
        raise InputError(f"give one checkpoint, or two to compare{'; --film needs two' if film else ''}")
    if film is not None and film.suffix.lower() != ".gif":
        raise InputError(f"the film is a GIF: name a file that ends in .gif, not {film.name!r}")
    if robot:
        from workflows.commands.policy_evaluate_robot import on_robot
        from workflows.policy_evaluation_wishes import RobotWishes

        say_starting()
        wishes = RobotWishes(
            name or f"evaluation-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            tuple(names),
            starts=starts,
            tasks=tuple(task or ()),
            max_seconds=max_seconds,
            rate_hz=rate,
            asks=ask is not None,
            indicator=None if ask is None else ask.indicator,
            guidance=guidance,
            device=operator,
            person=person,
            token_file=token_file,
            view=view,
        )
        on_robot(found, wishes, film, as_json)
        return
    from workflows.policy_evaluation import find_checkpoint, require_two, tell_apart
    from workflows.step_recipe import content_digest

    named = tell_apart([find_checkpoint(one, found) for one in names or ["champion"]])
    if len(named) == 2:
        require_two(
            names[0], names[1], same=content_digest(named[0].folder) == content_digest(named[1].folder)
        )
    configs = [
        _config(found, one, tuple(task or ()), starts or 50, max_seconds or 8.0, ask, guidance)
        for one in named
    ]
    _simulated(named, configs, film, as_json)


def _config(
    workspace: Workspace,
    checkpoint: NamedCheckpoint,
    tasks: tuple[str, ...],
    starts: int,
    max_seconds: float,
    ask: Ask | None,
    guidance: float | None,
) -> EvaluationConfig:
    from collectors.gen3_tasks import split_task
    from workflows.evaluation import EvaluationConfig
    from workflows.recording_settings import PICK_TASKS, RecordingSettings, recording_with

    for one in tasks:
        split_task(one)
    indicator = checkpoint.indicator if ask is None else ask.indicator
    arm = recording_with(RecordingSettings(), load_site_config(workspace.config_path).defaults)
    return EvaluationConfig(
        tasks or PICK_TASKS,
        starts,
        max_steps=max(1, round(max_seconds * arm.rate_hz)),
        rate_hz=arm.rate_hz,
        image_size=arm.rendered_size,
        indicator=indicator,
        guidance=guidance,
    )


def _simulated(
    named: list[NamedCheckpoint], configs: list[EvaluationConfig], film: Path | None, as_json: bool
) -> None:
    from workflows import policy_evaluation as evaluation
    from workflows.progress import progress_display

    with progress_display() as display:
        attempts = evaluation.evaluate_all(named, configs, display)
    rows = [(one.name, evaluation.figures(done)) for one, done in zip(named, attempts, strict=True)]
    compared = evaluation.difference(attempts[1], attempts[0]) if len(named) == 2 else None
    if film is not None:
        evaluation.film(film, named, configs, attempts, min(3, configs[0].starts))
    if as_json:
        asked = [config.indicator for config in configs]
        print(
            json.dumps(
                {
                    "policies": [
                        {"name": name, "folder": str(one.folder), "asked_for": indicator, **figures}
                        for (name, figures), one, indicator in zip(rows, named, asked, strict=True)
                    ],
                    "difference": compared,
                }
            )
        )
        return
    for name, config in zip([one.name for one in named], configs, strict=True):
        print(f"{name}: asked for {config.indicator or 'nothing'}")
    print(table(evaluation.HEADER, evaluation.rows_of(rows)))
    if compared is not None:
        for line in evaluation.difference_lines(named[1].name, named[0].name, compared):
            print(line)
    if film is not None:
        print(f"film: {film}")


def _recorded(workspace: Workspace, tasks: list[str], marks: bool, as_json: bool) -> None:
    from workflows.policy_evaluation import HEADER, rows_of
    from workflows.recorded_evaluation import recorded_policies

    if len(tasks) > 1:
        raise InputError("--from-episodes takes one --task, or none for all")
    found = recorded_policies(workspace, tasks[0] if tasks else None, marks)
    if not found:
        raise InputError(
            f"no policy drove in any episode of {workspace.episodes}: record some with 'recap rollout'"
        )
    if as_json:
        print(json.dumps({"policies": [one.as_json() for one in found]}))
        return
    judged: list[tuple[str, dict[str, Any]]] = [
        (f"{one.checkpoint} on {one.robot}", one.as_json()["figures"]) for one in found if one.attempts
    ]
    if judged:
        print(table(HEADER, rows_of(judged)))
    for one in found:
        if one.unlabelled:
            print(f"{one.checkpoint} on {one.robot}: {one.unlabelled} not labelled, so not counted")
    if any(one.unlabelled for one in found):
        print(
            f"next: recap label{workspace_option(workspace.root)}"
            + ("" if marks else ", or --marks to go by the operators' own marks")
        )

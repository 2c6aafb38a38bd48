"""``recap episodes export`` and ``recap episodes statistics``: recorded episodes for other projects."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.action_sketch import ActionSketch
from pipeline.action_statistics import ActionStatistics, statistics_to_json
from pipeline.durable_files import write_file
from pipeline.episode import ACTION_FIELD, POLICY_STATE_FIELDS, Outcome
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.exchange.exporting import NEEDED, Outcomes, Progress, episode_actions
from pipeline.exchange.write_robomimic import Compression
from pipeline.labels import LabelStore
from pipeline.lerobot_language import Subtasks
from pipeline.workspace import Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table
from workflows.commands.output_places import require_file_place, require_place
from workflows.exported_subtasks import exported_subtasks, subtasks_left_out
from workflows.progress import progress_display, reporter


class Format(StrEnum):
    """What to write."""

    LEROBOT = "lerobot"
    ROBOMIMIC = "robomimic"
    DIFFUSION_POLICY = "diffusion-policy"


class Space(StrEnum):
    """The action spaces, as they are typed."""

    TWIST = "twist"
    DELTA_POSE = "delta-pose"
    ABSOLUTE_POSE = "absolute-pose"
    JOINT_POSITIONS = "joint-positions"

    @property
    def action_space(self) -> ActionSpace:
        """The action space meant."""
        return ActionSpace(self.value.replace("-", "_"))


class Chosen(StrEnum):
    """Which episodes, by their labels."""

    SUCCESS = "success"
    FAILURE = "failure"
    LABELLED = "labelled"
    UNLABELLED = "unlabelled"


_EXCLUDED = "exclude"
_HDF5_SUFFIXES = (".hdf5", ".h5")

_HOW_TO_OPEN = {
    Format.LEROBOT: 'LeRobotDataset("local/data", root="{out}", video_backend="pyav")',
    Format.ROBOMIMIC: "python -m robomimic.scripts.train --dataset {out} --config ...",
    Format.DIFFUSION_POLICY: "ReplayBuffer.create_from_path('{out}') of diffusion_policy, or zarr.open",
}

TaskOption = Annotated[str | None, typer.Option(help="Only the episodes of this task.")]
OutcomeOption = Annotated[
    Chosen | None,
    typer.Option(
        help="Only those with this outcome. Without it, all but the excluded.", case_sensitive=False
    ),
]
EpisodesOption = Annotated[
    list[str] | None,
    typer.Option("--episodes", metavar="ID", help="Only these, several with commas or the option repeated."),
]


def export_episodes(
    out: Annotated[Path, typer.Argument(help="The folder (robomimic: the file) to write.")],
    to_format: Annotated[Format, typer.Option("--format", help="Whose format.", case_sensitive=False)],
    action_space: Annotated[
        Space, typer.Option(help="What the actions say; 'twist' is as recorded.", case_sensitive=False)
    ] = Space.TWIST,
    task: TaskOption = None,
    outcome: OutcomeOption = None,
    episodes: EpisodesOption = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Make images this many pixels square. Not for lerobot.", min=1, metavar="N"),
    ] = None,
    compression: Annotated[
        Compression, typer.Option(help="Of robomimic's images.", case_sensitive=False)
    ] = Compression.NONE,
    subtasks: Annotated[
        bool,
        typer.Option(
            "--subtasks",
            help="Also the labels' segments, as LeRobot's language columns. For lerobot; needs 0.6 or newer.",
        ),
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Writes episodes in the format of another project. Reads episodes/ and labels.sqlite, writes OUT.

    Does nothing where OUT holds exactly that already, and refuses an OUT that holds anything else.
    """
    if to_format == Format.LEROBOT and image_size is not None:
        raise InputError(
            "--image-size is not for lerobot, whose videos keep the recorded size: leave it away"
        )
    if to_format != Format.ROBOMIMIC and compression != Compression.NONE:
        raise InputError(f"--compression is for robomimic, not for {to_format}: leave it away")
    if to_format != Format.LEROBOT and subtasks:
        raise InputError(f"--subtasks is for lerobot, not for {to_format}: leave it away")
    if to_format == Format.ROBOMIMIC and out.suffix not in _HDF5_SUFFIXES:
        raise InputError(f"OUT is one HDF5 file for robomimic: call it {out.name or 'data'}.hdf5")
    found = existing_workspace(workspace)
    require_place(out, found)
    labels = _labels(found)
    space = action_space.action_space
    needed = NEEDED[space]
    if to_format == Format.LEROBOT:
        needed = (*POLICY_STATE_FIELDS, ACTION_FIELD.name)
    entries = _choose(found, labels, task, outcome, episodes)
    if not episodes:
        entries = [entry for entry in entries if _has(entry, needed)]
    if not entries:
        raise InputError("no episode is left to export: see 'recap episodes list'")
    outcomes = {name: said for name, said in labels.items() if said in tuple(Outcome)}
    marked, lines = exported_subtasks(found.labels_path, entries) if subtasks else (None, [])
    for line in lines:
        print(line)
    there_before = out.exists()
    with progress_display() as display:
        display.start("export", f"export to {out}")
        progress = reporter(display, "export")
        _write(to_format, entries, out, outcomes, space, image_size, compression, marked, progress)
        display.finish("export")
    frames = sum(entry.length for entry in entries)
    what = f"{_count(len(entries), 'episode')}, {_count(frames, 'frame')}, actions: {action_space}"
    print(f"{out} {'held this already' if there_before else 'written'}: {to_format}, {what}")
    print(f"open it with: {_HOW_TO_OPEN[to_format].format(out=out)}")
    if to_format == Format.LEROBOT and not subtasks:
        for line in subtasks_left_out(found.labels_path, entries):
            print(line)


def show_statistics(
    action_space: Annotated[
        list[Space] | None,
        typer.Option(help="Only this action space; may be repeated.", case_sensitive=False),
    ] = None,
    task: TaskOption = None,
    outcome: OutcomeOption = None,
    episodes: EpisodesOption = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write them to this file as well.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Statistics of the actions, per robot and action space; reads episodes/ and labels.sqlite, no images.

    q01 and q99, the 1st and 99th percentile, are what policies' actions are clipped to and scaled from.
    """
    found = existing_workspace(workspace)
    if json is not None:
        require_file_place(json)
    chosen = _choose(found, _labels(found), task, outcome, episodes)
    spaces = [s.action_space for s in action_space or list(Space)]
    statistics = gather(chosen, spaces)
    for one in statistics:
        print(f"robot {one.robot}, action space {one.action_space}: {_count(one.count, 'frame')}")
        print(_statistics_table(one), end="\n\n")
    if not statistics:
        raise InputError("there is no action to take statistics of: see 'recap episodes list'")
    if json is not None:
        try:
            write_file(json, (statistics_to_json(statistics) + "\n").encode())
        except OSError as error:
            raise InputError(f"--json {json} cannot be written: {error.strerror or error}") from error
        print(f"{json} written")


def gather(entries: Sequence[EpisodeEntry], spaces: Sequence[ActionSpace]) -> list[ActionStatistics]:
    """Statistics for each robot and action space, sorted; says on standard error what it leaves out."""
    sketches: dict[tuple[str, ActionSpace], ActionSketch] = {}
    for entry in entries:
        usable = [space for space in spaces if not _lacking(entry, NEEDED[space])]
        _has(entry, tuple({name for space in spaces for name in NEEDED[space]}))
        try:
            with EpisodeReader(entry.path) as reader:
                actions = {space: episode_actions(reader, space) for space in usable}
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for space, values in actions.items():
            key = (entry.info.robot, space)
            sketches.setdefault(key, ActionSketch(*key)).update(values)
    return [sketches[key].statistics() for key in sorted(sketches)]


def _write(
    to_format: Format,
    entries: Sequence[EpisodeEntry],
    out: Path,
    outcomes: Outcomes,
    space: ActionSpace,
    image_size: int | None,
    compression: Compression,
    subtasks: Subtasks | None,
    progress: Progress,
) -> None:
    """Calls the format's writer, imported only now: some take seconds to."""
    if to_format == Format.LEROBOT:
        from pipeline.lerobot_dataset import export_dataset

        export_dataset(
            entries, out, outcomes=outcomes, action_space=space, subtasks=subtasks, progress=progress
        )
    elif to_format == Format.ROBOMIMIC:
        from pipeline.exchange.write_robomimic import write_robomimic

        write = partial(write_robomimic, compression=compression, image_size=image_size)
        write(entries, out, outcomes=outcomes, action_space=space, progress=progress)
    else:
        from pipeline.exchange.write_diffusion_policy import write_diffusion_policy

        write_diffusion_policy(
            entries, out, outcomes=outcomes, action_space=space, image_size=image_size, progress=progress
        )


def _labels(workspace: Workspace) -> dict[str, str]:
    """Each labelled episode's outcome."""
    if not workspace.labels_path.exists():
        return {}
    with LabelStore(workspace.labels_path) as store:
        return {name: label.outcome for name, label in store.current().items()}


def _choose(
    workspace: Workspace,
    labels: dict[str, str],
    task: str | None,
    outcome: Chosen | None,
    named: list[str] | None,
) -> list[EpisodeEntry]:
    """The episodes that the options name, oldest first. Raises ``InputError`` for an id that is not there."""
    wanted = [name for part in named or [] for name in part.split(",") if name]
    for name in wanted:
        workspace.find(name)
    chosen = []
    for entry in workspace.list_episodes(task):
        said = labels.get(entry.id)
        fits = {
            None: said != _EXCLUDED or entry.id in wanted,
            Chosen.LABELLED: said in tuple(Outcome),
            Chosen.UNLABELLED: said is None,
        }.get(outcome, said == outcome)
        if fits and (not wanted or entry.id in wanted):
            chosen.append(entry)
    return chosen


def _has(entry: EpisodeEntry, needed: Sequence[str]) -> bool:
    """Whether a recording has all that is needed; if not, says so on standard error."""
    lacking = _lacking(entry, needed)
    if lacking:
        print(f"left out: episode {entry.id} was recorded without {', '.join(lacking)}", file=sys.stderr)
    return not lacking


def _lacking(entry: EpisodeEntry, needed: Sequence[str]) -> list[str]:
    return [name for name in entry.info.missing if name in needed]


def _statistics_table(statistics: ActionStatistics) -> str:
    names = ("q01", "q99", "min", "max", "mean", "std")
    rows = [
        [component, *(float(f"{getattr(statistics, name)[i]:.4g}") for name in names)]
        for i, component in enumerate(statistics.names)
    ]
    return table(["component", *names], rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

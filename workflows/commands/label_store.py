"""What the subcommands of ``recap label`` share: the workspace's store under its rules, marks as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.label_types import MARK_KINDS, OUTCOMES, QUALITIES, Mark
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from pipeline.subtask_prompts import subtask_name
from pipeline.workspace import Workspace

AnnotatorOption = Annotated[
    str | None, typer.Option(help="Who says so; default: annotator of [defaults] in recap.toml.")
]
ReviewerOption = Annotated[str, typer.Option(help="Who says so; one of the reviewers in recap.toml, if any.")]
EpisodeArgument = Annotated[str, typer.Argument(help="The episode's id.")]
OutcomeArgument = Annotated[str, typer.Argument(help=f"One of: {', '.join(OUTCOMES)}.")]
NoteOption = Annotated[str, typer.Option(help="Anything worth remembering.")]
QualityOption = Annotated[
    str | None, typer.Option(help=f"How well it was done; one of: {', '.join(QUALITIES)}.")
]
MarkOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MARK",
        help="A moment, as success:120 or failure:87 (a frame; here they count from 0: the app's frame 1 "
        "is 0), or a sub-task, as 'segment:0-45:reach for the cube' (frame 45 is the first after it); may be "
        "given several times.",
    ),
]


NoMarksOption = Annotated[
    bool, typer.Option("--no-marks", help="Keep none of the marks that you made in an earlier label.")
]


def opened_store(workspace: Workspace) -> LabelStore:
    """The workspace's label store, which knows all recorded episodes."""
    store = LabelStore(workspace.labels_path, rules=load_site_config(workspace.config_path).labels)
    store.sync((entry.id, entry.info.task) for entry in workspace.list_episodes())
    return store


def annotator_of(workspace: Workspace, given: str | None) -> str:
    """Who labels: the name that was given, else the site's. Raises ``InputError`` where neither says."""
    name = given if given is not None else load_site_config(workspace.config_path).defaults.annotator
    if not name and given is None:
        raise InputError("who says so? give --annotator NAME, or annotator under [defaults] in recap.toml")
    return name


def mark_words(mark: Mark) -> str:
    """A mark as a person types it: the inverse of :func:`read_mark`."""
    span = f"{mark.start_frame}-{mark.end_frame}" if mark.kind == "segment" else str(mark.start_frame)
    return f"{mark.kind}:{span}" + (f":{mark.text}" if mark.text else "")


def overlap_words(marks: Sequence[Mark]) -> str | None:
    """Where two segments of different names say of the same frames what is done; ``None`` where none do."""
    segments = sorted((one for one in marks if one.kind == "segment"), key=lambda one: one.start_frame)
    for i, one in enumerate(segments):
        for other in segments[i + 1 :]:
            if other.start_frame < one.end_frame and subtask_name(other.text) != subtask_name(one.text):
                return (
                    f"warning: the segments {mark_words(one)!r} and {mark_words(other)!r} overlap: their "
                    "common frames train no sub-task"
                )
    return None


def read_mark(words: str) -> Mark:
    """A mark as a person types it. Raises ``InputError`` for anything else."""
    kind, _, rest = words.partition(":")
    span, _, text = rest.partition(":")
    start, dash, end = span.partition("-")
    try:
        if kind not in MARK_KINDS:
            raise ValueError
        return Mark(kind, int(start), int(end) if dash else int(start), text)
    except InputError:
        raise
    except ValueError:
        raise InputError(
            f"{words!r} is no mark: write success:120, failure:87, or 'segment:0-45:reach for the cube'"
        ) from None

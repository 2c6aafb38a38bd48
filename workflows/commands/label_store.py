"""What the subcommands of ``recap label`` share: the workspace's store under its rules, marks as words."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.label_types import MARK_KINDS, OUTCOMES, QUALITIES, Mark
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace

AnnotatorOption = Annotated[str, typer.Option(help="Who says so.")]
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


def opened_store(workspace: Workspace) -> LabelStore:
    """The workspace's label store, which knows all recorded episodes."""
    store = LabelStore(workspace.labels_path, rules=load_site_config(workspace.config_path).labels)
    store.sync((entry.id, entry.info.task) for entry in workspace.list_episodes())
    return store


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

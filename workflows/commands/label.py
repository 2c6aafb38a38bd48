"""``recap label``: the labelling app, and the same from a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from labeling_app.launch import LOOPBACK, PARENT, require_free_port, streamlit_command
from pipeline.counted_words import counted
from pipeline.errors import Failure, InputError
from pipeline.label_types import LabelEvent, Mark
from pipeline.site_config import load_site_config
from workflows.commands.label_export import export
from workflows.commands.label_import import import_labels
from workflows.commands.label_review import adjudicate, agreement, disputes, gold
from workflows.commands.label_store import (
    AnnotatorOption,
    EpisodeArgument,
    MarkOption,
    NoMarksOption,
    NoteOption,
    OutcomeArgument,
    QualityOption,
    annotator_of,
    mark_words,
    opened_store,
    overlap_words,
    read_mark,
)
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, command_group, existing_workspace

app = command_group(
    "Open the labelling app in the browser, or label from the shell. Reads episodes/, writes labels.sqlite."
)


@app.callback(invoke_without_command=True)
def label(
    context: typer.Context,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    address: Annotated[
        str, typer.Option(help="Where to listen; any but this computer's own needs sign-in set up.")
    ] = LOOPBACK,
    port: Annotated[int, typer.Option(help="The TCP port.", min=1, max=65535)] = 8501,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Opens the labelling app in the browser. Reads episodes/, writes labels.sqlite."""
    if context.invoked_subcommand is not None:
        return
    found = existing_workspace(workspace)
    load_site_config(found.config_path)  # what is wrong in it is said here, not on the page
    command = streamlit_command(found.root.absolute(), address=address, port=port, open_browser=browser)
    require_free_port(address, port)
    server = subprocess.Popen(command, env={**os.environ, PARENT: str(os.getpid())})
    try:
        status = server.wait()
    except KeyboardInterrupt:
        # Ctrl-C reaches the server as well: it is how one ends it.
        server.wait()
        return
    if status:
        raise Failure(f"the labelling app ended with status {status}: see above")


@app.command("set")
def set_label(
    episode: EpisodeArgument,
    outcome: OutcomeArgument,
    annotator: AnnotatorOption = None,
    note: NoteOption = "",
    quality: QualityOption = None,
    mark: MarkOption = None,
    no_marks: NoMarksOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Labels one episode; without --mark, the marks of the annotator's own label stay.

    Reads episodes/, appends to labels.sqlite.
    """
    if mark and no_marks:
        raise InputError("--mark makes marks and --no-marks leaves none: give one of them")
    found = existing_workspace(workspace)
    annotator = annotator_of(found, annotator)
    entry = found.find(episode)
    marks = [read_mark(words) for words in mark or ()]
    for one in marks:
        if one.start_frame >= entry.length or one.end_frame > entry.length:
            end = f"; a segment may end at {entry.length}, the first frame after it"
            raise InputError(
                f"the mark {mark_words(one)} lies beyond {episode}, which has {entry.length} frames, "
                f"0 to {entry.length - 1}{end if one.kind == 'segment' else ''}"
            )
    with opened_store(found) as store:
        before = {one.annotator: one.marks for one in store.opinions(episode)}
        own = before.get(annotator, ())
        if not marks and not no_marks:
            marks = list(own)
        event = store.set(episode, outcome, annotator, note, quality=quality, marks=marks)
    told = _marks_told(event, before, keeps=not mark)
    print(f"{event.episode_id}: {event.outcome} by {event.annotator}{told}")
    for one in event.marks:
        print(f"  {mark_words(one)}")
    warning = overlap_words(event.marks)
    if warning is not None:
        print(warning, file=sys.stderr)


def _marks_told(event: LabelEvent, before: Mapping[str, Sequence[Mark]], keeps: bool) -> str:
    """What became of the marks of the labels that this one replaces; empty where they had none."""
    told = []
    for who, marks in before.items():
        if marks:
            own = who == event.annotator
            word = "keeps" if own and keeps and event.marks else "replaces"
            told.append(f"{word} {counted(len(marks), 'mark')}{'' if own else f' of {who}'}")
    return f", {', '.join(told)}" if told else ""


@app.command()
def undo(annotator: AnnotatorOption = None, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Takes back an annotator's last label that still holds. Appends to labels.sqlite."""
    found = existing_workspace(workspace)
    annotator = annotator_of(found, annotator)
    with opened_store(found) as store:
        event = store.undo(annotator)
        state = None if event is None else store.state(event.episode_id)
    if event is None:
        raise InputError(f"{annotator} has given no label that could be undone")
    print(f"{event.episode_id}: {event.outcome or state} again")


app.command()(export)
app.command("import")(import_labels)
app.command()(agreement)
app.command()(disputes)
app.command()(adjudicate)
app.command()(gold)

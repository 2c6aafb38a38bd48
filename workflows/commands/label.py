"""``recap label``: the labelling app, and the same from a shell."""

from __future__ import annotations

import csv
import io
import subprocess
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from labeling_app.launch import LOOPBACK, streamlit_command
from pipeline.durable_files import write_file
from pipeline.errors import Failure, InputError
from pipeline.label_types import OUTCOMES, Label
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, command_group, existing_workspace

app = command_group(
    "Open the labelling app in the browser, or label from the shell. Reads episodes/, writes labels.sqlite."
)
AnnotatorOption = Annotated[str, typer.Option(help="Who says so.")]


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
    root = existing_workspace(workspace).root
    command = streamlit_command(root.absolute(), address=address, port=port, open_browser=browser)
    server = subprocess.Popen(command)
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
    episode: Annotated[str, typer.Argument(help="The episode's id.")],
    outcome: Annotated[str, typer.Argument(help=f"One of: {', '.join(OUTCOMES)}.")],
    annotator: AnnotatorOption,
    note: Annotated[str, typer.Option(help="Anything worth remembering.")] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Labels one episode. Reads episodes/, appends to labels.sqlite."""
    found = existing_workspace(workspace)
    found.find(episode)
    with _store(found) as store:
        event = store.set(episode, outcome, annotator, note)
    print(f"{event.episode_id}: {event.outcome} by {event.annotator}")


@app.command()
def undo(annotator: AnnotatorOption, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Takes back an annotator's last label that still holds. Appends to labels.sqlite."""
    with _store(existing_workspace(workspace)) as store:
        event = store.undo(annotator)
    if event is None:
        raise InputError(f"{annotator} has given no label that could be undone")
    print(f"{event.episode_id}: {event.outcome or 'unlabelled'} again")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The file to write: .csv or .parquet.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Writes the labels that hold, one row per episode. Reads labels.sqlite and episodes/, writes OUT."""
    found = existing_workspace(workspace)
    writers = {".csv": _csv, ".parquet": _parquet}
    if out.suffix not in writers:
        raise InputError(f"cannot export to {out}: its name must end in .csv or .parquet")
    with _store(found) as store:
        labels = store.current()
    rows = [
        {"task": entry.info.task, **asdict(labels[entry.id])}
        for entry in found.list_episodes()
        if entry.id in labels
    ]
    write_file(out, writers[out.suffix](rows))
    print(f"{len(rows)} labels in {out}")


def _store(workspace: Workspace) -> LabelStore:
    store = LabelStore(workspace.labels_path)
    store.sync((entry.id, entry.info.task) for entry in workspace.list_episodes())
    return store


def _columns() -> list[str]:
    return ["task", *(column.name for column in fields(Label))]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns())
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    # A second to import, and only this one command needs it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"event_id": pa.int64(), "supersedes": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in _columns()])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    return bytes(sink.getvalue())

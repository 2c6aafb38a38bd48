"""``recap episodes show``: all that is known of one episode, and how it looks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from pipeline.guarded_reading import guarded_map
from pipeline.label_types import LabelEvent
from pipeline.labels import LabelStore
from pipeline.workspace import EpisodeEntry, Workspace
from workflows.commands.episodes_list import current_outcomes, outcome_of
from workflows.commands.label_store import mark_words
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace

if TYPE_CHECKING:
    from workflows.film_strip import Film

_NARROW = 60  # characters; the width of the strip where there is no terminal to ask


def show(
    episode: Annotated[str, typer.Argument(help="The episode's id.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    strip: Annotated[
        bool | None, typer.Option("--strip/--no-strip", help="Draw its film strip in the terminal.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Write its film strip as a picture.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames in the film strip.", min=2, max=40)] = 8,
    force: Annotated[
        bool, typer.Option("--force", help="Draw in colour even where the output is no terminal.")
    ] = False,
) -> None:
    """All that is known of one episode. Reads its file and labels.sqlite, writes nothing but --png FILE."""
    if png is not None and png.suffix.lower() != ".png":
        raise InputError(f"the film strip is a PNG: name a file that ends in .png, not {png.name!r}")
    if png is not None and not png.parent.is_dir():
        raise InputError(f"there is no folder {png.parent} for the film strip: make it, or name another")
    found = existing_workspace(workspace)
    entry = found.find(episode)
    _facts(found, entry)
    if strip or png is not None:
        _draw(found, entry, bool(strip), png, frames, force)


def _facts(workspace: Workspace, entry: EpisodeEntry) -> None:
    info = entry.info
    [(_, result)] = guarded_map(_sources, [entry.path])
    if isinstance(result, InputError):
        raise result
    counts, dropped = result
    said = [f"{counts[source]} {source.name.lower()}" for source in Source]
    extra = info.extra if isinstance(info.extra, dict) else {"(damaged)": info.extra}
    facts = {
        "file": entry.path,
        "task": info.task,
        "recorded": f"{info.created} by {info.operator} on {info.robot}",
        "frames": f"{entry.length} at {info.rate_hz:g} Hz ({', '.join(said)}; {dropped} dropped)",
        "cameras": ", ".join(info.cameras),
        "policy": info.policy_checkpoint or "none",
        "operator's mark": info.operator_mark or "none",
        "truncated": "yes" if info.truncated else "no",
        **({"missing": ", ".join(info.missing)} if info.missing else {}),
        "software": info.software_version,
        "fingerprint": entry.fingerprint,
        **{f"extra {name}": value for name, value in extra.items()},
    }
    for name, value in facts.items():
        print(f"{name + ':':18}{value}")
    if workspace.labels_path.exists():
        with LabelStore(workspace.labels_path) as store:
            events = store.history(entry.id)
        undone = {event.undoes for event in events}
        for event in events:
            for line in _said(event, taken_back=event.event_id in undone):
                print(line)


def _said(event: LabelEvent, *, taken_back: bool) -> Iterator[str]:
    """What somebody said of the episode: a label with its marks, or that one is taken back."""
    who = f"by {event.annotator} at {event.created_at}"
    if event.undoes is not None:
        yield f"{'undo:':18}{who}; {event.outcome or 'no outcome'} holds again"
        return
    end = " (taken back)" if taken_back else ""
    yield f"{'label:':18}{event.outcome} {who} {event.note}".rstrip() + end
    for mark in event.marks:
        yield f"{'':18}  {mark_words(mark)}"


def _sources(path: Path) -> tuple[dict[Source, int], int]:
    with EpisodeReader(path) as reader:
        sources = reader.sources
        return {source: int((sources == source).sum()) for source in Source}, reader.dropped


def _draw(
    workspace: Workspace, entry: EpisodeEntry, strip: bool, png: Path | None, frames: int, force: bool
) -> None:
    # Pictures are read and drawn only when they are wanted.
    from pipeline.durable_files import write_file
    from workflows.film_strip import frames_that_fit, png_bytes, terminal_lines

    if png is not None:
        film = _film(entry, frames)
        write_file(png, png_bytes(film, outcome_of(entry, current_outcomes(workspace))))
        print(f"{'film strip:':18}{png}")
    if not strip:
        return
    if not (force or sys.stdout.isatty()):
        print(
            "film strip:       not drawn, the output is no terminal: --force draws it, --png FILE writes it"
        )
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _NARROW
    for line in terminal_lines(_film(entry, min(frames, frames_that_fit(width))), width):
        print(line)


def _film(entry: EpisodeEntry, frames: int) -> Film:
    from workflows.film_strip import read_strip

    [(_, film)] = guarded_map(read_strip, [(entry.path, frames)])
    if isinstance(film, InputError):
        raise film
    return film

"""``recap episodes import``: brings data in other formats into the workspace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.exchange.column_mapping import ColumnMapping
from pipeline.exchange.formats import Format
from pipeline.exchange.importing import Imported, ImportOptions, ImportResult
from pipeline.exchange.importing import import_episodes as import_all
from pipeline.exchange.mapping_file import read_mapping
from pipeline.workspace import Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, table
from workflows.progress import progress_display, reporter

_REFUSED = "refused"
_NAMED = 3
"""How many recordings are named with the same reason; of the others only how many they are."""
_SHORT = 70
"""The longest reason in the table, in characters."""


def import_episodes(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Files, datasets, or folders of these.")
    ],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    form: Annotated[
        Format, typer.Option("--format", help="Of all PATHs; found out if not given.", case_sensitive=False)
    ] = Format.AUTO,
    task: Annotated[
        str | None, typer.Option(help="The task in words, where the data do not say it or say it wrongly.")
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS", help="A camera to import, and its name here. If given, no other is."
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help="A TOML file that says what the columns mean; see docs/import-export.md."),
    ] = None,
    operator: Annotated[str | None, typer.Option(help="Who drove.")] = None,
    robot: Annotated[
        str | None, typer.Option(help="The robot; with kinova_gen3 the tool pose can follow from the joints.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many episodes.", min=1)] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Also what lacks the state or action that training needs.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check, write nothing.")] = False,
) -> None:
    """Imports episodes of LeRobot, robomimic, ALOHA, DROID or our own. Reads PATHs, writes episodes/.

    Doing it again changes nothing. What cannot be imported is named, one line each; the rest is imported, and
    the exit status is 2.
    """
    options = ImportOptions(
        task=_said(task, "--task"),
        operator=_said(operator, "--operator"),
        robot=_said(robot, "--robot"),
        mapping=_mapping(mapping, camera or []),
        allow_missing=allow_missing,
        dry_run=dry_run,
    )
    if workspace.is_file():
        raise InputError(f"the workspace {workspace} is a file: name a folder with --workspace")
    _run(paths, Workspace(workspace), form, options, limit)


def _run(
    paths: list[Path], workspace: Workspace, form: Format, options: ImportOptions, limit: int | None
) -> None:
    """Imports, and says what became of each; raises ``InputError`` at the end if anything was refused."""
    results = []
    with progress_display() as display:
        display.start("import", "importing")
        lines = _Lines(display.say)
        report = reporter(display, "import")
        for result in import_all(paths, workspace, form=form, options=options, limit=limit, progress=report):
            results.append(result)
            lines.say(result)
        lines.finish()
        display.finish("import")
    _summarise(results)


class _Lines:
    """Says what there is to say of each recording, and of equal things only the first few."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._counts: Counter[tuple[str, str]] = Counter()

    def say(self, result: ImportResult) -> None:
        """Why it was refused, or the notes about it."""
        if result.imported is None:
            self._one(_REFUSED, result.name, result.refused or "")
        for note in result.imported.notes if result.imported is not None else ():
            self._one("note", result.name, note)

    def finish(self) -> None:
        """How many there were besides."""
        for (kind, reason), count in self._counts.items():
            if count > _NAMED:
                alike = f"for the same reason: {_short(reason)}" if kind == _REFUSED else f"alike: {reason}"
                self._say(f"{kind}: and {count - _NAMED} more {alike}")

    def _one(self, kind: str, name: str, why: str) -> None:
        line = f"{kind}: {_one_line(why if why.startswith(name) else f'{name}: {why}')}"
        key = (kind, _reason(name, why) if kind == _REFUSED else _bare(name, why))
        self._counts[key] += 1
        if self._counts[key] <= _NAMED:
            self._say(line)


def _reason(name: str, why: str) -> str:
    """``why`` without what differs from one recording to the next: names and words with digits in them."""
    return re.sub(r"\S*\d\S*", "…", _bare(name, why))


def _bare(name: str, why: str) -> str:
    """``why`` in one line, with "it" for the recording and for the file that it is in."""
    said = _one_line(why)
    for called in (name, name.rpartition(" ")[0]):
        if called:
            said = re.sub(rf"(?<!\S){re.escape(_one_line(called))}(?![^\s:,;])", "it", said)
    return said


def _short(reason: str) -> str:
    """The first part of a reason, for a line of its own or a cell of the table."""
    first = re.split(r": | \(|; |\. ", reason, maxsplit=1)[0]
    return first if len(first) <= _SHORT else first[: _SHORT - 1] + "…"


def _summarise(results: list[ImportResult]) -> None:
    """The table of what is here now, the counts, and exit status 2 if anything was refused."""
    done = [(result.name, result.imported) for result in results if result.imported is not None]
    rows: list[list[object]] = [
        [_said_of(imported), imported.id, imported.task, imported.frames, name] for name, imported in done
    ]
    header = ["status", "episode", "task", "frames", "from"]
    counts = Counter(str(row[0]) for row in rows)
    refused: dict[str, list[ImportResult]] = {}
    for result in results:
        if result.imported is None:
            refused.setdefault(_reason(result.name, result.refused or ""), []).append(result)
            counts[_REFUSED] += 1
    if refused:
        header.append("why")
    for alike in refused.values():
        for result in alike[:_NAMED]:
            rows.append([_REFUSED, "", "", "", result.name, _short(_bare(result.name, result.refused or ""))])
        if len(alike) > _NAMED:
            rows.append([_REFUSED, "", "", "", f"{len(alike) - _NAMED} more", "the same reason"])
    if rows:
        print(table(header, [[*row, ""][: len(header)] for row in rows]))
    print(
        ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        or "nothing was found to import"
    )
    subtasks = [result.subtasks for result in results if result.subtasks]
    if subtasks:
        new = sum(imported.status != "present" for _, imported in done)
        where = f"{len(subtasks)} of {new} episode{'' if new == 1 else 's'}"
        print(f"sub-tasks: {sum(subtasks)} in {where}; the labelling app proposes them as segments")
    if counts[_REFUSED]:
        raise InputError(f"{counts[_REFUSED]} of {len(results)} recordings were refused: see the lines above")


def _said_of(imported: Imported) -> str:
    return "already there" if imported.status == "present" else imported.status


def _mapping(path: Path | None, cameras: list[str]) -> ColumnMapping:
    """The mapping file's contents; cameras named on the command line instead of its own, if any are."""
    mapping = ColumnMapping() if path is None else read_mapping(path)
    pairs = []
    for pair in cameras:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"--camera {pair!r} must be our name of the camera = the recording's")
        pairs.append((ours, theirs))
    return replace(mapping, cameras=tuple(pairs)) if pairs else mapping


def _said(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    if not text.strip():
        raise InputError(f"{option} is empty")
    return text.strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())

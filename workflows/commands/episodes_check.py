"""``recap episodes check``: what is wrong with the recorded episodes, and its repair."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from pipeline.episode_finding import Finding, is_fatal
from pipeline.episode_repair import Action
from pipeline.errors import Failure
from pipeline.workspace import Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace
from workflows.progress import progress_display

_WORKERS = min(os.cpu_count() or 1, 8)  # processes that read
_LISTED = 5  # findings of one kind that are shown one by one


def check(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Save what is whole of damaged or unfinished recordings; move the rest to quarantine/.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --repair: only say what would be done.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Every finding, however many are alike.")
    ] = False,
) -> None:
    """Reads every frame and says what is wrong; exit status 1 if an episode must not be used.

    Changes nothing without --repair, and deletes nothing with it: damaged files move to quarantine/, with a
    note that says why. Labels stay.
    """
    found = existing_workspace(workspace)
    findings = _checked(found)
    for line in summary(findings, verbose):
        print(line)
    fatal = {finding.path for finding in findings if is_fatal(finding)}
    warnings = sum(not is_fatal(finding) for finding in findings)
    print(f"{len(findings) - warnings} fatal, {warnings} warning{'' if warnings == 1 else 's'}")
    left = len(fatal)
    if repair or dry_run:
        left = _repair(found, findings, dry_run)
    if left:
        files = f"{left} episode file{'' if left == 1 else 's'} must not be trained on"
        then = "see above" if repair and not dry_run else "'recap episodes check --repair' takes them out"
        raise Failure(f"{files}: {then}")


def _checked(workspace: Workspace) -> list[Finding]:
    if not sys.stderr.isatty():
        return workspace.check(workers=_WORKERS)
    with progress_display() as display:
        display.start("check", "reading episodes")
        return workspace.check(
            workers=_WORKERS, report=lambda done, total: display.update("check", done, total)
        )


def _repair(workspace: Workspace, findings: Sequence[Finding], dry_run: bool) -> int:
    """Prints what is done; returns how many fatally damaged files are left."""
    counts: Counter[Action] = Counter()
    left = {finding.path for finding in findings if is_fatal(finding)}
    for done in workspace.repair(findings, workers=_WORKERS, dry_run=dry_run):
        counts[done.action] += 1
        if done.action is not Action.LEFT and not dry_run:
            left.discard(done.path)
        target = f" -> {done.target}" if done.target not in (None, done.path) else ""
        would = "would be " if dry_run and done.action is not Action.LEFT else ""
        print(f"{would}{done.action}: {done.path}{target}: {done.reason}")
    said = ", ".join(f"{count} {action}" for action, count in counts.items()) or "nothing to do"
    print(f"{'would be: ' if dry_run else ''}{said}")
    if counts[Action.CUT] and not dry_run:
        print("what was cut keeps its label: look at it again, since its end is missing")
    if (counts[Action.CUT] or counts[Action.QUARANTINED]) and not dry_run:
        said = "the notes (.txt) there say why; what is of no use may be deleted by hand"
        print(f"look into {workspace.quarantine}: {said}")
    return len(left)


def summary(findings: Sequence[Finding], verbose: bool = False) -> Iterator[str]:
    """One line per finding; those of a kind that many files share are counted instead."""
    counts = Counter((finding.severity, finding.kind) for finding in findings)
    shown: Counter[tuple[str, str]] = Counter()
    for finding in sorted(findings, key=lambda finding: not is_fatal(finding)):
        key = (finding.severity, finding.kind)
        shown[key] += 1
        if verbose or counts[key] <= _LISTED or shown[key] < _LISTED:
            where = str(finding.path)
            yield f"{finding.severity}: {finding.episode_id or where}: {finding.message}"
        elif shown[key] == counts[key]:
            more = counts[key] - _LISTED + 1
            yield f"{finding.severity}: and {more} more of this kind ({finding.kind}): --verbose lists them"

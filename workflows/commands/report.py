"""``recap report``: where the reports are."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from pipeline.errors import InputError
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace


def report(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    open_: Annotated[bool, typer.Option("--open", help="Open the newest in a browser.")] = False,
) -> None:
    """Lists the reports, a page a turn: values-N.html where its values were refused. Reads reports/."""
    found = existing_workspace(workspace)
    # One of values alone is of a turn that ended at its gate.
    pages = [*found.reports.glob("iteration-*.html"), *found.reports.glob("values-*.html")]
    pages.sort(key=lambda page: int(page.stem.split("-")[1]))
    if not pages:
        raise InputError(f"there is no report in {found.reports} yet: run 'recap improve' or 'recap demo'")
    for page in pages:
        print(page)
    if open_ and not webbrowser.open(pages[-1].absolute().as_uri()):
        raise InputError(f"no browser could be started: open {pages[-1]} yourself")

"""``recap report``: where the reports are, and drawing the page over all iterations anew."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace


def report(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    iteration: Annotated[
        int | None, typer.Option(metavar="N", help="The page of this iteration alone.", min=1)
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Read every iteration again and draw reports/index.html anew.")
    ] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Open in a browser: the newest, or that of --iteration or --all.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The pages as JSON, for programs.")] = False,
) -> None:
    """Lists the reports: index.html over all iterations, and a page a turn.

    A turn whose values were refused has values-N.html instead of iteration-N.html. Reads reports/; with
    --all also runs.sqlite, steps/ and snapshots/, and writes reports/index.html and reports/iterations.json,
    which 'recap improve' keeps up to date by itself.
    """
    found = existing_workspace(workspace)
    if all_ and iteration is not None:
        raise InputError(
            "--all draws the page over all iterations, --iteration asks for one: give one of them"
        )
    problems = _draw(found) if all_ else []
    pages = turn_pages(found.reports)
    if iteration is not None:
        pages = {name: page for name, page in pages.items() if page["iteration"] == iteration}
        if not pages:
            raise InputError(
                f"there is no report of iteration {iteration} in {found.reports}: see 'recap report'"
            )
    index = found.reports / "index.html"
    if not pages and not index.is_file():
        raise InputError(f"there is no report in {found.reports} yet: run 'recap improve' or 'recap demo'")
    with_index = iteration is None and index.is_file()
    _show(found, pages, index if with_index else None, problems, as_json)
    if open_:
        page = index if all_ or not pages else found.reports / list(pages)[-1]
        if not webbrowser.open(page.absolute().as_uri()):
            raise InputError(f"no browser could be started: open {page} yourself")


def turn_pages(reports: Path) -> dict[str, dict[str, int | str]]:
    """The pages of single turns by file name, in the order of their iterations."""
    found = []
    for kind in ("iteration", "values"):
        for page in reports.glob(f"{kind}-*.html"):
            number = page.stem.split("-", 1)[1]
            if number.isdigit():
                found.append((int(number), kind != "values", page.name))
    return {
        name: {"iteration": number, "about": "all" if whole else "values"}
        for number, whole, name in sorted(found)
    }


def _draw(workspace: Workspace) -> list[str]:
    """Draws the page over all iterations; returns what was wrong with any of them."""
    from workflows.ledger import Ledger
    from workflows.report_iterations import collect_iterations, write_iterations_report
    from workflows.step_store import StepStore

    ledger, store = Ledger(workspace), StepStore(workspace.steps)
    write_iterations_report(workspace, ledger, store, refresh=True)
    document = collect_iterations(workspace, ledger, store)[1]
    said = [f"iteration {one.n}: {problem}" for one in document.iterations for problem in one.problems]
    return [*document.problems, *said]


def _show(
    workspace: Workspace,
    pages: dict[str, dict[str, int | str]],
    index: Path | None,
    problems: list[str],
    as_json: bool,
) -> None:
    if as_json:
        document = {
            "index": str(index) if index is not None else None,
            "pages": [{**page, "path": str(workspace.reports / name)} for name, page in pages.items()],
            "problems": problems,
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return
    for problem in problems:
        print(f"problem: {problem}")
    if index is not None:
        print(index)
    for name in pages:
        print(workspace.reports / name)

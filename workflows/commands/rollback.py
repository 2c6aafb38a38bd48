"""``recap rollback``: makes an earlier champion the champion again."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.counted_words import counted
from pipeline.errors import InputError, one_line
from pipeline.workspace import Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace


def rollback(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    to: Annotated[
        str | None,
        typer.Option(metavar="N|base", help="The iteration to go back to (default: the champion before)."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, in a few words; kept in the history.")] = "",
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Instead: put a lost runs.sqlite together from steps/ and reports/."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it, and do not only say what would be done.")
    ] = False,
) -> None:
    """Makes an earlier champion the champion again; without --yes, only says what would change.

    Reads runs.sqlite and steps/; with --yes appends to the history in runs.sqlite, from which nothing is
    ever removed, and draws reports/index.html anew. Refused where the earlier champion's checkpoint is gone
    or damaged, and while another command works in the workspace. With --rebuild, where runs.sqlite was lost
    and there is no backup: says which history the manifests in steps/ and the links in reports/ tell, and
    with --yes writes it.
    """
    from workflows.driver_lock import driver_lock
    from workflows.ledger import Champion
    from workflows.rollback import choose

    if rebuild:
        if to is not None or reason:
            raise InputError("--rebuild brings the history back as it was: give it without --to and --reason")
        _rebuild(existing_workspace(workspace), yes)
        return

    def show(what: str, champion: Champion) -> None:
        print(f"{what:<15}{champion.origin}, since {champion.promoted[:16]}: {champion.reason}")
        print(f"{'':<15}{champion.path}")

    found = existing_workspace(workspace)
    chosen = choose(found, to)
    show("champion now", chosen.now)
    show("would become", chosen.to)
    print(f"{'then':<15}'recap rollout' and 'recap policy' use it, and the next candidate has to beat it")
    back = "base" if chosen.now.iteration == 0 else str(chosen.now.iteration)
    print(f"{'':<15}'recap rollback --to {back}' takes it back, until 'recap gc' frees that checkpoint")
    if not yes:
        print("nothing was changed: add --yes to do it")
        return
    with driver_lock(found.root):
        # Chosen again: the ledger may have changed before the workspace was ours.
        choose(found, to).do(found, reason)
        print(f"done: {chosen.to.origin} is the champion")
        _redraw(found)


def _rebuild(workspace: Workspace, yes: bool) -> None:
    from workflows.driver_lock import driver_lock
    from workflows.ledger import Ledger
    from workflows.ledger_rebuild import rebuilt

    found = rebuilt(workspace)
    for line in found.words():
        print(line)
    if not yes:
        print("nothing was written: add --yes to do it")
        return
    with driver_lock(workspace.root):
        found = rebuilt(workspace)
        Ledger(workspace).restore(found.champions, found.iterations, found.steps)
        print(f"done: {workspace.ledger_path}, {counted(len(found.iterations), 'iteration')}")
        _redraw(workspace)


def _redraw(workspace: Workspace) -> None:
    """Has ``reports/index.html`` say what holds now. What was done stands, whatever becomes of the page."""
    from workflows.ledger import Ledger
    from workflows.report_iterations import write_iterations_report
    from workflows.step_store import StepStore

    try:
        write_iterations_report(workspace, Ledger(workspace), StepStore(workspace.steps))
    except Exception as error:  # the ledger is written: no fault of a page may make that look undone
        why = one_line(error)
        typer.echo(
            f"the page over all iterations is as it was ({why}): 'recap report --all' draws it", err=True
        )

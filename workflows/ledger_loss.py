"""Whether a ledger that says nothing was lost: what other files tell of turns that it should know.

A lost or emptied ``runs.sqlite`` must not look like a new lab: the base would be trained anew, the champion
forgotten. Before the first turn there is a base policy at most; it is in the ledger before anything is
rolled out or fine-tuned from it, and before a page of an iteration is linked. So each of these without a
champion in the ledger is the trace of a history that was there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.step_result import visible

REBUILD = "recap rollback --rebuild"
_AFTER_A_BASE = {
    "fine_tune_recap": "fine-tuned policies",
    "fine_tune_filtered": "policies of filtered BC",
    "roll_out": "recorded rollouts",
}
_PAGE = re.compile(r"iteration-(\d+)\.html")


def require_not_lost(workspace: Workspace) -> None:
    """Raises ``InputError``, with what to do, where there were turns. For a ledger that is empty."""
    traces = [
        f"{len(found)} {words} in steps/{name}"
        for name, words in _AFTER_A_BASE.items()
        if (found := visible(workspace.steps / name))
    ]
    pages = pages_of_iterations(workspace)
    if pages:
        traces.insert(0, f"the pages of {len(pages)} iterations in reports/")
    if not traces:
        return
    path = workspace.ledger_path
    state = "has no history" if path.is_file() and path.stat().st_size else "is missing or empty"
    raise InputError(
        f"{path} {state}, but there were turns of the loop: {', '.join(traces)}. Put the file back from a "
        f"backup, or see what '{REBUILD}' puts together from steps/ and reports/; for a new history, use a "
        "new workspace or move steps/ and reports/ elsewhere"
    )


def pages_of_iterations(workspace: Workspace) -> list[int]:
    """The numbers of the iterations whose page is linked in ``reports/``, in order."""
    names = (_PAGE.fullmatch(name) for name in visible(workspace.reports))
    return sorted(int(found[1]) for found in names if found is not None)


def outdated(workspace: Workspace, iterations: Sequence[int]) -> str:
    """A sentence where ``reports/`` has pages of later iterations than the ledger knows; else empty.

    One more is usual: a turn that was interrupted between its page and the ledger.
    """
    last = max(iterations, default=0)
    pages = pages_of_iterations(workspace)
    if not pages or pages[-1] <= last + 1:
        return ""
    return (
        f"{workspace.ledger_path} ends at iteration {last}, and reports/ has the page of iteration "
        f"{pages[-1]}: is it an old copy? Put a newer one in its place, or move it elsewhere and see "
        f"'{REBUILD}'"
    )

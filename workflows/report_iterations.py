"""The loop's history: ``reports/iterations.json`` for programs and ``reports/index.html`` for people.

Called at the end of every turn, so it is cheap: an iteration whose ledger entry and steps are those of the
record before is not read again, and where nothing changed nothing is written. The page is one file that
names no other address but the pages of the iterations beside it.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.errors import Failure, InputError
from pipeline.iteration_file import read_iterations, to_json, write_iterations
from pipeline.iteration_records import ChampionRecord, IterationRecord, IterationsDocument
from pipeline.workspace import Workspace
from workflows.iteration_facts import iteration_record, record_digest
from workflows.iteration_steps import IterationSteps
from workflows.ledger import Ledger
from workflows.refused_turns import refused_turns
from workflows.step_store import StepStore

INDEX_PAGE = "index.html"
_PAGE = re.compile(r"iteration-(\d+)\.html")
_PAGE_CODE = (
    "report_iterations.html",
    "report_macros.html",
    "report_style.css",
    "report_iterations_charts.py",
    "report_iterations_page.py",
    "report_lines.py",
)
_STAMP = re.compile(rb'<meta name="recap-iterations" content="([0-9a-f]{64})">')


def write_iterations_report(
    workspace: Workspace, ledger: Ledger, store: StepStore, *, refresh: bool = False
) -> Path:
    """Brings both files up to date; returns the page.

    With ``refresh`` every iteration is read again. What is damaged is named on the page and stops nothing
    else; raises ``OSError`` where the files cannot be written.
    """
    earlier, document = collect_iterations(workspace, ledger, store, refresh=refresh)
    page = workspace.reports / INDEX_PAGE
    stamp = hashlib.sha256(to_json(document) + _page_code()).hexdigest()
    if document != earlier:
        write_iterations(document, workspace.reports)
    if refresh or _stamp_of(page) != stamp:
        from workflows.report_iterations_page import write_iterations_page

        write_iterations_page(document, stamp, page)
    return page


def collect_iterations(
    workspace: Workspace, ledger: Ledger, store: StepStore, *, refresh: bool = False
) -> tuple[IterationsDocument | None, IterationsDocument]:
    """The document as it was, ``None`` where there was none that can be read, and as it is now."""
    problems: list[str] = []
    earlier = None
    # A damaged one is written anew: nothing is lost but figures of steps that are gone.
    with suppress(InputError):
        earlier = read_iterations(workspace.reports)
    records: list[IterationRecord] = []
    try:
        records = list(_records(workspace, ledger, store, earlier, refresh))
    except (InputError, Failure, ValueError) as error:
        problems.append(f"the ledger cannot be read, the iterations are as they were: {error}")
        records = list(earlier.iterations) if earlier is not None else []
    champions: tuple[ChampionRecord, ...] = earlier.champions if earlier is not None else ()
    try:
        champions = _champions(ledger)
    except (InputError, Failure) as error:
        problems.append(f"the champions are as they were: {error}")
    pages, refused = _pages(workspace.reports), refused_turns(workspace.reports)
    document = IterationsDocument(
        robot=next((one.data.robot for one in reversed(records) if one.data is not None), ""),
        champions=champions,
        iterations=tuple(replace(one, page=pages.get(one.n)) for one in records),
        refused={turn.n: turn.page for turn in refused},
        refused_at={turn.n: turn.recorded for turn in refused if turn.recorded},
        problems=tuple(dict.fromkeys(problems)),
    )
    return earlier, document


def _records(
    workspace: Workspace,
    ledger: Ledger,
    store: StepStore,
    earlier: IterationsDocument | None,
    refresh: bool,
) -> list[IterationRecord]:
    found, before = [], None
    for iteration in ledger.iterations():
        steps = IterationSteps.of(workspace, store, ledger, iteration.n)
        known = earlier.iteration(iteration.n) if earlier is not None else None
        digest = record_digest(iteration, steps, before)
        if refresh or known is None or known.digest != digest or known.problems:
            known = iteration_record(iteration, steps, before, known, digest)
        found.append(known)
        before = steps
    return found


def _champions(ledger: Ledger) -> tuple[ChampionRecord, ...]:
    return tuple(
        ChampionRecord(one.kind, one.iteration, f"{one.name}/{one.key}", one.reason, one.promoted, one.since)
        for one in ledger.champions()
    )


def _pages(reports: Path) -> dict[int, str]:
    """The pages of iterations, by number."""
    found = {}
    for page in reports.glob("iteration-*.html"):
        if (match := _PAGE.fullmatch(page.name)) and page.exists():
            found[int(match[1])] = page.name
    return found


def _stamp_of(page: Path) -> str:
    """What the page was made from; empty where there is none."""
    try:
        with page.open("rb") as file:
            found = _STAMP.search(file.read(4096))
    except OSError:
        return ""
    return found[1].decode() if found else ""


def _page_code() -> bytes:
    """The page's own text: another version of this software draws it anew."""
    from importlib import resources

    folder = resources.files("workflows")
    return b"".join(folder.joinpath(name).read_bytes() for name in _PAGE_CODE)

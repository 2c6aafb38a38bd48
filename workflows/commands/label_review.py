"""``recap label agreement|disputes|adjudicate|gold``: how far to trust labels, and a reviewer's word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.label_types import OUTCOMES
from workflows.commands.label_store import (
    EpisodeArgument,
    NoteOption,
    OutcomeArgument,
    QualityOption,
    ReviewerOption,
    opened_store,
)
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table


def agreement(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """How far annotators agree on what several of them labelled, and with gold. Reads labels.sqlite.

    alpha is Krippendorff's, kappa Cohen's: 1 is full agreement, 0 what chance would give, - not defined.
    """
    with opened_store(existing_workspace(workspace)) as store:
        found = store.agreement()
    if as_json:
        print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return
    if not found.n and not found.gold:
        print("no episode was labelled by two people yet: see double_share in docs/labels.md")
        return
    rows = [
        [task.task, task.n, task.agreed, _share(task.agreed, task.n), _number(task.alpha)]
        for task in found.tasks
    ]
    if len(rows) != 1:
        rows.append(["all", found.n, found.agreed, _share(found.agreed, found.n), _number(found.alpha)])
    _print(("task", "episodes", "agreed", "share", "alpha"), rows)
    _print(
        ("annotators", "and", "episodes", "agreed", "share", "kappa"),
        [
            [pair.first, pair.second, pair.n, pair.agreed, _share(pair.agreed, pair.n), _number(pair.kappa)]
            for pair in found.pairs
        ],
    )
    _print(
        ("on gold", "episodes", "right", "share"),
        [[one.annotator, one.n, one.correct, _share(one.correct, one.n)] for one in found.gold],
    )


def disputes(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """The episodes on which annotators differ; training leaves them out. Reads labels.sqlite."""
    with opened_store(existing_workspace(workspace)) as store:
        found = store.disputed()
    if found:
        rows = [
            [one.episode_id, one.task, "; ".join(f"{o.annotator}: {o.outcome}" for o in one.opinions)]
            for one in found
        ]
        print(table(("episode", "task", "opinions"), rows))
    print(f"{len(found)} disputed episode{'' if len(found) == 1 else 's'}")


def adjudicate(
    episode: EpisodeArgument,
    outcome: OutcomeArgument,
    reviewer: ReviewerOption,
    note: NoteOption = "",
    quality: QualityOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """A reviewer's word on a disputed episode; 'recap label undo' takes it back. Appends to labels.sqlite."""
    with opened_store(existing_workspace(workspace)) as store:
        event = store.adjudicate(episode, outcome, reviewer, note, quality=quality)
    print(f"{event.episode_id}: {event.outcome}, adjudicated by {event.annotator}")


def gold(
    episode: Annotated[str | None, typer.Argument(help="The episode's id; without one: lists them.")] = None,
    outcome: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(OUTCOMES)}.")] = None,
    reviewer: Annotated[str | None, typer.Option(help="Who is certain; one of the reviewers.")] = None,
    note: NoteOption = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Makes an episode gold: its outcome is certain, and annotators are asked now and then, unmarked.

    'recap label undo --annotator REVIEWER' takes it back. Appends to labels.sqlite.
    """
    if episode is not None and (outcome is None or reviewer is None):
        raise InputError("say what is certain, and who is: recap label gold EPISODE OUTCOME --reviewer NAME")
    with opened_store(existing_workspace(workspace)) as store:
        if episode is None or outcome is None or reviewer is None:
            _print(("gold", "outcome"), [list(one) for one in store.gold().items()])
            number = len(store.gold())
            print(f"{number} gold episode{'' if number == 1 else 's'}")
            return
        event = store.set_gold(episode, outcome, reviewer, note)
    print(f"{event.episode_id}: {event.outcome}, gold by {event.annotator}")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _print(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        print(table(header, rows))
        print()

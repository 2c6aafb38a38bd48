"""``recap status``: what there is and what to do next; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.counted_words import counted
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    existing_workspace,
    table,
    workspace_option,
)
from workflows.disk_usage import size_in_words
from workflows.ledger import Champion, Iteration
from workflows.time_words import local_and_ago
from workflows.workspace_status import DISPUTED, UNKNOWN, Waiting, WorkspaceStatus, workspace_status

_OUTCOMES = ("success", "failure", "exclude", DISPUTED, "unlabelled")
_BEFORE = 4  # iterations that are listed besides the last


def status(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="The tree of all that the champion came from, instead.")
    ] = False,
    of: Annotated[
        str | None,
        typer.Option(
            metavar="STEP/KEY",
            help="With --lineage: of this step, not the champion; the key's first digits will do.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """What there is, who is the champion, what to do next. Reads the workspace, writes nothing.

    Folders with very many files are not added up to the end; then it says 'over' so many bytes.
    """
    found = existing_workspace(workspace)
    if of is not None and not lineage:
        raise InputError("--of belongs to --lineage: give both")
    if lineage:
        _show_lineage(found, of, as_json)
        return
    seen = workspace_status(found)
    if as_json:
        print(json.dumps(seen.document(), indent=1, ensure_ascii=False))
        return
    _show_picture(found, seen)
    _show_episodes(seen)
    _show_iterations(seen)
    _show_disk(seen)


def _show_picture(workspace: Workspace, seen: WorkspaceStatus) -> None:
    """What an operator wants to know at a glance: who drives, what is new, who is waited for, what next."""
    champion, value = seen.champion, seen.value_model
    for problem in seen.problems:
        print(f"problem: {problem}")
    if seen.busy is not None:
        print(f"at work: {_process(seen.busy)} works in this workspace now")
    if champion is None:
        print("champion: none yet")
    else:
        verb = "rolled back to" if champion.kind == "rollback" else "since"
        print(f"champion: {champion.origin}, {verb} {local_and_ago(champion.promoted)}: {champion.reason}")
        print(f"          {champion.path}")
        if seen.champion_steps:
            came_from = counted(seen.champion_steps, "step")
            print(f"          came from {came_from}: see 'recap status --lineage'")
    _show_last_turn(seen)
    if seen.iterations:
        new = f"{counted(seen.new_episodes, 'episode')}, {counted(seen.new_labels, 'label')}"
        print(f"new since the last iteration: {new}")
    print(f"waiting for people: {_waiting(seen.waiting)}")
    for sentence in seen.to_record:
        print(f"to record: {sentence}")
    if value is not None:
        trained = f"trained {local_and_ago(value.trained)}, " if value.trained is not None else ""
        print(f"value model: {value.members} networks, {trained}labels {value.labels[:8]}")
    for part in seen.unfinished:
        print(f"unfinished recording: {part}")
    _show_schedules(seen)
    print(f"next: {_next(workspace, seen)}")


def _show_schedules(seen: WorkspaceStatus) -> None:
    if seen.schedules is not None and seen.schedules.line():
        print(f"schedules: {seen.schedules.line()}")
        for sentence in seen.schedules.sentences():
            print(f"schedules: {sentence}")


def _show_last_turn(seen: WorkspaceStatus) -> None:
    """What the last turn came to: an iteration that was decided, or one that its values ended."""
    if seen.refused is not None:
        stopped = f"turn {seen.refused.n} stopped"
        if seen.refused.recorded:
            stopped += f", {local_and_ago(seen.refused.recorded)}"
        print(f"last turn: {stopped}: its values cannot be trusted, see reports/{seen.refused.page}")
    elif seen.iterations:
        last = seen.iterations[-1]
        print(f"last turn: {_turn(last)}")
        for line in _decided(last):
            print(f"           {line}")


def _decided(iteration: Iteration) -> Iterator[str]:
    """After how many starts an iteration was decided, and where the rule is said."""
    decision = iteration.summary.get("decision")
    if not isinstance(decision, dict):
        return
    looks = [look for look in decision.get("looks") or () if isinstance(look, dict)]
    starts = looks[-1].get("starts") if looks else None
    after = f"decided after {counted(starts, 'start')}" if isinstance(starts, int) else ""
    report = iteration.summary.get("report")
    said = "; ".join(text for text in (after, f"by what rule: see {report}" if report else "") if text)
    if said:
        yield said


def _waiting(waiting: Waiting) -> str:
    if not waiting.known:
        return "not known, since the labels cannot be read"
    waits = [
        f"{counted(waiting.unlabelled, 'episode')} to label" if waiting.unlabelled else "",
        f"{waiting.second_opinion} for a second opinion" if waiting.second_opinion else "",
        f"{waiting.disputed} disputed: a reviewer decides, in the app or by 'recap label disputes'"
        if waiting.disputed
        else "",
    ]
    return ", ".join(text for text in waits if text) or "nothing"


def _show_episodes(seen: WorkspaceStatus) -> None:
    kinds = sorted({(task, kind) for task, kind, _ in seen.counts})
    columns = [outcome for outcome in _OUTCOMES if outcome != DISPUTED or seen.waiting.disputed]
    columns = columns if seen.waiting.known else [UNKNOWN]
    rows = [[task, kind, *(seen.counts[task, kind, outcome] for outcome in columns)] for task, kind in kinds]
    print()
    if rows:
        print(table(["task", "episodes of", *columns], rows))
    labels = f"{seen.waiting.unlabelled} unlabelled" if seen.waiting.known else "labels not known"
    print(f"{counted(seen.episodes, 'episode')}, {seen.hours:.2f} hours, {labels}")


def _show_iterations(seen: WorkspaceStatus) -> None:
    """Those that are not the last turn, which stands at the top."""
    earlier = seen.iterations if seen.refused is not None else seen.iterations[:-1]
    if earlier:
        print()
    if len(earlier) > _BEFORE:
        print(f"({counted(len(earlier) - _BEFORE, 'iteration')} before these: see 'recap report')")
    for iteration in earlier[-_BEFORE:]:
        print(_turn(iteration))


def _turn(iteration: Iteration) -> str:
    """When an iteration was, and what it decided."""
    reason = iteration.summary.get("reason", "")
    return f"iteration {iteration.n}, {local_and_ago(iteration.recorded)}: {reason}".rstrip(": ")


def _show_disk(seen: WorkspaceStatus) -> None:
    said = ", ".join(f"{kind} {usage}" for kind, usage in seen.disk.usage.items() if usage.bytes)
    print(f"\ndisk: {said or 'nothing'}")
    print(f"      {seen.disk.words()}")
    if seen.removable:
        print(f"      'recap gc' would free up to {size_in_words(seen.removable)}")


def _show_lineage(workspace: Workspace, of: str | None, as_json: bool) -> None:
    from workflows.ledger import Ledger
    from workflows.lineage import lineage, step_named
    from workflows.lineage_tree import lineage_lines
    from workflows.step_recipe import StepAddress

    root: Champion | StepAddress | None = step_named(workspace, of) if of else Ledger(workspace).champion()
    if root is None:
        raise InputError("there is no champion yet: run 'recap improve', or name a step with --of")
    found = lineage(workspace, root)
    if as_json:
        print(json.dumps(found.document(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(lineage_lines(found)))


def _next(workspace: Workspace, seen: WorkspaceStatus) -> str:
    if seen.busy is not None:
        return f"wait for {_process(seen.busy)}"
    return _next_command(workspace, seen)


def _next_command(workspace: Workspace, seen: WorkspaceStatus) -> str:
    option = workspace_option(workspace.root)
    if seen.episodes == 0:
        return f"recap demo{option} (simulation), or recap record{option}"
    if seen.problems:
        return "mend what is said above"
    if seen.waiting.unlabelled:
        return f"recap label{option} ({counted(seen.waiting.unlabelled, 'episode')} to label)"
    if seen.refused is not None:
        return f"mend what reports/{seen.refused.page} says, then recap improve{option}"
    if seen.champion is None or not seen.iterations or seen.new_episodes or seen.new_labels:
        return f"recap improve{option}"
    return f"recap rollout{option}: let the champion try, and correct it"


def _process(number: str) -> str:
    return f"process {number}" if number.isdecimal() else "another process"

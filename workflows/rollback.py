"""Going back to an earlier champion: which, whether it is whole, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.ledger import Champion, Ledger
from workflows.step_store import MANIFEST, StepStore

BASE = "base"


@dataclass(frozen=True)
class Rollback:
    """A champion that holds now, and the earlier one that would take its place."""

    now: Champion
    to: Champion

    def do(self, workspace: Workspace, reason: str) -> None:
        """Appends it to the history. Only for who holds the workspace (``driver_lock``)."""
        text = f"rolled back from {self.now.origin}"
        Ledger(workspace).roll_back(self.to, f"{text}: {reason}" if reason else text)


def standing(history: Sequence[Champion]) -> list[Champion]:
    """The champion, and those to which going back leads one after the other, as they were promoted.

    As a stack: a promotion is put on top, and a rollback takes off what is newer than its target. So nobody
    gets back by default to what a person rejected, also when something else was promoted since.
    """
    was = _promoted(history)
    stack: list[int] = []
    for entry in history:
        stack = [number for number in stack if number < entry.iteration] + [entry.iteration]
    return [was[number] for number in reversed(stack)]


def _promoted(history: Sequence[Champion]) -> dict[int, Champion]:
    return {champion.iteration: champion for champion in history if champion.kind == "promotion"}


def choose(workspace: Workspace, to: str | None) -> Rollback:
    """The rollback ``to`` an iteration's number or ``base``; ``None``: to the champion before this one.

    Before: see :func:`standing`; going back twice goes further back. Raises ``InputError`` where there is no
    such champion, or where its checkpoint is gone or damaged.
    """
    history = Ledger(workspace).champions()
    if not history:
        raise InputError(f"there is no champion in {workspace.root} yet: run 'recap improve'")
    now = history[-1]
    was = _promoted(history)
    others = _others(was, now) or "no other champion is left"
    if to is not None:
        chosen = was[_number(workspace, to, was, others)]
    elif len(stack := standing(history)) > 1:
        chosen = stack[1]
    else:
        raise InputError(f"{now.origin} is the first champion: there is none to go back to")
    if chosen.key == now.key:
        raise InputError(f"{now.origin} is the champion already: {others}")
    _require_whole(workspace, chosen, _others(was, now, chosen) or "no other champion is left")
    return Rollback(now, chosen)


def _number(workspace: Workspace, to: str, was: dict[int, Champion], others: str) -> int:
    number = 0 if to == BASE else int(to) if to.isdecimal() else None
    if number is None:
        raise InputError(f"--to takes the number of an iteration, or 'base', not {to!r}")
    if number in was:
        return number
    for iteration in Ledger(workspace).iterations():
        if iteration.n == number:
            reason = iteration.summary.get("reason", "it was not promoted")
            raise InputError(f"iteration {number} never was champion ({reason}): {others}")
    raise InputError(f"there is no iteration {number}: {others}")


def _require_whole(workspace: Workspace, champion: Champion, others: str) -> None:
    store = StepStore(workspace.steps)
    result = store.find(champion)
    if result is None:
        raise InputError(
            f"the checkpoint of {champion.origin} is gone, {champion.path}: put it back from a copy; {others}"
        )
    damaged = store.verify(result)
    if damaged:
        raise InputError(
            f"the checkpoint of {champion.origin} is damaged, {damaged[0]} was changed: put it back from a "
            f"copy; {others}"
        )


def _others(was: dict[int, Champion], *besides: Champion) -> str:
    """Those besides these whose checkpoint is still there, in words."""
    left_out = {champion.key for champion in besides}
    found = [champion for _, champion in sorted(was.items()) if champion.key not in left_out]
    names = [champion.origin for champion in found if (champion.path / MANIFEST).exists()]
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else ""

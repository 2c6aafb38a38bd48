"""Going back to an earlier champion: which, whether it is whole, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.ledger import Champion, Ledger
from workflows.step_store import StepStore

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


def choose(workspace: Workspace, to: str | None) -> Rollback:
    """The rollback ``to`` an iteration's number or ``base``; ``None``: to the champion before this one.

    Before: of those made earlier, the one made last, so that going back twice goes further back. Raises
    ``InputError`` where there is no such champion, or where its checkpoint is gone or damaged.
    """
    history = Ledger(workspace).champions()
    if not history:
        raise InputError(f"there is no champion in {workspace.root} yet: run 'recap improve'")
    now = history[-1]
    was = {champion.iteration: champion for champion in history if champion.kind == "promotion"}
    if to is None:
        earlier = [number for number in was if number < now.iteration]
        if not earlier:
            raise InputError(f"{now.origin} is the first champion: there is none to go back to")
        number = max(earlier)
    else:
        number = _number(workspace, to, was)
    rollback = Rollback(now, was[number])
    if rollback.to.key == now.key:
        raise InputError(f"{now.origin} is the champion already: {_others(was, number)}")
    _require_whole(workspace, rollback.to, was)
    return rollback


def _number(workspace: Workspace, to: str, was: dict[int, Champion]) -> int:
    number = 0 if to == BASE else int(to) if to.isdecimal() else None
    if number is None:
        raise InputError(f"--to takes the number of an iteration, or 'base', not {to!r}")
    if number in was:
        return number
    for iteration in Ledger(workspace).iterations():
        if iteration.n == number:
            reason = iteration.summary.get("reason", "it was not promoted")
            raise InputError(f"iteration {number} never was champion ({reason}): {_others(was)}")
    raise InputError(f"there is no iteration {number}: {_others(was)}")


def _require_whole(workspace: Workspace, champion: Champion, was: dict[int, Champion]) -> None:
    store = StepStore(workspace.steps)
    result = store.find(champion)
    if result is None:
        raise InputError(
            f"the checkpoint of {champion.origin} is gone, {champion.path}: put it back from a copy; "
            f"{_others(was, champion.iteration)}"
        )
    damaged = store.verify(result)
    if damaged:
        raise InputError(
            f"the checkpoint of {champion.origin} is damaged, {damaged[0]} was changed: put it back from a "
            f"copy; {_others(was, champion.iteration)}"
        )


def _others(was: dict[int, Champion], besides: int | None = None) -> str:
    names = [champion.origin for number, champion in sorted(was.items()) if number != besides]
    return f"there are {', '.join(names)}" if names else "there is no other"

"""A lost ledger, put together from what published steps and the links in ``reports/`` tell.

Each report's manifest holds its iteration's number, decision, base, candidate and evaluations; those pages
are kept by 'recap gc'. What is nowhere else is lost: that a person rolled back, and when exactly an iteration
was noted (taken is when its report was written).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from workflows.ledger import Champion, Iteration, Ledger
from workflows.ledger_loss import pages_of_iterations
from workflows.lineage import trace
from workflows.step_recipe import StepAddress
from workflows.step_store import StepResult, StepStore

_BASE_REASON = "trained on every demonstration"
_NOT_OF_A_TURN = {"report", "film"}
_FROM_A_BASE = {"fine_tune_recap": "base", "fine_tune_filtered": "base", "roll_out": "checkpoint"}


@dataclass(frozen=True)
class Rebuilt:
    """A history: champions (the base first) and iterations in order, and by iteration the steps it used."""

    champions: tuple[Champion, ...]
    iterations: tuple[Iteration, ...]
    steps: dict[int, tuple[StepResult, ...]]
    missing: tuple[int, ...]

    def words(self) -> Iterator[str]:
        """What was found, in lines."""
        for iteration in self.iterations:
            yield f"iteration {iteration.n}, {iteration.recorded}: {iteration.summary['reason']}"
        if self.missing:
            numbers = ", ".join(str(n) for n in self.missing)
            yield f"nothing is known any more of iteration {numbers}: there is no report of it"
        yield "what people rolled back is in no other file: the last promotion counts, see 'recap rollback'"
        yield f"champion: {self.champions[-1].origin}, {self.champions[-1].path}"


def rebuilt(workspace: Workspace) -> Rebuilt:
    """The history that steps and reports tell; writes nothing.

    Raises ``InputError`` where the ledger has a history already or is damaged, and where no base policy is
    known from which one could begin.
    """
    if Ledger(workspace).has_history():
        raise InputError(
            f"{workspace.ledger_path} has a history: to have it rebuilt, move that file elsewhere first"
        )
    store = StepStore(workspace.steps)
    reports = _reports(workspace, store)
    base = _base(workspace, store, list(reports.values()))
    champions, iterations, steps = [_champion(workspace, base, 0, _BASE_REASON, base.finished)], [], {}
    for n, report in sorted(reports.items()):
        decision, finished = _decision(report), str(report.manifest["finished"])
        candidate = _trainings(report)[1]
        iterations.append(Iteration(n, candidate.key, finished, _summary(workspace, store, n, report)))
        needed = trace(store, [report]).values()
        steps[n] = tuple(s.result for s in needed if s.result is not None and s.name not in _NOT_OF_A_TURN)
        if decision["promoted"]:
            champions.append(_champion(workspace, candidate, n, str(decision["reason"]), finished))
    known = {iteration.n for iteration in iterations}
    missing = tuple(n for n in range(1, max(known, default=0) + 1) if n not in known)
    return Rebuilt(tuple(champions), tuple(iterations), steps, missing)


@dataclass(frozen=True)
class _Address(StepAddress):
    finished: str = ""


def _champion(workspace: Workspace, step: StepAddress, n: int, reason: str, finished: str) -> Champion:
    path = workspace.steps / step.name / step.key
    return Champion(step.name, step.key, path, n, f"{reason} (rebuilt)", finished, "promotion", n)


def _reports(workspace: Workspace, store: StepStore) -> dict[int, StepResult]:
    """The report of each iteration: the one that is linked; where there is no link, the newest."""
    found: dict[int, StepResult] = {}
    for report in sorted(store.published("report"), key=lambda one: str(one.manifest["finished"])):
        parameters = report.manifest["parameters"]
        if {"iteration", "decision"} <= parameters.keys():
            found[int(parameters["iteration"])] = report
    for n in pages_of_iterations(workspace):
        target = Path(os.path.realpath(workspace.reports / f"iteration-{n}.html"))
        linked = store.find(StepAddress(target.parent.parent.name, target.parent.name))
        if linked is not None and linked.manifest["parameters"].get("iteration") == n:
            found[n] = linked
    return found


def _decision(report: StepResult) -> dict[str, Any]:
    """What was decided: ``promoted``, ``reason``, and in reports of this version how."""
    parameters = report.manifest["parameters"]
    decision = parameters["decision"]
    if isinstance(decision, dict):
        return decision
    return {"promoted": parameters["promoted"], "reason": decision}


def _trainings(report: StepResult) -> list[StepAddress]:
    """Of the base policy, the candidate, and filtered BC."""
    return [StepAddress.parse(text) for text in report.manifest["inputs"]["trainings"]]


def _base(workspace: Workspace, store: StepStore, reports: list[StepResult]) -> _Address:
    """The first champion: what the turns, or else fine-tunes and rollouts, came from."""
    found = {str(_trainings(report)[0]) for report in reports}
    if not found:
        for name, named in _FROM_A_BASE.items():
            inputs = (step.manifest["inputs"].get(named) for step in store.published(name))
            found |= {text for text in inputs if isinstance(text, str) and text.startswith("train_base/")}
    if len(found) != 1:
        bases = ", ".join(sorted(found)) or "none"
        raise InputError(
            f"the history of {workspace.root} cannot be rebuilt: the base policies that steps/ names are "
            f"{bases}, and it takes one; put {workspace.ledger_path.name} back from a backup"
        )
    address = StepAddress.parse(found.pop())
    result = store.find(address)
    finished = str(result.manifest["finished"]) if result is not None else "1970-01-01T00:00:00+00:00"
    return _Address(address.name, address.key, finished)


def _summary(workspace: Workspace, store: StepStore, n: int, report: StepResult) -> dict[str, Any]:
    decision = _decision(report)
    link = workspace.reports / f"iteration-{n}.html"
    page = link if link.exists() else report.path / "report.html"
    return {
        "promoted": bool(decision["promoted"]),
        "reason": str(decision["reason"]),
        "decision": {name: decision[name] for name in ("rule", "looks", "guards") if name in decision},
        "report": os.path.relpath(page, workspace.root),
        "performances": _performances(store, report),
        "values_passed": _values_passed(store, report),
        "rebuilt": True,
    }


def _performances(store: StepStore, report: StepResult) -> dict[str, Any]:
    """Of each policy that was evaluated and whose attempts are there still."""
    from workflows.comparison import performance
    from workflows.evaluation import read_attempts

    parts: dict[str, list[StepResult | None]] = {}
    names, inputs = report.manifest["parameters"]["evaluation_names"], report.manifest["inputs"]
    for name, address in zip(names, inputs["evaluations"], strict=True):
        parts.setdefault(name, []).append(store.find(StepAddress.parse(address)))
    found = {}
    for name, steps in parts.items():
        folders = [step.path for step in steps if step is not None]
        if len(folders) < len(steps):
            continue
        try:
            found[name] = asdict(performance(read_attempts(*folders)))
        except (OSError, ValueError, KeyError, TypeError, Failure):
            continue  # a damaged evaluation; the decision itself is in the report
    return found


def _values_passed(store: StepStore, report: StepResult) -> bool | None:
    """What the gate said of the turn's values; ``None`` where that is gone."""
    from workflows.value_gate import read_gate

    judged = store.find(StepAddress.parse(report.manifest["inputs"]["gate"]))
    found = read_gate(judged.path) if judged is not None else None
    return None if found is None else found.passed

"""``recap policy evaluate --robot``: what is printed of an evaluation on the arm, however far it went."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from pipeline.counted_words import counted
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.commands.options import table, workspace_option
from workflows.policy_evaluation import HEADER, difference_lines, rows_of
from workflows.policy_evaluation_plan import read_plan
from workflows.policy_evaluation_robot import RobotEvaluation, evaluate_on_robot
from workflows.policy_evaluation_wishes import RobotWishes, is_served


def on_robot(workspace: Workspace, wishes: RobotWishes, film: Path | None, as_json: bool) -> None:
    """Runs it and prints figures, comparison, who judged and what is left; then the film, of two."""

    def report(evaluation: RobotEvaluation) -> None:
        found = evaluation.as_json()
        lines = [json.dumps(found)] if as_json else _lines(found, workspace, wishes, film)
        print("\n".join(lines), flush=True)

    known = read_plan(workspace, wishes.name)
    policies = wishes.checkpoints or (known.policies if known is not None else ())
    if film is not None and len(policies) != 2:
        raise InputError("--film shows two policies side by side: name both")
    stream = sys.stderr if as_json else sys.stdout
    evaluation = evaluate_on_robot(workspace, wishes, report, stream)
    found = evaluation.as_json()
    if film is not None and found["left"]:
        print("no film: it comes when all attempts are done", file=stream)
    elif film is not None and found["difference"] is not None:
        evaluation.film(film)
        print(f"film: {film}", file=stream)
    elif film is not None:
        print("no film: there is no start yet that both policies have run", file=stream)


def _lines(found: dict[str, Any], workspace: Workspace, wishes: RobotWishes, film: Path | None) -> list[str]:
    """What is printed; no figure while attempts are left, since the judge could tell the policies by it."""
    policies = found["policies"]
    judged = [(f"{letter} {policy['name']}", policy) for letter, policy in zip("AB", policies, strict=False)]
    judges = _judges(found)
    lines = [f"evaluation {found['evaluation']} on {found['robot']}, {counted(found['starts'], 'start')}"]
    if found["left"]:
        wanted = found["starts"] * len(policies)
        lines.append(
            f"{wanted - found['left']} of {wanted} attempts done; figures come when all are (or: --json)"
        )
        lines += [f"judged by {judges}"] if judges else []
        if read_plan(workspace, found["evaluation"]) is None:
            return [*lines, "nothing was begun, so nothing is kept: give the same command again"]
        return [
            *lines,
            f"{counted(found['left'], 'attempt')} left, go on with: {_go_on(found, workspace, wishes, film)}",
        ]
    lines += [f"{name}: asked for {_asked(policy)}" for name, policy in judged]
    rows = rows_of([(name, policy) for name, policy in judged if policy["attempts"]])
    lines += [table(HEADER, rows)] if rows else ["nothing was judged yet"]
    for name, policy in judged:
        if policy["left_out"]:
            lines.append(f"{name}: {policy['left_out']} recorded that do not count")
        if policy["emergency_stops"]:
            lines.append(f"{name}: {counted(policy['emergency_stops'], 'emergency stop')}")
    if found["difference"] is not None:
        lines += difference_lines(judged[1][0], judged[0][0], found["difference"])
    lines += [f"judged by {judges}"] if judges else []
    return [*lines, "was the last word wrong? put it right in the labelling app: recap label"]


def _judges(found: dict[str, Any]) -> str:
    """Who judged how often; the clock is where the time was up and nobody has said anything else."""
    judges = [f"{who} ({count})" for who, count in found["judged_by"].items()]
    judges += [f"the clock ({found['judged_by_clock']})"] if found["judged_by_clock"] else []
    return ", ".join(judges)


def _go_on(found: dict[str, Any], workspace: Workspace, wishes: RobotWishes, film: Path | None) -> str:
    """The command that goes on with the same take-over device, person, view and film."""
    options: list[object] = ["--robot", "--name", found["evaluation"]]
    said = {
        "--operator": wishes.device,
        "--person": wishes.person,
        "--rate": wishes.rate_hz,
        "--token-file": wishes.token_file,
        "--film": film,
    }
    for option, value in said.items():
        options += [] if value is None else [option, f"{value:g}" if isinstance(value, float) else value]
    options += ["--view"] if wishes.view else []
    return f"recap policy evaluate {shlex.join(map(str, options))}{workspace_option(workspace.root)}"


def _asked(policy: dict[str, Any]) -> str:
    if is_served(policy["given"]):
        return "what its server asks it for"
    return policy["asked_for"] or "nothing"

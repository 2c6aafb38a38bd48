"""``recap policy evaluate --robot``: what is printed of an evaluation on the arm, however far it went."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

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
        lines = [json.dumps(found)] if as_json else _lines(found, workspace)
        print("\n".join(lines), flush=True)

    known = read_plan(workspace, wishes.name)
    policies = wishes.checkpoints or (known.policies if known is not None else ())
    if film is not None and len(policies) != 2:
        raise InputError("--film shows two policies side by side: name both")
    stream = sys.stderr if as_json else sys.stdout
    evaluation = evaluate_on_robot(workspace, wishes, report, stream)
    if film is not None and evaluation.as_json()["difference"] is not None:
        evaluation.film(film)
        print(f"film: {film}", file=stream)
    elif film is not None:
        print("no film: there is no start yet that both policies have run", file=stream)


def _lines(found: dict[str, Any], workspace: Workspace) -> list[str]:
    policies = found["policies"]
    judged = [(f"{letter} {policy['name']}", policy) for letter, policy in zip("AB", policies, strict=False)]
    lines = [f"evaluation {found['evaluation']} on {found['robot']}, {found['starts']} starts"]
    lines += [f"{name}: asked for {_asked(policy)}" for name, policy in judged]
    rows = rows_of([(name, policy) for name, policy in judged if policy["attempts"]])
    lines += [table(HEADER, rows)] if rows else ["nothing was judged yet"]
    lines += [
        f"{name}: {policy['left_out']} recorded that do not count"
        for name, policy in judged
        if policy["left_out"]
    ]
    if found["difference"] is not None:
        lines += difference_lines(judged[1][0], judged[0][0], found["difference"])
    if found["judged_by"]:
        judges = ", ".join(f"{who} ({count})" for who, count in found["judged_by"].items())
        lines.append(f"judged by {judges}")
    if found["left"]:
        where = workspace_option(workspace.root)
        command = f"recap policy evaluate --robot --name {found['evaluation']}{where}"
        lines.append(f"{found['left']} attempts left, go on with: {command}")
    return lines


def _asked(policy: dict[str, Any]) -> str:
    if is_served(policy["given"]):
        return "what its server asks it for"
    return policy["asked_for"] or "nothing"

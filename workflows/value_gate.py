"""What the driver makes of the gate's report: go on, go on with a note, or stop."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from value_model.gate_report import GateReport
from workflows.step_files import GATE_FILE
from workflows.value_ensemble import ValueEnsemble, ensemble_path, save_ensemble

TOO_SMALL = "This run is too small to judge values by (--quick): what the gate found stops nothing."
ACCEPTED = "The values did not pass the gate; a person had the loop go on all the same (--accept-values)."


class GateClosed(Failure):
    """The values did not pass, so nothing may be fine-tuned on them. ``page`` shows why."""

    def __init__(self, report: GateReport, page: Path) -> None:
        failed = ", ".join(check.name for check in report.of("fail"))
        super().__init__(
            f"the values cannot be trusted ({failed}): nothing was fine-tuned on them, the champion stays; "
            f"see {page}, or go on all the same with --accept-values"
        )
        self.report = report
        self.page = page


@dataclass(frozen=True)
class GateVerdict:
    """The gate's report, whether the loop goes on, and a sentence where it does so against the report."""

    report: GateReport
    goes_on: bool
    note: str = ""

    def lines(self) -> list[str]:
        """What a person should read."""
        return [*self.report.words(), *([self.note] if self.note else [])]


def verdict(report: GateReport, *, quick: bool, accepted: bool) -> GateVerdict:
    """A report that passed goes on; another only in a quick run, or where a person accepted the values."""
    if quick:
        return GateVerdict(report, True, TOO_SMALL)
    if report.passed:
        return GateVerdict(report, True)
    return GateVerdict(report, accepted, ACCEPTED if accepted else "")


def read_gate(folder: Path) -> GateReport | None:
    """The report in a judging step's folder, or in that of an advantages step from before there was one.

    ``None`` where there is none.
    """
    path = folder / GATE_FILE
    if not path.exists():
        return None
    try:
        return GateReport.from_json(path.read_text())
    except InputError as error:
        raise InputError(f"{path}: {error}; remove its folder and run the command again") from error


def keep_ensemble(workspace: Workspace, ensemble: ValueEnsemble) -> None:
    """Makes these the workspace's value models, unless they are already."""
    members = [os.path.relpath(m.absolute(), workspace.root.absolute()) for m in ensemble.members]
    if _kept_members(workspace) != (ensemble.snapshot, members):
        # Checks the models, and loads torch for it.
        save_ensemble(workspace, ensemble)


def _kept_members(workspace: Workspace) -> tuple[str, Sequence[str]] | None:
    try:
        document = json.loads(ensemble_path(workspace).read_text())
        return document["snapshot"], document["members"]
    except (OSError, ValueError, KeyError, TypeError):
        return None

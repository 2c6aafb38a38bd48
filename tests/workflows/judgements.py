"""Reports of the gate that a test finds in a workspace."""

from __future__ import annotations

from pipeline.workspace import Workspace
from workflows.step_files import JUDGEMENT
from workflows.step_store import StepResult, StepStore


def newest_judgements(workspace: Workspace) -> list[StepResult]:
    """The published steps that hold a report of the gate's, the newest first."""
    found = StepStore(workspace.steps).published(JUDGEMENT)
    return sorted(found, key=lambda step: str(step.manifest["finished"]), reverse=True)

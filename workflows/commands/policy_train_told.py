"""What ``recap policy train`` says of a training before it begins, and of its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from workflows.local_ray import available_cpus

if TYPE_CHECKING:
    from pipeline.workspace import Workspace
    from workflows.policy_door import ConditionedData
    from workflows.step_recipe import Step
    from workflows.step_store import StepResult


def where_the_advantage_goes(policy_type: str) -> list[str]:
    from pipeline.policy.advantage_prompt import WITHOUT_LANGUAGE

    if policy_type not in WITHOUT_LANGUAGE:
        return ['advantage: in the text ("... Advantage: positive")']
    return [
        f"advantage: {policy_type} reads no text, so its state gets one more number: 1 positive, -1 negative,"
        " 0 absent. It cannot tell one task from another"
    ]


def values_told(workspace: Workspace, data: ConditionedData) -> list[str]:
    """A line where the gate refused the values behind the indicators, from what is stored.

    By the bounds of ``recap.toml``; where it was not asked under these, by those that it was asked under
    last. Nothing where nobody asked the gate about these advantages.
    """
    from pipeline.site_config import load_site_config
    from value_model.gate_config import GateConfig
    from workflows.step_files import JUDGEMENT
    from workflows.step_store import StepStore
    from workflows.value_gate import read_gate

    of = f"{data.advantages.name}/{data.advantages.key}"
    judged = [
        (one.manifest["parameters"].get("gate"), one)
        for one in StepStore(workspace.steps).published(JUDGEMENT)
        if one.manifest["inputs"].get("advantages") == of
    ]
    try:
        bounds = asdict(GateConfig.from_site(load_site_config(workspace.config_path).gate))
        last = max(judged, key=lambda one: (one[0] == bounds, one[1].manifest["finished"]), default=None)
        report = read_gate((data.advantages if last is None else last[1]).path)
    except InputError as error:  # what the gate found stops nothing, and neither does a damaged report
        return [f"values: {error}"]
    if report is None or report.passed:
        return []
    failed = ", ".join(check.name for check in report.of("fail"))
    return [f"values: refused ({failed}): the indicators may be noise; see 'recap value check'"]


def begun(workspace: Workspace, step: Step) -> bool:
    """Whether the training is done, or was stopped and goes on: another one would begin anew."""
    from workflows.step_resume import resume_path
    from workflows.step_store import StepStore

    return (
        StepStore(workspace.steps).find(step) is not None or resume_path(workspace.steps, step.key).exists()
    )


def idle_cores(training: Mapping[str, Any]) -> list[str]:
    """Says that a training on the CPU leaves cores idle, and how it takes them."""
    cores = available_cpus()
    if training.get("device", "cpu") != "cpu" or training.get("workers", 1) > 1 or cores == 1:
        return []
    if (threads := training.get("threads", 1)) >= cores:
        return []
    return [f"computes on {threads} of {cores} cores: --threads {cores} takes them all"]


def summary(result: StepResult, computed: bool, at: str) -> list[str]:
    from workflows.step_files import CHECKPOINT

    found = result.result
    how = f"{found['samples_per_s']:.0f} samples/s, {result.seconds:.0f} s" if computed else "used again"
    folder = result.path / CHECKPOINT
    return [
        f"trained on {found['frames']} frames, loss {found['final_loss']:.4f} ({how})",
        f"checkpoint: {folder}",
        f"next: recap policy evaluate --checkpoint {folder}{at}",
    ]

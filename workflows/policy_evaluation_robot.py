"""``recap policy evaluate --robot``: policies on the arm itself; a person lays out scenes and judges.

Reads ``recap.toml``, the checkpoints, and ``evaluations/<name>.json`` where the evaluation was begun before;
writes that file, an episode for every attempt, and its label. Everything that can be wrong is looked at
before the arm moves. However it ends, by a kill too, the command with that name goes on at the next attempt.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from collectors.collection_session import SessionSummary
from pipeline.errors import InputError
from pipeline.file_lock import locked
from pipeline.labels import LabelStore
from pipeline.policy.channel import read_token
from pipeline.policy.remote import RemotePolicy
from pipeline.site_config import SIMULATED_ROBOT, SiteConfig, load_site_config
from pipeline.workspace import Workspace
from workflows import policy_evaluation_runs as recorded
from workflows.live_recording import NOBODY, LiveCourse, LiveOptions, device_of, record_live
from workflows.policy_evaluation import NamedCheckpoint
from workflows.policy_evaluation_course import EvaluationCourse
from workflows.policy_evaluation_plan import EvaluationPlan, plan_path, read_plan
from workflows.policy_evaluation_wishes import (
    RobotWishes,
    find_policies,
    is_served,
    make_plan,
    person_of,
)


@dataclass(frozen=True)
class RobotEvaluation:
    """What there is of an evaluation: the plan, its policies under their names, and what was recorded."""

    plan: EvaluationPlan
    policies: tuple[NamedCheckpoint, ...]
    runs: tuple[recorded.Run, ...]

    def as_json(self) -> dict[str, Any]:
        """See :func:`workflows.policy_evaluation_runs.results`."""
        return recorded.results(self.plan, self.runs, [policy.name for policy in self.policies])

    def film(self, out: Path) -> None:
        """See :func:`workflows.policy_evaluation_runs.film`."""
        first, second = (policy.label or policy.name for policy in self.policies)
        recorded.film(out, self.runs, (first, second))


def evaluate_on_robot(
    workspace: Workspace,
    wishes: RobotWishes,
    at_end: Callable[[RobotEvaluation], None],
    stream: TextIO | None = None,
) -> RobotEvaluation:
    """Runs what is left of the evaluation; ``at_end`` gets how far it is, however the session ended.

    ``stream`` is what the person watches, stdout by default. Raises ``InputError`` before the arm moves: for
    policies that cannot be loaded, for a robot that is not known, for a name that another plan has.
    """
    stream = stream or sys.stdout
    site = load_site_config(workspace.config_path)
    known = read_plan(workspace, wishes.name)
    person = person_of(site, wishes, known)
    policies = find_policies(workspace, wishes, known)
    plan = make_plan(workspace, site, wishes, known, policies)

    def so_far() -> RobotEvaluation:
        recorded.settle(workspace, plan)
        return RobotEvaluation(plan, policies, tuple(recorded.runs_of(workspace, plan)))

    def ended(summary: SessionSummary) -> None:
        for line in summary.problems:
            print(f"note: {line}", file=stream)
        at_end(so_far())

    with _alone(workspace, plan):
        begun = so_far()
        left = len(plan.attempts) - len(recorded.done(begun.runs))
        if not left:
            at_end(begun)
            return begun
        print(f"evaluation {plan.name}: {left} of {len(plan.attempts)} attempts to go", file=stream)
        other = "" if wishes.person else "; --person says another"
        print(f"what you say is kept under the name {person}{other}", file=stream)

        def load(stack: contextlib.ExitStack) -> EvaluationCourse:
            return _course(workspace, site, replace(wishes, person=person), begun, stack)

        course = LiveCourse(load, plan.scene, ended, stream)
        record_live(workspace.root, _options(site, replace(wishes, person=person), plan), course)
        return so_far()


def _options(site: SiteConfig, wishes: RobotWishes, plan: EvaluationPlan) -> LiveOptions:
    device = device_of(site, wishes.device)
    if device is None and site.robot.type == SIMULATED_ROBOT:
        device = NOBODY
    return LiveOptions(
        plan.tasks[0],
        device=device,
        person=wishes.person,
        rate_hz=plan.rate_hz,
        max_seconds=plan.max_seconds,
        view=wishes.view,
        seed=plan.seed,
        policy=plan.policies[0].given,
    )


def _course(
    workspace: Workspace,
    site: SiteConfig,
    wishes: RobotWishes,
    begun: RobotEvaluation,
    stack: contextlib.ExitStack,
) -> EvaluationCourse:
    """Loads the policies and opens the label store; ``stack`` closes what has to be closed."""
    from pipeline.policy.runner import PolicyRunner

    plan = begun.plan
    planners: list[Any] = []
    for policy, found in zip(plan.policies, begun.policies, strict=True):
        if is_served(policy.given):
            planners.append(stack.enter_context(RemotePolicy(policy.given, read_token(wishes.token_file))))
        else:
            indicator = policy.asked_for
            planners.append(PolicyRunner(found.folder, indicator=indicator, guidance=plan.guidance))
    store = stack.enter_context(LabelStore(workspace.labels_path, rules=site.labels))
    label = recorded.labels_to(store, workspace, plan, wishes.person or site.defaults.operator)
    tried = [run.attempt for run in begun.runs]
    done = recorded.done(begun.runs)
    return EvaluationCourse(plan, planners, done, tried, label, begin=lambda: plan.save(workspace))


@contextlib.contextmanager
def _alone(workspace: Workspace, plan: EvaluationPlan) -> Iterator[None]:
    """Nobody else runs this evaluation within. Raises ``InputError`` where somebody does already."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(plan_path(workspace, plan.name).with_suffix(".lock"), wait=False))
        except BlockingIOError:
            raise InputError(f"evaluation {plan.name} is being run by another process: wait for it") from None
        yield

"""From what the command line says to the plan of an evaluation on the robot, new or known by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import InputError
from pipeline.policy.channel import read_token
from pipeline.policy.remote import RemotePolicy
from pipeline.prompts import Indicator
from pipeline.site_config import SIMULATED_ROBOT, SiteConfig
from pipeline.workspace import Workspace
from workflows.commands.live_options import require_known_task
from workflows.policy_evaluation import (
    BASE,
    CHAMPION,
    NamedCheckpoint,
    find_checkpoint,
    is_champion,
    require_two,
    tell_apart,
)
from workflows.policy_evaluation_plan import (
    EvaluationPlan,
    PlannedPolicy,
    new_identity,
    plan_path,
)
from workflows.policy_evaluation_runs import named_episodes, runs_of
from workflows.recording_settings import PICK_TASKS
from workflows.step_recipe import content_digest

STARTS, MAX_SECONDS = 20, 60.0
"""Where neither the command line nor the plan says anything."""


@dataclass(frozen=True)
class RobotWishes:
    """What the command line says; ``None`` leaves it to the plan of that name, ``recap.toml`` or a default.

    ``checkpoints`` are none, one or two of ``champion``, ``base``, folders, ``tcp://host:port``. ``asks`` is
    whether ``indicator`` was asked for; otherwise each policy is asked for what it was trained on.
    """

    name: str
    checkpoints: tuple[str, ...] = ()
    starts: int | None = None
    tasks: tuple[str, ...] = ()
    max_seconds: float | None = None
    rate_hz: float | None = None
    asks: bool = False
    indicator: Indicator | None = None
    guidance: float | None = None
    device: str | None = None
    person: str | None = None
    token_file: Path | None = None
    view: bool = False


def is_served(policy: str) -> bool:
    """Whether a policy is behind an address, such as ``tcp://host:port``."""
    return "://" in policy


def find_policies(
    workspace: Workspace, wishes: RobotWishes, known: EvaluationPlan | None
) -> tuple[NamedCheckpoint, ...]:
    """The policies that are asked for, by default those of the plan: of the same folders as it was made for.

    Raises ``InputError`` for what is not there, and for options that a policy's server would not heed.
    """
    names = _given(wishes, known)
    served = [name for name in names if is_served(name)]
    if served and (wishes.asks or wishes.guidance is not None):
        option = "--ask" if wishes.asks else "--guidance"
        raise InputError(f"{served[0]}: its server decides what it is asked for; leave {option} out")
    if len(set(served)) < len(served):
        raise InputError(f"{served[0]} is given twice, and one server serves one policy: start another one")
    found = []
    for i, given in enumerate(names):
        if is_served(given):
            found.append(_served(given, wishes.token_file))
            continue
        planned = known.policies[i] if known is not None and not wishes.checkpoints else None
        found.append(find_checkpoint(given, workspace) if planned is None else _of_plan(planned, workspace))
        if not found[-1].folder.is_dir():
            raise InputError(f"the checkpoint of {given} is gone: {found[-1].folder}")
    return tuple(tell_apart(found))


def make_plan(
    workspace: Workspace,
    site: SiteConfig,
    wishes: RobotWishes,
    known: EvaluationPlan | None,
    policies: Sequence[NamedCheckpoint],
) -> EvaluationPlan:
    """The plan that is ``known`` by the name, or a new one.

    Raises ``InputError`` where the known one does otherwise than asked, unless nothing was recorded by it.
    """
    identity, seed = new_identity()
    asked = EvaluationPlan(
        name=wishes.name,
        robot=site.robot.type,
        policies=_planned(wishes, known, policies),
        starts=wishes.starts if wishes.starts is not None else known.starts if known else STARTS,
        tasks=wishes.tasks or (known.tasks if known else _tasks(site)),
        max_seconds=float(wishes.max_seconds or (known.max_seconds if known else MAX_SECONDS)),
        rate_hz=float(_rate(wishes, known, site)),
        guidance=wishes.guidance if wishes.guidance is not None or known is None else known.guidance,
        id=identity,
        seed=seed,
        person=person_of(site, wishes, known),
    )
    if known is None and len(asked.policies) == 2:
        one, other = asked.policies
        require_two(one.given, other.given, same=one.digest == other.digest)
    for task in asked.tasks:
        require_known_task(site, task)
    if known is None:
        _require_unused(workspace, wishes.name)
        return asked
    difference = known.differs_in(asked)
    if difference is None:
        return known
    if not runs_of(workspace, known):
        return asked
    raise InputError(
        f"--name {wishes.name} is an evaluation with {difference}: go on with it, or choose another name"
    )


def person_of(site: SiteConfig, wishes: RobotWishes, known: EvaluationPlan | None) -> str:
    """Who judges: who the command line says, else who did before. Raises ``InputError`` for an empty name."""
    before = known.person if known is not None else ""
    person = wishes.person if wishes.person is not None else before or site.defaults.operator
    if not person.strip():
        raise InputError("--person is empty: say who judges, since it is kept with every label")
    return person


def _given(wishes: RobotWishes, known: EvaluationPlan | None) -> tuple[str, ...]:
    if wishes.checkpoints or known is None:
        return wishes.checkpoints or (CHAMPION,)
    return tuple(policy.given for policy in known.policies)


def _planned(
    wishes: RobotWishes, known: EvaluationPlan | None, policies: Sequence[NamedCheckpoint]
) -> tuple[PlannedPolicy, ...]:
    found = []
    for i, (given, policy) in enumerate(zip(_given(wishes, known), policies, strict=True)):
        folder = ""
        if is_served(given):
            digest = hashlib.sha256(f"{given} {policy.recorded}".encode()).hexdigest()
        else:
            digest, folder = content_digest(policy.folder), str(policy.folder.resolve())
        indicator = policy.indicator
        if wishes.asks:
            indicator = wishes.indicator
        elif known is not None and i < len(known.policies) and known.policies[i].digest == digest:
            indicator = known.policies[i].asked_for
        names = (policy.name, policy.label)
        found.append(PlannedPolicy(given, policy.recorded, digest, indicator, folder, *names))
    return tuple(found)


def _of_plan(policy: PlannedPolicy, workspace: Workspace) -> NamedCheckpoint:
    """A plan's checkpoint: where it was then, whoever is champion and whatever the present folder is now.

    It keeps its name, too; only who is champion no more is not called so.
    """
    if not Path(policy.folder).is_dir():
        raise InputError(f"the checkpoint of {policy.given} is gone: {policy.folder}")
    found = replace(find_checkpoint(policy.folder, workspace), recorded=policy.recorded)
    if _as_champion(policy) and not is_champion(Path(policy.folder), workspace):
        which = policy.name.removeprefix(CHAMPION) or f" ({found.name})"
        return replace(found, name=f"{CHAMPION} of then{which}", label=f"{CHAMPION} of then")
    if policy.name:
        return replace(found, name=policy.name, label=policy.label)
    if policy.given in (CHAMPION, BASE):
        return replace(found, name=policy.given, label="")
    return found


def _as_champion(policy: PlannedPolicy) -> bool:
    """Whether the plan has it as the champion: asked for so, or by a path that was the champion's then.

    A folder or a link that somebody has called ``champion`` keeps that name, whoever is champion.
    """
    if policy.given == CHAMPION:
        return True
    return policy.name.startswith(f"{CHAMPION} (") and Path(policy.given).name != CHAMPION


def _served(url: str, token_file: Path | None) -> NamedCheckpoint:
    with RemotePolicy(url, read_token(token_file)) as remote:
        name = remote.checkpoint_name
    return NamedCheckpoint(name, Path(), None, recorded=name)


def _rate(wishes: RobotWishes, known: EvaluationPlan | None, site: SiteConfig) -> float:
    if wishes.rate_hz is not None:  # 0 is refused by who runs the session
        return wishes.rate_hz
    return site.defaults.rate_hz if known is None else known.rate_hz


def _tasks(site: SiteConfig) -> tuple[str, ...]:
    """What is done where nobody says: the site's only task, or in simulation what is evaluated there."""
    if len(site.tasks) == 1:
        return site.tasks
    if site.robot.type == SIMULATED_ROBOT and not site.tasks:
        return PICK_TASKS
    listed = f", recap.toml lists {', '.join(site.tasks)}" if site.tasks else ""
    raise InputError(f"say what is to be done with --task{listed}")


def _require_unused(workspace: Workspace, name: str) -> None:
    """Raises ``InputError`` where there are episodes of that name without their plan."""
    count = len(named_episodes(workspace, name))
    if count:
        raise InputError(
            f"{count} episodes are of an evaluation {name} whose plan {plan_path(workspace, name)} is gone: "
            "put it back from a copy, or choose another --name"
        )

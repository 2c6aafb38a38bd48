"""The plan of an evaluation on the robot: which policies, how many starts, and who runs first at each.

``evaluations/<name>.json`` in the workspace holds it, so that an evaluation that was broken off goes on as it
began. Of two policies each start is run by both, one after the other; who is first is drawn so that each is
first at half of the starts, and is told to nobody: the person who lays out the scene and judges is blind.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, get_args

from pipeline.durable_files import write_file
from pipeline.episode_names import is_safe_id
from pipeline.errors import InputError
from pipeline.prompts import Indicator
from pipeline.workspace import Workspace
from workflows.json_documents import damaged, read_json

VERSION = 1
FOLDER = "evaluations"
# Scenes of the simulated arm, beyond those of all other sessions and evaluations: what is recorded here may
# be trained on, and no other evaluation must then be of the same scenes.
FIRST_SCENE = 4_000_000_000
MOST_STARTS = 10_000
SEED_BITS = 32


@dataclass(frozen=True)
class PlannedPolicy:
    """One of the policies: as it was named, and what it really is.

    ``recorded`` is the name that its episodes keep; ``digest`` the SHA-256 of its folder, or of a policy
    server's address and checkpoint name, of which no more is known. ``folder`` is absolute, and empty for a
    policy server: ``champion`` may be another one by the time that the evaluation goes on. ``name`` and
    ``label`` are those of tables and films; empty in a plan of an older version.
    """

    given: str
    recorded: str
    digest: str
    asked_for: Indicator | None
    folder: str
    name: str = ""
    label: str = ""


@dataclass(frozen=True)
class PlannedAttempt:
    """One run of a policy (its number in the plan) at a start, from 1; ``place`` 1 is the start's first."""

    start: int
    policy: int
    place: int


@dataclass(frozen=True)
class EvaluationPlan:
    """What is run, and how. Contradictions raise ``InputError`` when it is built.

    ``id`` tells it from others of its name, ``seed`` decides the order. Start ``i``, from 1, is of
    ``tasks[(i - 1) % len(tasks)]``. ``person`` judges, unless another one goes on with it.
    """

    name: str
    robot: str
    policies: tuple[PlannedPolicy, ...]
    starts: int
    tasks: tuple[str, ...]
    max_seconds: float
    rate_hz: float
    guidance: float | None
    id: str
    seed: int
    person: str = ""

    def __post_init__(self) -> None:
        """Refuses what could not be run."""
        if not 1 <= self.starts <= MOST_STARTS:
            raise InputError(f"--starts is {self.starts}; it must be 1 to {MOST_STARTS}")
        if not self.tasks or len(self.policies) not in (1, 2):
            raise InputError("an evaluation needs a task, and one policy or two")

    @property
    def attempts(self) -> tuple[PlannedAttempt, ...]:
        """Every run, in the order in which they are run."""
        firsts = first_policies(self.seed, self.starts) if len(self.policies) == 2 else [0] * self.starts
        places = range(len(self.policies))
        return tuple(
            PlannedAttempt(start, (first + place) % len(self.policies), place + 1)
            for start, first in enumerate(firsts, 1)
            for place in places
        )

    def task(self, start: int) -> str:
        """What is to be done at a start."""
        return self.tasks[(start - 1) % len(self.tasks)]

    def scene(self, start: int) -> tuple[str, int]:
        """How the simulated arm lays out a start: task and seed."""
        return self.task(start), FIRST_SCENE + self.seed * MOST_STARTS + start

    def differs_in(self, other: EvaluationPlan) -> str | None:
        """The first thing, in words, that ``other`` would do otherwise; ``None`` where they are the same.

        A policy may be named in another way as long as it is the same.
        """
        for field in fields(self):
            if field.name in ("id", "seed", "policies", "person"):
                continue
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                return f"{field.name.replace('_', ' ')} {_plain(mine)}, not {_plain(theirs)}"
        if len(self.policies) != len(other.policies):
            return f"{len(self.policies)} policies, not {len(other.policies)}"
        for letter, one, two in zip("AB", self.policies, other.policies, strict=False):
            if one.digest != two.digest:
                return f"policy {letter} {one.given} of other content than {two.given} now"
            asked, ask = (policy.asked_for or "nothing" for policy in (one, two))
            if asked != ask:
                return f"policy {letter} asked for {asked}, not {ask}"
        return None

    def save(self, workspace: Workspace) -> None:
        """Writes the plan's file, in place of one of the same name."""
        document = {"version": VERSION, **asdict(self)}
        write_file(plan_path(workspace, self.name), f"{json.dumps(document, indent=1)}\n".encode())

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The plan that :meth:`save` wrote. Raises ``ValueError``, ``TypeError``, ``KeyError`` for others."""
        known = dict(document)
        if known.pop("version") != VERSION:
            raise ValueError("of another version")
        known.setdefault("person", "")
        policies = tuple(PlannedPolicy(**policy) for policy in known["policies"])
        for name, is_right in _RIGHT.items():
            values = known[name] if name == "tasks" else [known[name]]
            if not isinstance(values, list) or not all(map(is_right, values)):
                raise ValueError(f"{name} is {known[name]!r:.60}")
        for policy in policies:
            texts = (policy.given, policy.recorded, policy.digest, policy.folder, policy.name, policy.label)
            if not all(map(_is_text, texts)) or policy.asked_for not in (None, *get_args(Indicator)):
                raise ValueError("a policy that is none")
        return cls(**{**known, "policies": policies, "tasks": tuple(known["tasks"])})


def plan_path(workspace: Workspace, name: str) -> Path:
    """Where the plan of that name is kept. Raises ``InputError`` for a name that no file can have."""
    if not is_safe_id(name):
        raise InputError(f"--name {name!r}: use letters, digits, '.', '_' and '-', a letter or digit first")
    return workspace.root / FOLDER / f"{name}.json"


def read_plan(workspace: Workspace, name: str) -> EvaluationPlan | None:
    """The plan of that name; ``None`` where there is none. Raises ``InputError`` for a damaged one."""
    path = plan_path(workspace, name)
    try:
        document = read_json(path)
    except FileNotFoundError:
        return None
    try:
        plan = EvaluationPlan.from_document(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(path, error) from error
    if plan.name != name:
        raise damaged(path, f"it is named {plan.name}")
    return plan


def new_identity() -> tuple[str, int]:
    """A new plan's id and seed, which nobody knows beforehand."""
    return secrets.token_hex(8), secrets.randbits(SEED_BITS)


def first_policies(seed: int, starts: int) -> list[int]:
    """Which of two policies (0 or 1) runs first at each start: each at half of them, to within one.

    The starts are ranked by SHA-256 of the seed and their number, so that the order is the same on every
    machine and with every version of every library, for as long as the evaluation may take.
    """
    drawn = [hashlib.sha256(f"{seed}:{start}".encode()).digest() for start in range(starts + 1)]
    odd_one = drawn[starts][0] % 2  # who is first once more, of an odd number
    ranked = sorted(range(starts), key=lambda start: drawn[start])
    firsts = [0] * starts
    for rank, start in enumerate(ranked):
        firsts[start] = (rank + odd_one) % 2
    return firsts


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]  # a number, by its type


_RIGHT: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "robot": _is_text,
    "starts": lambda value: type(value) is int and 1 <= value <= MOST_STARTS,
    "tasks": _is_text,
    "max_seconds": lambda value: _is_number(value) and value > 0,
    "rate_hz": lambda value: _is_number(value) and value > 0,
    "guidance": lambda value: value is None or (_is_number(value) and value >= 0),
    "id": _is_text,
    "person": _is_text,
    "seed": lambda value: type(value) is int and 0 <= value < 2**SEED_BITS,
}
"""Of each field of a plan's file, of ``tasks`` each entry: whether it can be what :meth:`save` wrote."""


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)

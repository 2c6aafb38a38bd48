"""What the gate says about a set of values: a verdict a check, in words, and the numbers behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pipeline.errors import InputError
from pipeline.label_snapshot import SnapshotRow
from value_model.calibration import ValueQuality

Verdict = Literal["pass", "warn", "fail"]
VERDICT_WORDS: dict[Verdict, str] = {"pass": "ok", "warn": "look", "fail": "STOP"}
TELEOPERATED = "nobody's (teleoperation)"


@dataclass(frozen=True)
class EpisodeFacts:
    """Who recorded each episode of a table and on which day, in the table's order.

    ``policy`` is the checkpoint that drove; empty where that is not known for any episode.
    """

    operator: tuple[str, ...]
    day: tuple[str, ...]
    policy: tuple[str, ...] = ()

    @classmethod
    def of_rows(cls, rows: Sequence[SnapshotRow]) -> EpisodeFacts:
        """The facts of a snapshot's rows; the day is that of the recording, in UTC."""
        return cls(
            tuple(row.operator for row in rows),
            tuple(row.created[:10] for row in rows),
            tuple(row.policy_checkpoint or TELEOPERATED for row in rows),
        )


@dataclass(frozen=True)
class Check:
    """One question, its answer and what follows.

    ``measured`` is held against ``bound``; ``None`` where there is no number. ``sentence`` says what was
    seen, what it means and, unless it passed, what to do.
    """

    name: str
    verdict: Verdict
    measured: float | None
    bound: float | None
    sentence: str

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a verdict that there is not."""
        if self.verdict not in get_args(Verdict):
            raise InputError(f"the check {self.name!r} has the verdict {self.verdict!r}")


@dataclass(frozen=True)
class AucCurve:
    """How well one set of values tells successes from failures, by the part of the episode that is over.

    ``own_length`` compares at equal parts of each one's own length, ``same_age`` at equal ages (parts of
    the task's median success). ``None`` where there was no pair.
    """

    name: str
    own_length: tuple[float | None, ...]
    same_age: tuple[float | None, ...]


@dataclass(frozen=True)
class Probe:
    """What a first frame alone tells of an outcome.

    ``auc``: cross-validated. ``chance``: the AUC that shuffled outcomes exceed one time in twenty.
    ``p_value``: how often they reach ``auc``.
    """

    task: str
    episodes: int
    auc: float
    chance: float
    p_value: float


@dataclass(frozen=True)
class Association:
    """How far outcomes, and V's telling them apart, follow who (or when) an episode was recorded.

    ``strength`` is Cramér's V (0 to 1) within tasks, ``p_value`` that of shuffled outcomes.
    ``auc_all`` and ``auc_within``: V over all pairs of a success and a failure of one task, and over those
    ``pairs_within`` that also share the factor, of which ``rarer_within`` episodes have the rarer outcome.
    ``counts``: per level, successes and failures. ``strength_within_drive`` and ``p_value_within_drive``:
    the same as without the ending, among demonstrations and among the policy's own attempts each, since
    the first turn's demonstrations all succeed and its attempts may all fail.
    """

    factor: str
    strength: float
    p_value: float
    auc_all: float | None
    auc_within: float | None
    within_p_value: float | None
    pairs_within: int
    counts: dict[str, tuple[int, int]]
    rarer_within: int = 0
    strength_within_drive: float = 0.0
    p_value_within_drive: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """The numbers behind the verdicts, for the report's figures.

    ``quality``: by scorer, the values first, as ``VALUES``. ``parts``: the x axis of ``curves``.
    """

    quality: dict[str, ValueQuality] = field(default_factory=dict)
    parts: tuple[float, ...] = ()
    curves: tuple[AucCurve, ...] = ()
    probes: tuple[Probe, ...] = ()
    associations: tuple[Association, ...] = ()
    positive_fraction: float | None = None


VALUES = "V"


@dataclass(frozen=True)
class GateReport:
    """Every check's answer. ``evidence`` is what they rest on."""

    checks: tuple[Check, ...]
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def passed(self) -> bool:
        """Whether fine-tuning may begin: no check failed; warnings do not stop it."""
        return not self.of("fail")

    def of(self, verdict: Verdict) -> list[Check]:
        """The checks with that verdict, in order."""
        return [check for check in self.checks if check.verdict == verdict]

    def words(self) -> list[str]:
        """The verdict first, then one line a check, the failed ones before the others."""
        failed, warned = len(self.of("fail")), len(self.of("warn"))
        lines = [_headline(failed, warned)]
        for verdict in reversed(get_args(Verdict)):
            lines += [f"  {VERDICT_WORDS[verdict]:4}  {c.name}: {c.sentence}" for c in self.of(verdict)]
        return lines

    def to_json(self) -> str:
        """One JSON object: passed, checks, evidence."""
        return json.dumps({"passed": self.passed, **asdict(self)}, allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> GateReport:
        """The inverse of :meth:`to_json`. Raises ``InputError`` for anything else."""
        try:
            document = json.loads(text)
            return cls(tuple(Check(**check) for check in document["checks"]), _evidence(document["evidence"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is not a report of the gate: {error}") from error


def _headline(failed: int, warned: int) -> str:
    if failed:
        return f"The values cannot be trusted: {_count(failed, 'check')} failed."
    if warned:
        return f"The values can be used; {_count(warned, 'thing')} to look at."
    return "The values can be trusted: every check passed."


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _evidence(document: dict[str, Any]) -> Evidence:
    associations = (
        {**a, "counts": {level: (int(n[0]), int(n[1])) for level, n in a["counts"].items()}}
        for a in document["associations"]
    )
    return Evidence(
        quality={name: ValueQuality.from_document(q) for name, q in document["quality"].items()},
        parts=tuple(document["parts"]),
        curves=tuple(
            AucCurve(c["name"], tuple(c["own_length"]), tuple(c["same_age"])) for c in document["curves"]
        ),
        probes=tuple(Probe(**probe) for probe in document["probes"]),
        associations=tuple(Association(**a) for a in associations),
        positive_fraction=document["positive_fraction"],
    )

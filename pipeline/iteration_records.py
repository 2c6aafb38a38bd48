"""The loop's history in figures: what ``reports/iterations.json`` holds, see :mod:`pipeline.iteration_file`.

Where a figure could not be had it is ``None`` or empty, and the iteration's ``problems`` say why.
``sources`` names, for each group of figures, the steps that made them, as ``name/key``:
``recap status --lineage --of name/key`` shows what those came from. Shares are 0 to 1, times ISO 8601 in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import FiniteFloat

MOST_WATCHED = 6
"""Rollouts that an iteration names as worth a look."""

LOOK_WORDS = {
    "starts": "After starts",
    "difference": "Difference, successes per hour",
    "p": "p",
    "bound": "Needed: p at most",
    "chance": "Chance of “better” in the end",
    "verdict": "Verdict",
}
GUARD_WORDS = {
    "name": "Guard rail",
    "worse": "Candidate is worse by",
    "low": "from",
    "high": "to (95 %)",
    "bound": "Allowed",
    "unit": "In",
    "starts": "Starts",
    "verdict": "Verdict",
    "strict": "",
}
"""What the names in a decision's looks and guard rails mean to a reader; empty: not shown."""

JsonScalar = str | bool | int | FiniteFloat | None


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


BASE, CHAMPION, CANDIDATE, OTHER = ROLES = ("base", "champion", "candidate", "other")
"""Of an evaluated policy: a champion that is the base policy has the role ``base``."""


@dataclass(frozen=True)
class PolicyRecord:
    """One policy's evaluation: ``checkpoint`` is the step that made it, where that is known.

    ``role`` is one of :data:`ROLES`. ``interventions`` are a person's corrections an attempt, in simulation
    the attempts in which one would have corrected; ``None`` where that was not noted.
    """

    name: str
    role: str
    attempts: int
    successes: int
    success_rate: Interval
    successes_per_hour: Interval
    checkpoint: str | None = None
    interventions: FiniteFloat | None = None


@dataclass(frozen=True)
class Incoming:
    """Episodes that an iteration took in first, alike in these: ``kind`` is one of :data:`KINDS`."""

    kind: str
    task: str
    operator: str
    day: str
    episodes: int


DEMONSTRATION, ROLLOUT, CORRECTED = KINDS = ("demonstration", "rollout", "corrected rollout")


@dataclass(frozen=True)
class DataRecord:
    """The episodes and labels of an iteration.

    ``episodes`` by kind, ``outcomes`` by success, failure, exclude and unlabelled. ``annotators``: episodes
    that each labelled. ``confirmed``: episodes on which two people or more agree, independently;
    ``disputed``: those left out since people differ. ``incoming`` is what the iteration before did not have,
    ``None`` where that cannot be told; ``new_labels`` are labels that it did not have or had otherwise.
    """

    episodes: dict[str, int]
    outcomes: dict[str, int]
    annotators: dict[str, int]
    confirmed: int
    disputed: int
    incoming: tuple[Incoming, ...] | None = None
    new_labels: int | None = None
    robot: str = ""


@dataclass(frozen=True)
class WatchedRollout:
    """A rollout worth a look: people corrected it most."""

    episode: str
    task: str
    interventions: int


@dataclass(frozen=True)
class RolloutRecord:
    """Rollouts that the iteration took in first: how many, times that people took over, frames corrected.

    ``share_of_frames`` is the part of all their frames in which a person drove.
    """

    episodes: int
    corrected: int
    interventions: int
    share_of_frames: FiniteFloat
    watched: tuple[WatchedRollout, ...] = ()

    @property
    def per_episode(self) -> float:
        """Interventions a rollout."""
        return self.interventions / self.episodes if self.episodes else 0.0


@dataclass(frozen=True)
class ValuesRecord:
    """How good the values were: ``auc`` is the chance that a success is valued above a failure at equal ages.

    ``rank_correlation``: of value and time left, within successes. ``calibration_error``: expected, in value.
    """

    auc: FiniteFloat | None
    rank_correlation: FiniteFloat | None
    calibration_error: FiniteFloat | None


@dataclass(frozen=True)
class Positives:
    """Frames of one source that have a mark, and how many of them are positive."""

    marked: int
    positive: int


@dataclass(frozen=True)
class IterationRecord:
    """One iteration. ``page`` is its report's name in ``reports/``; ``reference`` is whom it was to beat.

    ``looks`` and ``guards`` are those of the decision, plain numbers and words by name. ``positives`` are by
    source: teleop, policy, intervention. ``sources``: steps by performance, values, thresholds, positives,
    rollouts, data. ``digest`` stands for all that the record was made from.
    """

    n: int
    recorded: str = ""
    candidate: str = ""
    reference: str = ""
    promoted: bool | None = None
    reason: str = ""
    rule: str = ""
    looks: tuple[dict[str, JsonScalar], ...] = ()
    guards: tuple[dict[str, JsonScalar], ...] = ()
    values_passed: bool | None = None
    page: str | None = None
    policies: tuple[PolicyRecord, ...] = ()
    data: DataRecord | None = None
    rollouts: RolloutRecord | None = None
    values: ValuesRecord | None = None
    thresholds: dict[str, FiniteFloat] = field(default_factory=dict)
    positives: dict[str, Positives] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    digest: str = ""

    def evaluated(self, role: str) -> PolicyRecord | None:
        """The evaluation of the policy in that role."""
        return next((policy for policy in self.policies if policy.role == role), None)

    @property
    def champion_after(self) -> PolicyRecord | None:
        """The evaluation of whoever was champion when the iteration ended."""
        if self.promoted:
            return self.evaluated(CANDIDATE)
        return self.evaluated(CHAMPION) or self.evaluated(BASE)


@dataclass(frozen=True)
class ChampionRecord:
    """A promotion or a rollback (``kind``): since when, to which iteration's checkpoint (0: the base), why.

    ``after`` is the last iteration when a rollback was made; that of a promotion is ``iteration``.
    """

    kind: str
    iteration: int
    checkpoint: str
    reason: str
    since: str
    after: int = 0


@dataclass(frozen=True)
class Standing:
    """The champion's newest evaluation, in which iteration, and the base policy on the same starts."""

    iteration: int
    champion: PolicyRecord
    base: PolicyRecord


@dataclass(frozen=True)
class HistoryEntry:
    """One row of the history: ``kind`` is iteration, rollback or refused.

    ``page`` and ``recorded``, empty where that is not known, are of a refused turn.
    """

    kind: str
    n: int
    record: IterationRecord | None = None
    rollback: ChampionRecord | None = None
    page: str | None = None
    recorded: str = ""


@dataclass(frozen=True)
class IterationsDocument:
    """All of the file. ``refused`` and ``refused_at``: pages of refused turns, and when they were."""

    robot: str = ""
    champions: tuple[ChampionRecord, ...] = ()
    iterations: tuple[IterationRecord, ...] = ()
    refused: dict[int, str] = field(default_factory=dict)
    refused_at: dict[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def champion(self) -> ChampionRecord | None:
        """Who drives now."""
        return self.champions[-1] if self.champions else None

    @property
    def standing(self) -> Standing | None:
        """How well the champion does; ``None`` where no iteration evaluated it beside the base policy."""
        for record in reversed(self.iterations):
            base = record.evaluated(BASE)
            for policy in record.policies:
                own = self.champion is not None and policy.checkpoint == self.champion.checkpoint
                if base is not None and own and policy.role != OTHER:
                    return Standing(record.n, policy, base)
        return None

    def history(self) -> list[HistoryEntry]:
        """Iterations, rollbacks, and turns that ended at their gate; newest first.

        A turn that was refused before the iteration of its number stands before it.
        """
        found = [(float(one.n), HistoryEntry("iteration", one.n, record=one)) for one in self.iterations]
        found += [
            (one.after + 0.5, HistoryEntry("rollback", one.after, rollback=one))
            for one in self.champions
            if one.kind == "rollback"
        ]
        found += [
            (n - 0.3, HistoryEntry("refused", n, page=page, recorded=self.refused_at.get(n, "")))
            for n, page in self.refused.items()
        ]
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])][::-1]

    def iteration(self, n: int) -> IterationRecord | None:
        """The iteration of that number."""
        return next((found for found in self.iterations if found.n == n), None)

"""How far annotators agree: Cohen's kappa of pairs, Krippendorff's alpha of all, accuracy on gold.

Cohen's kappa (J. Cohen, A coefficient of agreement for nominal scales, 1960) of two annotators over the
episodes that both labelled: ``(p_o - p_e) / (1 - p_e)``, where ``p_o`` is the share on which they agree and
``p_e = sum over outcomes c of p_1(c) * p_2(c)``, with ``p_i(c)`` the share of c in annotator
i's answers.

Krippendorff's alpha for nominal data (K. Krippendorff, Computing Krippendorff's alpha-reliability, 2011) over
all episodes with at least two answers: ``1 - D_o / D_e``. Each ordered pair of answers on an episode with m
answers counts ``1 / (m - 1)`` in the coincidences ``o(c, k)``; with ``n(c)`` the sum of row c and n the sum
of all, ``D_o = sum of o(c, k) over c != k`` and ``D_e = sum of n(c) n(k) over c != k, divided by n - 1``.

Both are 1 for full agreement and 0 for what chance alone would give. Neither is defined (``None``) where
there is nothing to compare, or where only one outcome was ever given: agreement by chance is then certain.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators, in the order of their names: episodes both labelled, agreed on, Cohen's kappa."""

    first: str
    second: str
    n: int
    agreed: int
    kappa: float | None


@dataclass(frozen=True)
class TaskAgreement:
    """One task: episodes with two answers or more, those on which all are equal, Krippendorff's alpha."""

    task: str
    n: int
    agreed: int
    alpha: float | None


@dataclass(frozen=True)
class GoldAccuracy:
    """One annotator's answers on gold episodes, and how many of them are right."""

    annotator: str
    n: int
    correct: int


@dataclass(frozen=True)
class Agreement:
    """Over all episodes that several people labelled independently, and the gold ones.

    ``n``, ``agreed`` and ``alpha`` as in :class:`TaskAgreement`, for all tasks together.
    """

    n: int
    agreed: int
    alpha: float | None
    tasks: tuple[TaskAgreement, ...]
    pairs: tuple[PairAgreement, ...]
    gold: tuple[GoldAccuracy, ...]


@dataclass(frozen=True)
class Rated:
    """One episode's answers by annotator; ``gold`` is the certain outcome, where there is one."""

    task: str
    answers: Mapping[str, str]
    gold: str | None = None


def measure(opinions: Iterable[Rated], gold: Iterable[Rated]) -> Agreement:
    """The agreement of ``opinions`` and the accuracy of the answers in ``gold``."""
    rated = [episode for episode in opinions if len(episode.answers) >= 2]
    by_task: dict[str, list[Rated]] = defaultdict(list)
    for episode in rated:
        by_task[episode.task].append(episode)
    tasks = [TaskAgreement(task, *_whole(by_task[task])) for task in sorted(by_task)]
    return Agreement(*_whole(rated), tuple(tasks), tuple(_pairs(rated)), tuple(_accuracies(gold)))


def cohens_kappa(answers: Sequence[tuple[str, str]]) -> float | None:
    """Of the answers (first annotator's, second annotator's) on each episode; see the module."""
    n = len(answers)
    if n == 0:
        return None
    observed = sum(first == second for first, second in answers)
    first, second = Counter(a for a, _ in answers), Counter(b for _, b in answers)
    by_chance = sum(first[outcome] * second[outcome] for outcome in first)
    # As whole numbers, so that certain agreement is recognised exactly.
    return None if by_chance == n * n else (n * observed - by_chance) / (n * n - by_chance)


def krippendorffs_alpha(episodes: Iterable[Sequence[str]]) -> float | None:
    """Of each episode's answers, whoever gave them; episodes with fewer than two count for nothing."""
    totals: Counter[str] = Counter()
    disagreements = 0.0
    for answers in episodes:
        if len(answers) < 2:
            continue
        counts = Counter(answers)
        totals.update(counts)  # each answer takes part in m - 1 pairs that count 1 / (m - 1)
        different = len(answers) ** 2 - sum(count**2 for count in counts.values())
        disagreements += different / (len(answers) - 1)
    n = totals.total()
    expected = n * n - sum(count**2 for count in totals.values())
    return None if expected == 0 else 1 - (n - 1) * disagreements / expected


def _whole(rated: Sequence[Rated]) -> tuple[int, int, float | None]:
    answers = [list(episode.answers.values()) for episode in rated]
    return len(rated), sum(len(set(given)) == 1 for given in answers), krippendorffs_alpha(answers)


def _pairs(rated: Iterable[Rated]) -> list[PairAgreement]:
    common: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for episode in rated:
        for first, second in combinations(sorted(episode.answers), 2):
            common[first, second].append((episode.answers[first], episode.answers[second]))
    return [
        PairAgreement(*names, len(answers), sum(a == b for a, b in answers), cohens_kappa(answers))
        for names, answers in sorted(common.items())
    ]


def _accuracies(gold: Iterable[Rated]) -> list[GoldAccuracy]:
    right: dict[str, list[bool]] = defaultdict(list)
    for episode in gold:
        for annotator, answer in episode.answers.items():
            right[annotator].append(answer == episode.gold)
    return [GoldAccuracy(name, len(given), sum(given)) for name, given in sorted(right.items())]

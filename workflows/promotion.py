"""Is a candidate promoted, kept, or are more starts needed? The rule of the loop, told in words.

Pure: from what both policies did on the same starts so far, to a verdict. Throughput is tested as in
:mod:`workflows.promotion_looks`, reliability as in :mod:`workflows.promotion_guards`.

Measured on made-up pairs like the simulator's (``tests/workflows/promotion_samples.py``), looks after 40,
80 ... 200 starts, guard rails not asked. A candidate that is no better (453 successes an hour against 453)
was called better in 5.1 % of 16,000 evaluations (standard error 0.2), after 110 starts on average; one that
is as fast in an unlike way in 5.6 % (surer and slower: 80 % against 62 % success) and in 6.3 % (the
reverse, which the guard rail on success stops) of 6,000: the test is exact for policies that do the same,
and only nearly so for these. In 2,000 evaluations each: 728 against 453 was found in 99.95 %, after 60
starts (one look at 200: 100 %); 567 against 453 in 81 %, after 125 (87 %); 519 against 453 in 42 %, after
142 (49 %); 453 against 728 never, after 41.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pipeline.errors import InputError
from workflows.comparison import Attempt, PairedDifference
from workflows.paired_comparison import paired_difference
from workflows.promotion_guards import Guard, guards
from workflows.promotion_looks import SWAPS, Standing, standings
from workflows.promotion_rule import PromotionRule
from workflows.report_graph import Decision

BETTER = "better"
GUARD_OPEN = "better, but a guard rail is open: more starts"
HELD_BACK = "better, but a guard rail holds it back"
WORSE = "worse"
NO_USE = "no use in going on"
NOT_BETTER = "not better beyond chance"
GO_ON = "not clear yet: more starts"
_ONGOING = (GUARD_OPEN, GO_ON)
_FOUND = (BETTER, GUARD_OPEN, HELD_BACK)


@dataclass(frozen=True)
class Look:
    """One look at the results: ``difference`` in successes per hour, ``p`` and ``bound`` of the test there.

    ``chance`` is that of being found better in the end, by the results until then; ``None`` at the last look.
    """

    starts: int
    difference: float
    p: float
    bound: float
    verdict: str
    chance: float | None


@dataclass(frozen=True)
class Verdict:
    """What is known after the starts so far, about a candidate that met ``reference``."""

    reference: str
    most_starts: int
    rule: PromotionRule
    difference: PairedDifference
    looks: tuple[Look, ...]
    guards: tuple[Guard, ...]

    @property
    def starts(self) -> int:
        """How many starts the last look was at."""
        return self.looks[-1].starts

    @property
    def is_open(self) -> bool:
        """Whether another round of starts is needed."""
        return self.looks[-1].verdict in _ONGOING

    def decision(self) -> Decision:
        """As the ledger and the report have it. Raises ``ValueError`` while it is open."""
        if self.is_open:
            raise ValueError(f"nothing is decided after {self.starts} of {self.most_starts} starts")
        return Decision(
            promoted=self.looks[-1].verdict == BETTER,
            reason=self._reason(),
            rule=self.rule.words(self.most_starts),
            looks=tuple(asdict(look) for look in self.looks),
            guards=tuple(asdict(guard) for guard in self.guards),
        )

    def _reason(self) -> str:
        last, name = self.looks[-1], self.reference
        gain = self.difference.successes_per_hour
        facts = f"{gain.value:+.0f} successes per hour [{gain.low:+.0f}, {gain.high:+.0f}], {_chance(last.p)}"
        on = f"on the same {self.starts} starts"
        early = f"; decided after {self.starts} of {self.most_starts} starts"
        early = early if self.starts < self.most_starts else ""
        # The test may have said so earlier; what the wait for a guard rail then showed is told beside it.
        found = next((look for look in self.looks if look.verdict in _FOUND), last)
        first = f"{found.difference:+.0f} successes per hour, {_chance(found.p)}"
        if last.verdict == BETTER and found is not last:
            return (
                f"promoted: better than {name} on the same {found.starts} starts ({first}; a guard rail was "
                f"open then), and no guard rail was broken after {self.starts} ({facts}){early}"
            )
        if last.verdict == BETTER:
            return f"promoted: better than {name} {on} ({facts}), and no guard rail was broken{early}"
        if last.verdict == HELD_BACK and found is not last:
            facts = f"{first} on the same {found.starts} starts; {facts} after {self.starts}"
        if last.verdict == HELD_BACK:
            held = [guard.words() for guard in self.guards if guard.holds_back(not early)]
            others = f", and {len(held) - 1} more guard rails are broken" if len(held) > 1 else ""
            others = others.replace("1 more guard rails are", "1 more guard rail is")
            return f"kept {name}: the candidate is faster ({facts}), but {on} it {held[0]}{others}{early}"
        if last.verdict == WORSE:
            facts = facts.rpartition(",")[0]
            return f"kept {name}: the candidate is worse {on} ({facts}){early}"
        if last.verdict == NO_USE:
            chance = "under 0.1 %" if (last.chance or 0) < 0.001 else f"{100 * (last.chance or 0):.1f} %"
            return (
                f"kept {name}: not better beyond chance {on} ({facts}); given up after {self.starts} of "
                f"{self.most_starts} starts, the chance to find it better in the end was {chance}"
            )
        return f"kept {name}: {NOT_BETTER} {on} ({facts})"


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def judge(
    candidate: Sequence[Attempt],
    reference: Sequence[Attempt],
    name: str,
    starts: int,
    rule: PromotionRule,
    swaps: int = SWAPS,
) -> Verdict:
    """The verdict about a candidate that met ``name`` on the same starts, ``starts`` of them at most.

    What was run beyond the look that decided is not looked at. Raises ``InputError`` where the starts are not
    the same, or fewer than those of the first look.
    """
    planned = rule.looks(starts)
    found = standings(candidate, reference, planned, rule.significance, swaps)
    if not found:
        raise InputError(f"{len(candidate)} starts were evaluated, and the first look is after {planned[0]}")
    looks: list[Look] = []
    for standing in found:
        so_far = candidate[: standing.starts], reference[: standing.starts]
        difference = paired_difference(*so_far, swaps)
        rails = tuple(guards(*so_far, rule))
        gain = difference.successes_per_hour.value
        word = verdict_of_look(standing, gain, rails, standing.starts == planned[-1], rule)
        looks.append(Look(standing.starts, gain, standing.p, standing.bound, word, standing.chance))
        if word not in _ONGOING:
            break
    return Verdict(name, starts, rule, difference, tuple(looks), rails)


def verdict_of_look(
    standing: Standing, gain: float, rails: Sequence[Guard], last: bool, rule: PromotionRule
) -> str:
    """The verdict of one look."""
    # What was better beyond chance once stays so, while more starts are run for a guard rail.
    if standing.better and gain > 0:
        if any(guard.holds_back(last) for guard in rails):
            return HELD_BACK
        return GUARD_OPEN if not last and any(guard.verdict == "open" for guard in rails) else BETTER
    if standing.worse:
        return WORSE
    if standing.chance is not None and standing.chance < rule.least_chance:
        return NO_USE
    return NOT_BETTER if last else GO_ON


def compared(
    attempts: Mapping[str, list[Attempt]], candidate: str, reference: str, decision: Decision
) -> dict[str, PairedDifference]:
    """The candidate against each other policy, by one and the same test.

    Against ``reference`` it is better as the decision says, which may have looked several times; against the
    others the test is looked at once, after all starts that were run.
    """
    found = {
        name: paired_difference(attempts[candidate], others)
        for name, others in attempts.items()
        if name != candidate
    }
    found[reference] = as_decided(found[reference], decision)
    return found


def as_decided(difference: PairedDifference, decision: Decision) -> PairedDifference:
    """The difference to whom the candidate had to beat, as the decision's own looks have it."""
    if not decision.looks:
        return difference
    last = decision.looks[-1]
    return replace(difference, p_value=float(last["p"]), better=last["verdict"] in (BETTER, HELD_BACK))

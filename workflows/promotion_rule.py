"""The numbers of the rule by which a candidate is promoted, and the rule in words."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from pipeline.errors import InputError
from pipeline.site_promotion import LEAST_SIGNIFICANCE, PromotionSection
from workflows.comparison import LARGEST_SUCCESS_LOSS, SIGNIFICANCE


@dataclass(frozen=True)
class PromotionRule:
    """When an evaluation stops, and what a candidate must not do worse to be promoted.

    ``stop_early``: the evaluation is looked at after every ``round_starts`` starts and ends as soon as it is
    decided; else once, after all. ``significance`` is the chance, over all looks together, to call a
    candidate better that is as good as what it is compared with. An evaluation whose candidate has by its
    results so far a chance below ``least_chance`` to be found better in the end is given up. The guard rails:
    the success rate may be lower by ``success_loss`` at most, that of a single task by ``task_success_loss``
    (shares, 0 to 1), and there may be ``more_interventions`` more interventions an attempt.
    """

    stop_early: bool = False
    round_starts: int = 40
    significance: float = SIGNIFICANCE
    least_chance: float = 0.05
    success_loss: float = LARGEST_SUCCESS_LOSS
    task_success_loss: float = 0.10
    more_interventions: float = 0.0

    def __post_init__(self) -> None:
        """Rejects what no evaluation can be decided by."""
        if self.round_starts < 2:
            raise InputError(f"a round of {self.round_starts} starts: it needs 2 or more")
        if not LEAST_SIGNIFICANCE <= self.significance < 0.5:
            raise InputError(
                f"a significance of {self.significance}: it lies from {LEAST_SIGNIFICANCE:g}, the least that "
                "the test's swaps resolve, to below 0.5"
            )
        if not 0 <= self.least_chance < 0.5:
            raise InputError(f"a least chance of {self.least_chance}: it lies between 0 and 0.5")

    def with_site(self, said: PromotionSection, *, sizes: bool = True) -> PromotionRule:
        """The rule with what ``[promotion]`` says; without ``sizes`` rounds stay as long as they are."""
        known = {f.name for f in fields(self)} - (set() if sizes else {"round_starts"})
        changes = {name: found for name in known if (found := getattr(said, name)) is not None}
        return replace(self, **changes)

    def rounds(self, starts: int) -> list[int]:
        """After how many starts each round ends, of an evaluation on ``starts`` at most."""
        return [*range(self.round_starts, starts, self.round_starts), starts]

    def looks(self, starts: int) -> list[int]:
        """After how many starts the results are looked at: after every round, or once."""
        return self.rounds(starts) if self.stop_early else [starts]

    def words(self, starts: int) -> str:
        """The rule in words, for an evaluation on ``starts`` at most."""
        looks = self.looks(starts)
        when = (
            f"after every {self.round_starts} starts, {len(looks)} looks at most"
            if len(looks) > 1
            else "once"
        )
        more = self.more_interventions
        allowed = (
            f"at most {100 * more:g} more interventions in 100 attempts" if more else "no more interventions"
        )
        return (
            "Promoted where it makes more successes per robot hour on the same starts, by a one-sided paired "
            f"sign-swap test with {100 * self.significance:g} % error in all, looked at {when} ({starts} "
            f"starts at most); success rate at most {100 * self.success_loss:g} points lower, of no task "
            f"more than {100 * self.task_success_loss:g} points lower beyond chance, and {allowed} "
            "beyond chance."
        )

"""One policy against another on the same starts: how much better, and whether that is beyond chance.

All comparisons rest on this: the tables of reports, the last lines of a turn, and 'recap policy evaluate'.
How much it is has a bootstrap interval; whether it is beyond chance says the sign-swap test of
:mod:`workflows.promotion_looks`, looked at once, the test that also decides on a promotion. At the margin the
two may seem to differ: the interval is two-sided.

Why not the bootstrap's own p-value, the share of resamples that are no better: it is too small for few
starts. Called better at 5 %, of 4,000 pairs of made-up evaluations (``tests/workflows/promotion_samples.py``;
standard error 0.3 %) of two policies with equal successes per hour:

======================================  ========  =========  =========  ==========  ==========
the two policies                        8 starts  20 starts  40 starts  100 starts  200 starts
======================================  ========  =========  =========  ==========  ==========
the same, 62 % success: this test       3.5 %     5.5 %      5.6 %      5.3 %       4.6 %
the same, 62 % success: bootstrap       10.6 %    7.5 %      6.2 %      5.6 %       4.7 %
the same, 10 % success: this test       0.0 %     0.9 %      4.3 %      4.3 %       5.2 %
the same, 10 % success: bootstrap       1.4 %     7.2 %      7.4 %      4.8 %       5.4 %
surer and slower (80 %): this test      2.1 %     5.2 %      5.5 %      6.4 %       5.9 %
surer and slower (80 %): bootstrap      6.5 %     5.4 %      5.4 %      5.3 %       5.0 %
the reverse: this test                  9.2 %     7.0 %      6.3 %      6.8 %       5.9 %
the reverse: bootstrap                  10.4 %    7.4 %      5.8 %      6.2 %       5.3 %
======================================  ========  =========  =========  ==========  ==========

For policies that do the same the test is exact, whatever the number of starts; for those that are as fast in
an unlike way it is nearly so, and the bootstrap is a little nearer from 100 starts on.
"""

from __future__ import annotations

from collections.abc import Sequence

from workflows.comparison import SIGNIFICANCE, Attempt, PairedDifference, paired_intervals
from workflows.promotion_looks import SWAPS, standings


def paired_difference(
    candidate: Sequence[Attempt], reference: Sequence[Attempt], swaps: int = SWAPS
) -> PairedDifference:
    """Candidate against reference; raises ``InputError`` when the starts are not the same.

    Of ``t`` starts that tell the two apart not even all one way can come to a p-value below ``2 ** -t``:
    where that is above :data:`SIGNIFICANCE`, nothing is better.
    """
    per_hour, rate = paired_intervals(candidate, reference)
    (standing,) = standings(candidate, reference, [len(candidate)], SIGNIFICANCE, swaps)
    least = least_p(telling_starts(candidate, reference))
    return PairedDifference(
        successes_per_hour=per_hour,
        success_rate=rate,
        p_value=max(standing.p, least),  # random swaps may miss the least by a little
        better=standing.better and least <= SIGNIFICANCE,
    )


def telling_starts(candidate: Sequence[Attempt], reference: Sequence[Attempt]) -> int:
    """How many starts tell the two apart: by success, or, where anything succeeded, by the time it took."""
    any_success = any(attempt.success for attempt in (*candidate, *reference))
    return sum(
        c.success != r.success or (any_success and c.seconds != r.seconds)
        for c, r in zip(candidate, reference, strict=True)
    )


def least_p(telling: int) -> float:
    """The least p-value that ``telling`` starts can come to: that of all their swaps, where all agree."""
    return 0.5**telling

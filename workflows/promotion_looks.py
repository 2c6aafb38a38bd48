r"""Is the candidate faster on the same starts? A test that may be asked after every round.

The pairs. Start ``i`` gives the candidate's and the reference's success (0 or 1) and robot seconds; ``ds_i``
and ``dt_i`` are candidate minus reference. With ``r``, the successes per second of both policies together,
the contrast of a start is ``z_i = ds_i - r dt_i``. Its sum has the sign of the difference in successes per
robot hour: it is twice what the candidate's successes exceed those that the common rate would give in its
time.

One look. Where the policies are equally good, which of the two results of a start is the candidate's is a
coin's toss, which would turn the sign of ``z_i``; ``r`` is the same either way. So the sum is compared with
sums under random swaps, the observed one counted among them (Phipson & Smyth 2010, "Permutation p-values
should never be zero", eq. 2). As ``sum z_i^2`` does not change by swaps either, it is the studentized test
too, which for policies that are equally fast in unlike ways holds asymptotically (Janssen 1997; Romano 1990).

Several looks. After ``n`` of at most ``N`` starts, ``alpha n / N`` of all error may have been spent: Lan &
DeMets 1983 ("Discrete sequential boundaries for clinical trials", Biometrika 70, eq. 2) with the spending
function ``alpha t`` (Kim & DeMets 1987, rho = 1). Each swap is a path over all looks; at a look the highest
paths are struck out, as many as have been allowed for by then, and ties that do not all fit stay. An observed
path that is struck out is better beyond chance. Among exchangeable paths the observed one is struck out with
probability ``alpha`` at most, whatever the number of starts: exact, as in Mehta et al. 1994 ("Exact
permutational tests for group sequential clinical trials", Biometrics 50). The same from below says that the
candidate is worse.

No use in going on. With the sum in its standard errors ``Z`` at ``t = n / N``, and nothing known beforehand,
the chance to end above ``c = z_(1 - alpha)`` is ``Phi((Z - c sqrt t) / sqrt(1 - t))``: predictive power,
Spiegelhalter, Freedman & Blackburn 1986 (Controlled Clinical Trials 7). Giving up can only make promotions
rarer, so it costs no error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from workflows.comparison import Attempt, require_same_starts

SWAPS = 9999
"""Random swaps; with the observed results there are 10,000 paths."""
_SEED = 20_120_731
# Sums that differ by less are equal: rounding must not break a tie.
_DIGITS = 9


@dataclass(frozen=True)
class Standing:
    """Where the test stands after ``starts`` pairs.

    ``p`` is one-sided, for "not better", as if this look were the only one; ``bound`` is what it may be at
    most to count at this look, 0 where nothing could. ``better`` and ``worse``: beyond chance, at this look
    or an earlier one. ``chance``: of being better beyond chance in the end, ``None`` at the last look.
    """

    starts: int
    p: float
    bound: float
    better: bool
    worse: bool
    chance: float | None


def error_spent(share: float, significance: float) -> float:
    """How much error may have been made after this share of all starts (0 to 1)."""
    return significance * min(share, 1.0)


def standings(
    candidate: Sequence[Attempt],
    reference: Sequence[Attempt],
    looks: Sequence[int],
    significance: float,
    swaps: int = SWAPS,
) -> list[Standing]:
    """Where the test stood at each of ``looks`` (numbers of starts, ascending) that there are starts for.

    The last of ``looks`` is the most that may be made. Raises ``InputError`` where the starts are not the
    same.
    """
    require_same_starts(candidate, reference)
    success = np.array([[a.success for a in one] for one in (candidate, reference)], float)
    seconds = np.array([[a.seconds for a in one] for one in (candidate, reference)], float)
    ds, dt = success[0] - success[1], seconds[0] - seconds[1]
    sums_s, sums_t = np.zeros(swaps + 1), np.zeros(swaps + 1)
    upper, lower = _Paths(swaps + 1), _Paths(swaps + 1)
    found: list[Standing] = []
    begun = 0
    for starts in looks:
        if starts > len(ds):
            break
        for i in range(begun, starts):
            signs = _signs(i, swaps)
            sums_s += signs * ds[i]
            sums_t += signs * dt[i]
        begun = starts
        rate = success[:, :starts].sum() / max(seconds[:, :starts].sum(), 1e-9)
        z = ds[:starts] - rate * dt[:starts]
        sums = np.round(sums_s - rate * sums_t, _DIGITS)
        allowed = error_spent(starts / looks[-1], significance)
        bound = upper.strike(sums, allowed)
        lower.strike(-sums, allowed)
        found.append(
            Standing(
                starts=starts,
                p=float(np.mean(sums >= sums[0])),
                bound=float(np.mean(sums >= bound)),
                better=bool(upper.struck[0]),
                worse=bool(lower.struck[0]) and not upper.struck[0],
                chance=_chance(z, starts / looks[-1], significance) if starts < looks[-1] else None,
            )
        )
    return found


class _Paths:
    """All paths of a one-sided test, the observed one first, and which of them are struck out."""

    def __init__(self, paths: int) -> None:
        self.struck = np.zeros(paths, bool)

    def strike(self, sums: np.ndarray, allowed: float) -> float:
        """Strikes out the highest living paths, up to the share ``allowed`` of all; the lowest such sum.

        Infinity where none may be.
        """
        room = math.floor(allowed * len(sums) + 1e-9) - int(self.struck.sum())
        living = np.sort(sums[~self.struck])[::-1]
        if room <= 0 or not len(living):
            return math.inf
        fitting = living[:room]
        if room < len(living):
            # A tie that does not fit as a whole stays as a whole.
            fitting = fitting[fitting > living[room]]
        if not len(fitting):
            return math.inf
        bound = float(fitting[-1])
        self.struck |= sums >= bound
        return bound


def _chance(z: np.ndarray, share: float, significance: float) -> float:
    """Predictive power of the contrasts so far, after this share of all starts."""
    normal = NormalDist()
    height = float(z.sum()) / max(math.sqrt(float((z**2).sum())), 1e-12)
    critical = normal.inv_cdf(1 - significance)
    return normal.cdf((height - critical * math.sqrt(share)) / math.sqrt(1 - share))


@lru_cache(maxsize=4096)
def _signs(start: int, swaps: int) -> np.ndarray:
    """+1 or −1 for start number ``start`` on each path, whatever rounds are made; int8, read-only."""
    drawn = np.random.default_rng((_SEED, start)).integers(0, 2, swaps, dtype=np.int8)
    signs = np.concatenate([np.ones(1, np.int8), 2 * drawn - 1])
    signs.setflags(write=False)
    return signs

"""Values as a distribution over 201 bins on [−1, 0]: targets for cross-entropy, and back to numbers.

Two ways to turn a return into a target, both with the return as their expectation:

* *two-hot*: the mass on the two nearest bin centres, in proportion to how near they are;
* *HL-Gauss* (Farebrother et al., "Stop regressing", arXiv 2403.03950): the mass of a Gaussian around
  the return that falls into each bin, which tells neighbouring bins that they are neighbours. The
  Gaussian is cut off at the ends of the support, so near −1 and 0 its expectation is biased inwards
  by at most about one standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import InputError

BIN_COUNT = 201
LOW, HIGH = -1.0, 0.0
# How far outside the support rounding may put a value before it counts as a mistake.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class ValueBins:
    """``count`` bin centres spread evenly over [``LOW``, ``HIGH``], both ends included."""

    count: int = BIN_COUNT

    def __post_init__(self) -> None:
        if self.count < 3 or self.count % 2 == 0:
            raise InputError(f"{self.count} value bins: use an odd number, 3 or more, so that one is central")

    @property
    def width(self) -> float:
        """The distance between two neighbouring centres."""
        return (HIGH - LOW) / (self.count - 1)

    @property
    def centres(self) -> Tensor:
        """The bin centres, float32 ``(count,)``, ascending."""
        return torch.linspace(LOW, HIGH, self.count)

    def two_hot(self, values: Tensor) -> Tensor:
        """Targets ``(N, count)`` float32 for the ``values`` ``(N,)``: mass on the two nearest centres.

        Raises ``InputError`` when a value is NaN or outside [−1, 0].
        """
        position = (_checked(values).double() - LOW) / self.width
        lower = position.floor().clamp(0, self.count - 2).long()
        upper_mass = position - lower
        targets = torch.zeros(len(values), self.count, dtype=torch.float64, device=values.device)
        targets.scatter_(1, lower[:, None], (1 - upper_mass)[:, None])
        targets.scatter_(1, lower[:, None] + 1, upper_mass[:, None])
        return targets.float()

    def hl_gauss(self, values: Tensor, deviation_bins: float = 2.0) -> Tensor:
        """Targets ``(N, count)`` float32: a Gaussian around each value, integrated over each bin.

        ``deviation_bins`` is its standard deviation in bin widths. Raises ``InputError`` when it is
        not positive, or a value is NaN or outside [−1, 0].
        """
        if deviation_bins <= 0:
            raise InputError(f"HL-Gauss deviation is {deviation_bins} bins: use a positive number")
        indices = torch.arange(self.count + 1, dtype=torch.float64, device=values.device)
        edges = LOW + (indices - 0.5) * self.width
        scaled = (edges[None] - _checked(values).double()[:, None]) / (deviation_bins * self.width)
        below = torch.special.ndtr(scaled)
        mass = below.diff(dim=1)
        return (mass / (below[:, -1:] - below[:, :1])).float()

    def expectation(self, logits: Tensor) -> Tensor:
        """The expected value ``(N,)`` float32 of the distributions with the given ``(N, count)`` logits.

        Logits may be bfloat16: everything after them is computed in float32.
        """
        return self.expectation_of(torch.softmax(logits.float(), dim=-1))

    def expectation_of(self, probabilities: Tensor) -> Tensor:
        """The expected value ``(N,)`` of ``(N, count)`` probabilities: float64 of float64, else float32.

        Summed in mirrored pairs around the central bin, so that a distribution symmetric about the
        centre gives exactly −0.5 and mirrored ones give mirrored values; a plain sum of products
        drifts with the order of its terms (the remedy of DreamerV3, arXiv 2301.04104).
        """
        if probabilities.dtype != torch.float64:
            # bfloat16 has three digits: sums over 201 bins would be off by more than a bin.
            probabilities = probabilities.float()
        half = self.count // 2
        lower = probabilities[..., :half]
        upper = probabilities[..., half + 1 :].flip(-1)
        steps = half - torch.arange(half, dtype=probabilities.dtype, device=probabilities.device)
        return (LOW + HIGH) / 2 + ((upper - lower) * steps).sum(-1) * self.width


def _checked(values: Tensor) -> Tensor:
    """``values`` with rounding errors at the ends removed; see the callers for what is raised."""
    if values.ndim != 1:
        raise InputError(f"values have shape {tuple(values.shape)}: use one dimension")
    inside = (values >= LOW - _ROUNDING) & (values <= HIGH + _ROUNDING)
    if not bool(inside.all()):
        worst = values[~inside][0].item()
        raise InputError(f"value {worst} is not in [{LOW}, {HIGH}]: is the normaliser of another data set?")
    return values.clamp(LOW, HIGH)

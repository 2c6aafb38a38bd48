"""How the gate says numbers."""

from __future__ import annotations


def number(value: float) -> str:
    """Two decimals; a p-value or an error so small that they would be 0.00 is said to be below 0.01."""
    return "below 0.01" if 0 < value < 0.005 else f"{value:.2f}"


def hundredths(share: float) -> str:
    """A share as a count of 100, whole."""
    return f"{100 * share:.0f}"


def of_hundred(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.0f} %"

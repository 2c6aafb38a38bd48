"""How far a stick is pushed, and what that means: dead zone, response curve, limit on speed."""

from __future__ import annotations

import math

import numpy as np


def response(deflection: float, dead_zone: float, curve: float) -> float:
    """What a deflection of −1..1 asks for, as a share of full speed, −1..1.

    Zero within ``dead_zone`` (0 ≤ … < 1) and continuous at its edge, so that leaving it does not jump; odd
    and monotone. ``curve`` (0..1) blends a straight line into a cubic one, which is finer near the middle.
    What is beyond full deflection counts as full; what is not a number counts as nothing.
    """
    if not math.isfinite(deflection):
        return 0.0
    beyond = (min(abs(deflection), 1.0) - dead_zone) / (1.0 - dead_zone)
    if beyond <= 0.0:
        return 0.0
    return math.copysign(min((1.0 - curve) * beyond + curve * beyond**3, 1.0), deflection)


def at_most(vector: np.ndarray, longest: float) -> np.ndarray:
    """``vector`` with its length limited to ``longest``, in its own direction."""
    length = float(np.linalg.norm(vector))
    return vector if length <= longest else vector * (longest / length)

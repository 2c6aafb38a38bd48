"""Refuses numbers that no arm can have meant: a wrong unit, scale or action space in the mapping."""

from __future__ import annotations

import numpy as np

from pipeline.episode_defects import JOINT_LIMIT_RAD, TWIST_LIMITS
from pipeline.errors import InputError
from pipeline.exchange.mapped_fields import MappedFields


def require_plausible(fields: MappedFields) -> None:
    """Raises ``InputError`` that names the worst number and what in the mapping is likely to be wrong.

    Fields that are missing, and so NaN, are passed over.
    """
    joints = fields.state["joint_positions"]
    if "joint_positions" not in fields.missing and np.abs(joints).max() > JOINT_LIMIT_RAD:
        raise InputError(
            f"joint_positions reach {np.abs(joints).max():.3g} rad: they look like degrees, give "
            'unit = "deg" in the mapping'
        )
    if "action" in fields.missing:
        return
    for part, limit, unit, verb in (
        (slice(0, 3), TWIST_LIMITS[0], "m/s", "move"),
        (slice(3, 6), TWIST_LIMITS[1], "rad/s", "turn"),
    ):
        speed = np.linalg.norm(fields.action[:, part].astype(np.float64), axis=1)
        if speed.max() > limit:
            raise InputError(
                f"the actions would {verb} the tool at {speed.max():.3g} {unit} (frame {speed.argmax()}): "
                "check the action's space, unit and scale"
            )

"""Numbers that no arm can have meant are refused, and those just below the limits are not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.exchange.mapped_fields import Recording, mapped_fields
from pipeline.exchange.mapping_file import parse_mapping
from pipeline.exchange.plausibility import require_plausible


def recording(columns: dict[str, np.ndarray]) -> Recording:
    return Recording(columns, {}, 3, 10.0, "arm")


@pytest.mark.parametrize(
    ("joint", "twist", "message"),
    [
        (25.2, (0, 0, 0, 0, 0, 0), 'joint_positions reach 25.2 rad: .* unit = "deg"'),
        (25.1, (3, 4, 0.1, 0, 0, 0), r"move the tool at 5 m/s \(frame 1\): check the action's space"),
        (-25.1, (3, 3.9, 0, 0, 0, 25.1), "turn the tool at 25.1 rad/s"),
        (-25.1, (3, 3.9, 0, 0, 0, 24.9), None),
    ],
)
def test_numbers_that_no_arm_means(joint: float, twist: tuple[float, ...], message: str | None) -> None:
    mapping = parse_mapping(
        {
            "joint_positions": {"column": "j"},
            "action": {
                "space": "twist",
                "translation": {"column": "a", "indices": [0, 1, 2]},
                "rotation": {"column": "a", "indices": [3, 4, 5], "convention": "rotation_vector"},
                "gripper": {"column": "a", "indices": [6]},
            },
        }
    )
    columns = {"j": np.zeros((3, 7)), "a": np.zeros((3, 7))}
    columns["j"][2, 4], columns["a"][1, :6] = joint, twist
    fields = mapped_fields(recording(columns), mapping)
    if message is None:
        require_plausible(fields)
    else:
        with pytest.raises(InputError, match=message):
            require_plausible(fields)
    require_plausible(mapped_fields(recording({"a": columns["a"]}), parse_mapping({})))

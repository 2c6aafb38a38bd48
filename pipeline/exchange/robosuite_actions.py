"""What a robosuite controller makes of an action, from the configuration that robomimic files carry.

robosuite up to 1.4 has one ``controller_configs`` for the arm; 1.5 has one for each part of the body. Its
operational-space controllers clip each number to [input_min, input_max], map that range linearly to
[output_min, output_max], and move the tool by so much in one control step: a translation in m and a
rotation vector in rad, both in the base's axes, the rotation applied on the left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.exchange.action_spaces import ActionSpace
from pipeline.exchange.column_mapping import Action, Gripper, Orientation, Selection

_ACTIONS = "actions"
_POSE, _POSITION = "OSC_POSE", "OSC_POSITION"


def robosuite_action(settings: Mapping[str, Any], shape: tuple[int, ...]) -> Action | None:
    """What ``actions`` of that shape a frame mean; ``None`` for a controller that is not of the tool's pose.

    ``settings`` are the ``env_kwargs`` of the file.
    """
    arm = _arm_controller(settings.get("controller_configs"))
    kind = str(arm.get("type"))
    width = {_POSE: 7, _POSITION: 4}.get(kind)
    if width is None or shape != (width,):
        return None
    gripper = Gripper(_ACTIONS, indices=(width - 1,), open=-1.0, closed=1.0)
    translation = Selection(_ACTIONS, indices=(0, 1, 2), unit="m")
    rotation = Orientation(_ACTIONS, indices=(3, 4, 5), unit="rad", convention="rotation_vector")
    if arm.get("control_delta") is False or arm.get("input_type") == "absolute":
        if kind == _POSITION:
            return None
        return Action(ActionSpace.ABSOLUTE_POSE, gripper, translation, rotation)
    scaling = _scaling(arm, 6 if kind == _POSE else 3)
    if scaling is None:
        return None
    return Action(
        ActionSpace.DELTA_POSE,
        gripper,
        translation,
        rotation if kind == _POSE else None,
        scale=scaling[0],
        offset=scaling[1],
        clip=True,
    )


def controller_name(settings: Mapping[str, Any]) -> str:
    """The type of the arm's controller, or ``(not named)``; ``settings`` as for :func:`robosuite_action`."""
    kind = _arm_controller(settings.get("controller_configs")).get("type")
    return str(kind) if kind else "(not named)"


def _arm_controller(configuration: Any) -> Mapping[str, Any]:
    if isinstance(configuration, list) and configuration:
        configuration = configuration[0]
    if not isinstance(configuration, Mapping):
        return {}
    parts = configuration.get("body_parts")
    if isinstance(parts, Mapping):
        arm = parts.get("right", parts.get("arms", {}))
        if isinstance(arm, Mapping) and "right" in arm:
            arm = arm["right"]
        return arm if isinstance(arm, Mapping) else {}
    return configuration


def _scaling(arm: Mapping[str, Any], width: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Factor and offset (6 each) from an action in [-1, 1]; ``None`` for a configuration that is not such."""
    try:
        ends = {
            name: np.broadcast_to(np.asarray(arm.get(name, default), dtype=float), (width,))
            for name, default in (
                ("input_min", -1),
                ("input_max", 1),
                ("output_min", None),
                ("output_max", None),
            )
        }
    except (TypeError, ValueError):
        return None
    if not all(np.isfinite(values).all() for values in ends.values()):
        return None
    if (ends["input_min"] != -1).any() or (ends["input_max"] != 1).any():
        return None
    scale = (ends["output_max"] - ends["output_min"]) / 2
    offset = (ends["output_max"] + ends["output_min"]) / 2
    rest = (0.0,) * (6 - width)
    return (*scale.tolist(), *rest), (*offset.tolist(), *rest)

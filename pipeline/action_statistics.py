"""Statistics of actions, per robot and action space, and the scaling that policies are trained with.

The scaling is RoboVLMs' (Li et al., arXiv 2412.14058): every component is clipped to its 1st and 99th
percentile over the training data and scaled to [−1, 1]. As there, the gripper is left out of that and
keeps its own range: the percentiles of a gripper that rarely moves would keep it from moving at all.

Statistics come exactly from an array, or from a :class:`pipeline.action_sketch.ActionSketch` that any
number of processes may fill and merge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from pipeline.episode import ACTION_NAMES
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names

if TYPE_CHECKING:
    import torch

LOW, HIGH = 0.01, 0.99
"""The quantiles that actions are clipped to."""

_GRIPPER = ACTION_NAMES[-1]
_VECTORS = ("q01", "q99", "min", "max", "mean", "std")


@dataclass(frozen=True)
class ActionStatistics:
    """What is known of ``count`` actions of one robot in one action space, per component, in its units.

    ``q01`` and ``q99`` are the 1st and 99th percentile, ``std`` the standard deviation of the whole
    (divided by n). ``robot`` is the recordings' robot name.
    """

    robot: str
    action_space: ActionSpace
    count: int
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ``InputError`` for no actions and for vectors of a wrong length."""
        if self.count < 1:
            raise InputError(f"there is no action of robot {self.robot!r} to take statistics of")
        for name in _VECTORS:
            if len(getattr(self, name)) != len(self.names):
                raise InputError(
                    f"action statistics: {name} has {len(getattr(self, name))} components, the action "
                    f"space {self.action_space} has {len(self.names)}"
                )

    @classmethod
    def from_actions(
        cls, actions: np.ndarray, robot: str = "", action_space: ActionSpace = ActionSpace.TWIST
    ) -> Self:
        """The exact statistics of ``actions`` (N, k); of float32 actions, computed in float32.

        Raises ``InputError`` for no actions, a wrong width, and numbers that are not finite.
        """
        if actions.ndim != 2 or not np.isfinite(actions).all():
            raise InputError(f"actions for statistics must be finite and (N, k), not {actions.shape}")
        if not len(actions):
            raise InputError(f"there is no action of robot {robot!r} to take statistics of")
        quantiles = np.quantile(actions, [LOW, HIGH], axis=0)
        vectors = (
            quantiles[0],
            quantiles[1],
            actions.min(0),
            actions.max(0),
            actions.mean(0),
            actions.std(0),
        )
        return cls(robot, action_space, len(actions), *(tuple(map(float, v)) for v in vectors))

    @property
    def names(self) -> tuple[str, ...]:
        """The components, in order."""
        return action_names(self.action_space)

    def normalise(self, actions: np.ndarray) -> np.ndarray:
        """``actions`` (..., k) clipped to the 1st and 99th percentile and scaled to [−1, 1], float32.

        The gripper's target goes from −1 open to 1 closed whatever its percentiles. A component whose
        percentiles are equal becomes 0. NaN stays NaN.
        """
        low, high = self._bounds()
        values = np.asarray(actions, dtype=np.float64)
        width = np.where(high > low, high - low, 1.0)
        scaled = 2 * (np.clip(values, low, high) - low) / width - 1
        return np.where(high > low, scaled, 0 * values).astype(np.float32)

    def denormalise(self, actions: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`normalise`: values in [−1, 1] (..., k) in the action space's units, float32.

        What was clipped stays at its bound; a component whose percentiles are equal gets their value.
        """
        low, high = self._bounds()
        values = np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        return (low + (values + 1) / 2 * (high - low)).astype(np.float32)

    def to_json(self) -> str:
        """As JSON text, exact to the last bit."""
        return json.dumps({**asdict(self), "names": self.names})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of :meth:`to_json`. Raises ``InputError`` for anything else."""
        try:
            values = json.loads(text)
            return cls(
                robot=str(values["robot"]),
                action_space=ActionSpace(values["action_space"]),
                count=int(values["count"]),
                **{name: tuple(float(v) for v in values[name]) for name in _VECTORS},
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"these are no action statistics: {error}") from error

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array(self.q01), np.array(self.q99)
        gripper = np.array([name == _GRIPPER for name in self.names])
        return np.where(gripper, 0.0, low), np.where(gripper, 1.0, high)


def statistics_to_json(statistics: Sequence[ActionStatistics]) -> str:
    """Several robots' or action spaces' statistics as one JSON list."""
    return f"[{', '.join(s.to_json() for s in statistics)}]"


def statistics_from_json(text: str) -> list[ActionStatistics]:
    """The inverse of :func:`statistics_to_json`. Raises ``InputError`` for anything else."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"these are no action statistics: {error}") from error
    if not isinstance(values, list):
        raise InputError("these are no action statistics: expected a list")
    return [ActionStatistics.from_json(json.dumps(value)) for value in values]


def action_statistics(actions: np.ndarray) -> dict[str, torch.Tensor]:
    """Per component of ``actions`` (N, 7): what LeRobot's normaliser may ask for, float32 (7,) each."""
    import torch

    exact = ActionStatistics.from_actions(actions)
    return {
        name: torch.tensor(getattr(exact, name), dtype=torch.float64).to(torch.float32)
        for name in ("q01", "q99", "mean", "std", "min", "max")
    }

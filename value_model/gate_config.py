"""The gate's bounds, each with its reason: from what a useless model gives, or from what harms a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from pipeline.errors import InputError
from pipeline.site_config import require_known_keys


@dataclass(frozen=True)
class GateConfig:
    """What values must measure up to; ``[gate]`` of ``recap.toml`` may set each by its name.

    An AUC is a chance from 0 to 1, calibration errors are in units of the return (the whole range is
    1). ``warn_…`` is where a warning begins, ``fail_…`` where the gate closes.
    """

    # Below ten, one episode more or less moves an AUC by 0.05 or more: nothing is judged by so few.
    fewest_episodes: int = 10
    # The chance that a useless model passes the tests against shuffled outcomes.
    significance: float = 0.05
    # Alarms are rarer events: several of them are asked at once and all should stay quiet on sound data.
    alarm_significance: float = 0.01
    # p-values then come in steps of 1/401, fine enough for 0.01.
    permutations: int = 400
    # A useless model gives 0.5. With many episodes 0.55 is beyond chance and still orders 9 of 20 wrongly.
    fail_auc: float = 0.6
    warn_auc: float = 0.7
    # At equal ages, over the clock: one pair in twenty more is too little to tell a policy anything.
    fail_clock_margin: float = 0.05
    # 0.05 is what a careful model reaches. At 0.15 the error exceeds what ten frames of progress are worth
    # in an episode of fifty, so that the last frames, where the return itself enters, win or lose wholesale.
    warn_calibration_error: float = 0.05
    fail_calibration_error: float = 0.15
    # A value that ignores progress gives 0; 0.3 explains a tenth of the order of the frames.
    fail_rank_correlation: float = 0.3
    warn_rank_correlation: float = 0.6
    # Calibrated values spread as much as returns times their correlation: 0.1 explains 1 % of the variance.
    fail_spread: float = 0.1
    warn_spread: float = 0.25
    # Scenes differ in difficulty, so a first frame may tell something; nine in ten is no scene's doing.
    warn_first_frame_auc: float = 0.75
    fail_first_frame_auc: float = 0.9
    # Cohen's "medium" effect for a 2-by-k table is 0.3; people do differ, so an association only warns.
    warn_association: float = 0.3
    # Of what V tells apart over all episodes, the part that must remain among one person's (or one day's).
    fail_share_within: float = 1 / 3
    warn_share_within: float = 2 / 3
    # Ties alone make a task's share of positives differ from the fraction asked for.
    warn_share_gap: float = 0.05
    # When a person's corrections are most of what is positive, values hardly decide anything.
    warn_forced_share: float = 0.5
    # Fewer marked frames of one source may all have the same indicator by chance.
    fewest_marked_frames: int = 100

    def __post_init__(self) -> None:
        """Raises ``InputError`` for a bound that is out of range, or a warning beyond its failure."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"gate.{field.name} must be a number, not {value!r}")
            counted = field.type == "int"
            if (counted and value < 1) or (not counted and not 0 <= value <= 1):
                wanted = "1 or more" if counted else "between 0 and 1"
                raise InputError(f"gate.{field.name} is {value}: it must be {wanted}")
        for name in ("auc", "rank_correlation", "spread", "share_within"):
            _require_order(f"gate.fail_{name}", f"gate.warn_{name}", self._pair(name))
        for name in ("calibration_error", "first_frame_auc"):
            _require_order(f"gate.warn_{name}", f"gate.fail_{name}", self._pair(name)[::-1])

    def _pair(self, name: str) -> tuple[float, float]:
        return getattr(self, f"fail_{name}"), getattr(self, f"warn_{name}")

    @classmethod
    def from_site(cls, bounds: Mapping[str, float]) -> GateConfig:
        """The defaults with the bounds of ``[gate]``. Raises ``InputError`` for an unknown or bad one."""
        require_known_keys("[gate]", bounds, [field.name for field in fields(cls)])
        whole = {field.name for field in fields(cls) if field.type == "int"}
        given = {name: value for name, value in bounds.items() if name not in whole}
        for name in whole & set(bounds):
            if isinstance(bounds[name], bool) or int(bounds[name]) != bounds[name]:
                raise InputError(f"gate.{name} must be a whole number, not {bounds[name]!r}")
        counts = {name: int(bounds[name]) for name in whole & set(bounds)}
        return cls(**given, **counts)  # type: ignore[arg-type]  # counts are ints, the rest is checked above


def _require_order(lower: str, upper: str, values: tuple[float, float]) -> None:
    if values[0] > values[1]:
        raise InputError(f"{lower} ({values[0]:g}) lies above {upper} ({values[1]:g}): swap them")

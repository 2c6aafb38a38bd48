"""The gate before any fine-tuning: can these values be trusted?

:func:`judge` asks every question that a known failure would answer wrongly: values that are constant,
follow the clock, mistake one unit for another, or know the outcome from something that is not the work
(the first picture, the person, the day); indicators that are constant. A *failure* stops the fine-tune, a
*warning* asks a person to look. What only chance could explain is asked of shuffled outcomes; with too few
episodes to tell, such a check warns and does not fail. Every task that has episodes enough is judged by
itself, and one that fails closes the gate. Bounds and their reasons: :class:`GateConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.advantages import FrameAdvantages
from value_model.calibration import measure_quality
from value_model.discrimination import contest
from value_model.gate_config import GateConfig
from value_model.gate_groups import judged_groups
from value_model.gate_indicators import indicator_checks
from value_model.gate_leakage import leakage_checks
from value_model.gate_report import VALUES, AucCurve, Check, EpisodeFacts, Evidence, GateReport
from value_model.gate_values import (
    TIME_ONLY,
    calibrated,
    enough_episodes,
    not_just_the_clock,
    progress,
    success_and_failure,
    values_vary,
)
from value_model.leakage import association, probe_first_frames
from value_model.returns import Outcomes, Penalty, labelled_frames

__all__ = ["Check", "EpisodeFacts", "GateConfig", "GateReport", "judge"]

CURVE_PARTS = tuple(round(0.05 * k, 2) for k in range(21))
# The gate's answer to the same data is the same.
_SEED = 0
# A refit for each, so fewer than of the plain rank tests: the least p-value is 1/101.
_PROBE_PERMUTATIONS = 100


def judge(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    labelled: FrameAdvantages,
    failure_penalty: Penalty,
    baselines: Mapping[str, np.ndarray],
    facts: EpisodeFacts,
    config: GateConfig,
    positive_fraction: float | None = None,
) -> GateReport:
    """Asks every check of the out-of-fold ``values`` ``(N,)`` and the indicators made from them.

    ``baselines``: ``(N,)`` values by name, of which "time only" and "outcome only" must be beaten where
    given. ``facts``: one entry per episode of the table. ``positive_fraction``: what the thresholds were
    set to; without it shares are only shown. Raises ``InputError`` when no episode has an outcome, or
    values or facts are not of the table's size.
    """
    if len(facts.operator) != len(table.episode_ids) or len(facts.day) != len(table.episode_ids):
        raise InputError(f"facts of {len(facts.operator)} episodes for a table of {len(table.episode_ids)}")
    evidence = _evidence(table, values, outcomes, labelled, failure_penalty, baselines, facts, config)
    evidence = replace(evidence, positive_fraction=positive_fraction)
    enough = enough_episodes(table, outcomes, config)
    known = labelled_frames(table, outcomes)
    groups = judged_groups(table, outcomes, config)
    sure = enough.measured is not None and enough.measured >= config.fewest_episodes
    checks = [
        enough,
        values_vary(table, values, labelled.returns, known, config),
        success_and_failure(table, values, groups, config),
        not_just_the_clock(table, values, groups, baselines.get(TIME_ONLY), config),
        progress(evidence, groups, sure, config),
        calibrated(table, values, labelled.returns, outcomes, groups, config),
        *indicator_checks(table, values, outcomes, labelled, positive_fraction, config),
        *leakage_checks(table, values, groups, evidence, sure, config),
    ]
    return GateReport(tuple(checks), evidence)


def _evidence(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    labelled: FrameAdvantages,
    failure_penalty: Penalty,
    baselines: Mapping[str, np.ndarray],
    facts: EpisodeFacts,
    config: GateConfig,
) -> Evidence:
    rng = np.random.default_rng(_SEED)
    rivals = {VALUES: values, **baselines}
    factors = {"operator": facts.operator, "day": facts.day, "policy": facts.policy}
    return Evidence(
        quality={
            name: measure_quality(
                table, found, outcomes, failure_penalty, labelled.indicators if name == VALUES else None
            )
            for name, found in rivals.items()
        },
        parts=CURVE_PARTS,
        curves=tuple(_curve(table, name, found, outcomes) for name, found in rivals.items()),
        probes=probe_first_frames(table, outcomes, _PROBE_PERMUTATIONS, rng),
        associations=tuple(
            association(table, values, outcomes, factor, levels, config.permutations, rng)
            for factor, levels in factors.items()
            if len(set(levels)) > 1
        ),
    )


def _curve(table: FrameTable, name: str, values: np.ndarray, outcomes: Outcomes) -> AucCurve:
    def at(part: float, same_age: bool) -> float | None:
        found = float(contest(table, values, outcomes, (part,), same_age=same_age).auc()[0])
        return None if np.isnan(found) else found

    return AucCurve(name, tuple(at(p, False) for p in CURVE_PARTS), tuple(at(p, True) for p in CURVE_PARTS))

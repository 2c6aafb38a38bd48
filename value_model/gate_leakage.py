"""The gate's alarms: the first picture, V's first value, the person, the day, the policy that drove."""

from __future__ import annotations

import numpy as np

from pipeline.frame_table import FrameTable
from value_model.discrimination import contest
from value_model.gate_config import GateConfig
from value_model.gate_report import Association, Check, Evidence
from value_model.gate_words import hundredths, number
from value_model.returns import Outcomes

_SEED = 1
# Values that order so few pairs beyond one half tell nothing apart, so there is nothing to share out.
_LITTLE = 0.05


def leakage_checks(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    evidence: Evidence,
    sure: bool,
    config: GateConfig,
) -> list[Check]:
    """``sure``: there are episodes enough for a failure to be more than chance."""
    return [
        _first_picture(evidence, config),
        _first_value(table, values, outcomes, config),
        *(_follows(found, sure, config) for found in evidence.associations),
    ]


def _first_picture(evidence: Evidence, config: GateConfig) -> Check:
    name, bound = "first picture", config.fail_first_frame_auc
    if not evidence.probes:
        return Check(name, "warn", None, bound, "too few episodes of either outcome to probe it; label more.")
    worst = max(evidence.probes, key=lambda p: p.auc)
    seen = (
        f"a plain classifier orders {hundredths(worst.auc)} of 100 pairs of {worst.task!r} rightly from the "
        f"first frame alone (chance: up to {hundredths(worst.chance)})"
    )
    suspicious = worst.p_value <= config.alarm_significance
    if not suspicious or worst.auc < config.warn_first_frame_auc:
        return Check(name, "pass", worst.auc, bound, f"{seen}.")
    if worst.auc < bound:
        sentence = (
            f"{seen}: some scenes are harder, or something in view changes with the outcome; look at first "
            "frames of successes and failures side by side."
        )
        return Check(name, "warn", worst.auc, bound, sentence)
    sentence = (
        f"{seen}: before anything has happened the picture gives the outcome away; look for what differs "
        "(light, background, where the arm starts), cover it or record anew, mixing both outcomes."
    )
    return Check(name, "fail", worst.auc, bound, sentence)


def _first_value(table: FrameTable, values: np.ndarray, outcomes: Outcomes, config: GateConfig) -> Check:
    name, bound = "first value", config.fail_first_frame_auc
    start = contest(table, values, outcomes, (0.0,), same_age=True)
    if not len(start.won):
        return Check(name, "warn", None, bound, "no task has both outcomes, so it cannot be asked.")
    auc = float(start.auc()[0])
    p = start.p_value(config.permutations, np.random.default_rng(_SEED))
    seen = f"the very first values already order {hundredths(auc)} of 100 pairs rightly"
    if p > config.alarm_significance or auc < config.warn_first_frame_auc:
        return Check(name, "pass", auc, bound, f"{seen} (chance: 50).")
    if auc < bound:
        sentence = (
            f"{seen}: scenes differ in difficulty, or the outcome is known from elsewhere; look at them."
        )
        return Check(name, "warn", auc, bound, sentence)
    sentence = (
        f"{seen}: nobody can know that yet. The models were trained on these very episodes, or something in "
        "view gives the outcome away; score with held-out models, and see the check of the first picture."
    )
    return Check(name, "fail", auc, bound, sentence)


def _follows(found: Association, sure: bool, config: GateConfig) -> Check:
    """Whether outcomes follow a factor, and whether V tells them apart within one level of it."""
    one = {"operator": "one operator", "day": "one day", "policy": "one policy"}[found.factor]
    name, bound = found.factor, config.fail_share_within
    strong = found.p_value <= config.alarm_significance and found.strength >= config.warn_association
    if found.pairs_within == 0:
        return _never_mixed(found, strong, bound)
    gained, within = (found.auc_all or 0.5) - 0.5, (found.auc_within or 0.5) - 0.5
    share = float(np.clip(within / gained, 0, 1)) if gained > 0 else 1.0
    seen = (
        f"within {one} values order {hundredths(0.5 + within)} of 100 pairs of equal age rightly, over all "
        f"{hundredths(0.5 + gained)}"
    )
    if strong and gained < _LITTLE:
        sentence = (
            f"outcomes differ by {found.factor} (Cramér's V {number(found.strength)}); {seen}, too little to "
            f"say whether they follow the {found.factor}."
        )
        return Check(name, "warn", None, bound, sentence)
    by_chance = (found.within_p_value or 0.0) > config.significance
    if strong and by_chance and share < bound and sure:
        sentence = (
            f"{seen}: outcomes follow the {found.factor}, and values recognise little else; record both "
            f"outcomes of each {found.factor}, and hide what tells them apart."
        )
        return Check(name, "fail", share, bound, sentence)
    if strong and share < config.warn_share_within:
        sentence = (
            f"{seen}: part of what values know is the {found.factor}; mixed outcomes of each would help."
        )
        return Check(name, "warn", share, bound, sentence)
    if strong:
        sentence = (
            f"outcomes differ by {found.factor} (Cramér's V {number(found.strength)}), as is natural; "
            f"{seen}, so they judge the work."
        )
        return Check(name, "warn", share, bound, sentence)
    return Check(name, "pass", share, bound, f"{seen}.")


def _never_mixed(found: Association, strong: bool, bound: float) -> Check:
    """No two episodes of one level differ in their outcome: by design of the data, or for want of them."""
    sentence = f"no {found.factor} has both successes and failures of a task"
    if not strong:
        sentence += ", so that values cannot be judged within one; record more of each."
        return Check(found.factor, "warn", None, bound, sentence)
    sentence += (
        f": the {found.factor} gives the outcome away, and values may know that and nothing else; record and "
        "label both outcomes of each."
    )
    return Check(found.factor, "fail", 0.0, bound, sentence)

"""The gate's alarms: the first picture, V's first value, the person, the day, the policy that drove."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.frame_table import FrameTable
from value_model.discrimination import contest
from value_model.gate_config import GateConfig
from value_model.gate_groups import Group, worst
from value_model.gate_report import Association, Check, Evidence
from value_model.gate_words import hundredths, number

_SEED = 1
# Values that order so few pairs beyond one half tell nothing apart, so there is nothing to share out.
_LITTLE = 0.05


def leakage_checks(
    table: FrameTable,
    values: np.ndarray,
    groups: Sequence[Group],
    evidence: Evidence,
    sure: bool,
    config: GateConfig,
) -> list[Check]:
    """``sure``: there are episodes enough for a failure to be more than chance."""
    starts = [_first_picture(evidence, config), _first_value(table, values, groups, config)]
    given_away = any(check.verdict == "fail" for check in starts)
    return [*starts, *(_follows(found, sure, given_away, config) for found in evidence.associations)]


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


def _first_value(table: FrameTable, values: np.ndarray, groups: Sequence[Group], config: GateConfig) -> Check:
    name, bound = "first value", config.fail_first_frame_auc

    def ask(group: Group) -> Check | None:
        start = contest(table, values, group.outcomes, (0.0,), same_age=True)
        if not len(start.won):
            return None
        auc = float(start.auc()[0])
        p = start.p_value(config.permutations, np.random.default_rng(_SEED))
        seen = f"{group.name}the very first values already order {hundredths(auc)} of 100 pairs rightly"
        if p > config.alarm_significance or auc < config.warn_first_frame_auc:
            return Check(name, "pass", auc, bound, f"{seen} (chance: 50).")
        if auc < bound:
            sentence = (
                f"{seen}: scenes differ in difficulty, or the outcome is known from elsewhere; look at them."
            )
            return Check(name, "warn", auc, bound, sentence)
        sentence = (
            f"{seen}: nobody can know that yet. The models were trained on these very episodes, or something "
            "in view gives the outcome away; score with held-out models, and see the check of the first "
            "picture."
        )
        return Check(name, "fail", auc, bound, sentence)

    nothing = "no task has both outcomes, so it cannot be asked."
    return worst(groups, ask) or Check(name, "warn", None, bound, nothing)


def _follows(found: Association, sure: bool, given_away: bool, config: GateConfig) -> Check:
    """Whether outcomes follow a factor, and whether V tells them apart within one level of it."""
    one = {"operator": "one operator", "day": "one day", "policy": "one policy"}[found.factor]
    name, bound = found.factor, config.fail_share_within
    strong = found.p_value <= config.alarm_significance and found.strength >= config.warn_association
    gained, within = (found.auc_all or 0.5) - 0.5, (found.auc_within or 0.5) - 0.5
    share = float(np.clip(within / gained, 0, 1)) if gained > 0 else 1.0
    by_chance = (found.within_p_value or 0.0) > config.significance
    recognised = strong and by_chance and share < bound
    if found.pairs_within == 0 or (recognised and found.rarer_within < config.fewest_episodes):
        return _hardly_mixed(found, strong, sure, given_away, config)
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
    if recognised and sure:
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


def _hardly_mixed(
    found: Association, strong: bool, sure: bool, given_away: bool, config: GateConfig
) -> Check:
    """Too few episodes of one level differ in their outcome to judge values within it.

    That alone is no proof against the values. Where outcomes differ between demonstrations and the policy's
    own attempts, and among neither follow the factor, it is the ordinary first turn.
    """
    name, bound = found.factor, config.fail_share_within
    few = "no" if found.pairs_within == 0 else "hardly any"
    sentence = f"{few} {name} has both successes and failures of a task"
    if not strong:
        sentence += ", so that values cannot be judged within one; record more of each."
        return Check(name, "warn", None, bound, sentence)
    if not sure:
        sentence += ", which may be chance with so few episodes; record and label more."
        return Check(name, "warn", None, bound, sentence)
    among_drives = (
        found.p_value_within_drive <= config.alarm_significance
        and found.strength_within_drive >= config.warn_association
    )
    if name != "policy" and among_drives:
        sentence += (
            f": the {name} gives the outcome away, and values may know that and nothing else; record and "
            "label both outcomes of each."
        )
        return Check(name, "fail", 0.0, bound, sentence)
    if given_away:
        sentence += (
            ", and the outcome is known before anything has happened: values recognise who drives and not "
            "how it goes; hide what tells them apart in first pictures, or record successes of the policy."
        )
        return Check(name, "fail", 0.0, bound, sentence)
    sentence += (
        ", as in a first turn, when demonstrations succeed and the policy's own attempts fail: values there "
        "may rest on who drives, and nothing shows how well they judge the work; attempts of the policy that "
        "succeed will (demonstrations that fail are not needed)."
    )
    return Check(name, "warn", None, bound, sentence)

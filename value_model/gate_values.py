"""The gate's questions to the values themselves: do they vary, tell outcomes apart, see progress, mean it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from scipy.stats import norm

from pipeline.frame_table import FrameTable
from value_model.calibration import calibration_noise, expected_calibration_error
from value_model.discrimination import contest
from value_model.gate_config import GateConfig
from value_model.gate_groups import Group, outcome_counts, worst
from value_model.gate_report import VALUES, Check, Evidence, Verdict
from value_model.gate_words import hundredths, number, of_hundred
from value_model.returns import Outcomes

TIME_ONLY, OUTCOME_ONLY = "time only", "outcome only"
_SEED = 0


def enough_episodes(table: FrameTable, outcomes: Outcomes, config: GateConfig) -> Check:
    """Whether every task has episodes enough of either outcome; ``measured``: of the rarer one, in all."""
    short, rarer = [], 0
    for task, count in outcome_counts(table, outcomes).items():
        rarer += min(count.values())
        short += [
            f"{config.fewest_episodes - n} more {o.value} of {task!r}"
            for o, n in count.items()
            if n < config.fewest_episodes
        ]
    if not short:
        sentence = f"every task has {config.fewest_episodes} episodes or more of either outcome."
        return Check("enough episodes", "pass", rarer, config.fewest_episodes, sentence)
    shown = ", ".join(short[:4]) + (", …" if len(short) > 4 else "")
    sentence = (
        f"fewer than {config.fewest_episodes} episodes of an outcome are too few to judge a task by; "
        f"label {shown}."
    )
    return Check("enough episodes", "warn", rarer, config.fewest_episodes, sentence)


def values_vary(
    table: FrameTable, values: np.ndarray, returns: np.ndarray, known: np.ndarray, config: GateConfig
) -> Check:
    """The least varied task: the spread of V over that of the returns."""
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    spreads = {}
    for task in sorted(set(task_of_frame[known])):
        here = known & (task_of_frame == task)
        spreads[task] = float(
            np.std(values[here], dtype=np.float64) / max(1e-9, float(np.std(returns[here])))
        )
    task, least = min(spreads.items(), key=lambda item: item[1])
    seen = f"in {task!r} values spread {of_hundred(least)} as much as the returns"
    if least >= config.warn_spread:
        return Check("values vary", "pass", least, config.fail_spread, f"{seen} or more in every task.")
    if least >= config.fail_spread:
        sentence = f"{seen}: the model says little about it; look at its pictures, and train longer."
        return Check("values vary", "warn", least, config.fail_spread, sentence)
    sentence = (
        f"{seen}: they are all but constant, and advantages are noise; look for cameras that see nothing, "
        "train longer, or label more episodes."
    )
    return Check("values vary", "fail", least, config.fail_spread, sentence)


def success_and_failure(
    table: FrameTable, values: np.ndarray, groups: Sequence[Group], config: GateConfig
) -> Check:
    """Half-way through each one's own length, against shuffled outcomes and a floor."""
    name = "success and failure"

    def ask(group: Group) -> Check | None:
        halfway = contest(table, values, group.outcomes, (0.5,), same_age=False)
        if not len(halfway.won):
            return None
        auc = float(halfway.auc()[0])
        p = halfway.p_value(config.permutations, np.random.default_rng(_SEED))
        seen = (
            f"{group.name}half-way through, values put the success above the failure in {hundredths(auc)} of "
            "100 pairs"
        )
        if p <= config.significance and auc >= config.warn_auc:
            return Check(name, "pass", auc, config.fail_auc, f"{seen} (chance: 50).")
        if p <= config.significance and auc >= config.fail_auc:
            sentence = (
                f"{seen} (chance: 50): better than chance, but weak; label more episodes or train longer."
            )
            return Check(name, "warn", auc, config.fail_auc, sentence)
        if not group.sure or auc >= config.warn_auc:
            sentence = f"{seen}, which may be chance with so few episodes; label more."
            return Check(name, "warn", auc, config.fail_auc, sentence)
        sentence = (
            f"{seen} (chance: 50, p = {number(p)}): they cannot tell them apart, so advantages mean nothing; "
            "look at the labels on the review page of 'recap label', label more episodes, or train longer."
        )
        return Check(name, "fail", auc, config.fail_auc, sentence)

    nothing = (
        "no task has both successes and failures, so nothing shows that values tell them apart; record "
        "and label the outcome that is missing."
    )
    return worst(groups, ask) or Check(name, "fail", None, config.fail_auc, nothing)


def not_just_the_clock(
    table: FrameTable,
    values: np.ndarray,
    groups: Sequence[Group],
    clock: np.ndarray | None,
    config: GateConfig,
) -> Check:
    """At equal ages, averaged over a quarter, half and three quarters of the median success.

    Values must order more pairs than ``clock`` ``(N,)``, those of "time only": by ``fail_clock_margin``,
    and by what luck with so many episodes makes of two scorers that are equally good.
    """
    name = "not just the clock"

    def ask(group: Group) -> Check | None:
        same_age = contest(table, values, group.outcomes, same_age=True)
        auc = float(same_age.auc()[0]) if len(same_age.won) else float("nan")
        if np.isnan(auc):
            return None
        p = same_age.p_value(config.permutations, np.random.default_rng(_SEED))
        rival, noise = 0.5, same_age.standard_error()
        if clock is not None:
            of_clock = contest(table, clock, group.outcomes, same_age=True)
            if of_clock.auc()[0] > rival:
                rival, noise = float(of_clock.auc()[0]), same_age.standard_error(of_clock)
        seen = (
            f"{group.name}between episodes of equal age values order {hundredths(auc)} of 100 pairs rightly"
        )
        told = f"the clock alone: {hundredths(rival)}, give or take {hundredths(noise)}"
        beyond_luck = p <= config.significance and auc - rival > norm.isf(config.significance) * noise
        beyond_margin = auc - rival >= config.fail_clock_margin
        if beyond_luck and beyond_margin:
            return Check(name, "pass", auc, rival, f"{seen} ({told}).")
        if not group.sure or (beyond_margin and auc >= config.warn_auc):
            sentence = (
                f"{seen} ({told}), which the clock or chance may explain with so few episodes; label more."
            )
            return Check(name, "warn", auc, rival, sentence)
        sentence = (
            f"{seen}, hardly better than the clock alone ({hundredths(rival)}; p = {number(p)}): they only "
            "know how long an episode has lasted and not how it goes; check that the cameras see the work, "
            "and train longer."
        )
        return Check(name, "fail", auc, rival, sentence)

    nothing = "no success and failure of equal age could be compared."
    return worst(groups, ask) or Check(name, "warn", None, 0.5, nothing)


def progress(evidence: Evidence, groups: Sequence[Group], sure: bool, config: GateConfig) -> Check:
    """The rank correlation with −time-to-go: of each group against a floor, over all against a rival.

    The rival are values that know the chance of success only. Values that see progress well may be no
    better than those: that alone is no reason to stop. Of a single task's rival too little is known.
    """

    def ask(group: Group) -> Check | None:
        found = [ranks[task] for task in group.tasks if task in ranks]
        known = [rho for rho in found if rho is not None]
        if not found:
            return None
        return _progress(float(np.mean(known)) if known else None, None, group.sure, group.name, config)

    quality = evidence.quality[VALUES]
    ranks = quality.rank_correlation_by_task
    rival = evidence.quality[OUTCOME_ONLY].rank_correlation if OUTCOME_ONLY in evidence.quality else None
    overall = _progress(quality.rank_correlation, rival, sure, "", config)
    least = worst(groups, ask) if len(groups) > 1 else None
    order = get_args(Verdict)
    return overall if least is None or order.index(overall.verdict) > order.index(least.verdict) else least


def _progress(rho: float | None, rival: float | None, sure: bool, where: str, config: GateConfig) -> Check:
    name, bound = "progress", config.fail_rank_correlation
    if rho is None:
        sentence = (
            f"{where}in successes values do not change at all, or there are none: they know nothing of "
            "progress; label successes, check the cameras, and train longer."
        )
        return Check(name, "fail", None, bound, sentence)
    seen = (
        f"{where}in successes values rise as the end comes near: rank correlation {number(rho)} (1: always, "
        "0: no relation)"
    )
    if rho <= bound:
        sentence = (
            f"{seen}: they do not see an episode get on, so an advantage cannot either; check the cameras "
            "and the frame rate, and train longer."
        )
        return Check(name, "fail" if sure else "warn", rho, bound, sentence)
    if rival is not None and rho <= rival:
        sentence = (
            f"{seen}, no better than values that only know the chance of success ({number(rival)}): more "
            "episodes or longer training should teach them progress."
        )
        return Check(
            name, "fail" if sure and rho < config.warn_rank_correlation else "warn", rho, rival, sentence
        )
    if rho < config.warn_rank_correlation:
        sentence = f"{seen}: they see progress, but dimly; more episodes or longer training would help."
        return Check(name, "warn", rho, bound, sentence)
    return Check(name, "pass", rho, bound, f"{seen}.")


def calibrated(
    table: FrameTable,
    values: np.ndarray,
    returns: np.ndarray,
    outcomes: Outcomes,
    groups: Sequence[Group],
    config: GateConfig,
) -> Check:
    """Of each group and, where there are several, of all together.

    Bounds are widened by what luck with so many episodes gives perfectly calibrated values.
    """
    name = "calibration"

    def ask(group: Group) -> Check | None:
        known = group.frames(table)
        if not known.any():
            return None
        value, truth = np.asarray(values[known], np.float64), returns[known].astype(np.float64)
        error = expected_calibration_error(value, truth)
        luck = calibration_noise(value, truth, table.episode_index[known])
        fail, warn = config.fail_calibration_error + luck, config.warn_calibration_error + luck
        seen = (
            f"{group.name}a value is {number(error)} off the mean return of frames like it (the range is 1, "
            f"luck gives {number(luck)})"
        )
        if error <= warn:
            return Check(name, "pass", error, fail, f"{seen}.")
        if error <= fail or (group.name and not group.sure):
            sentence = (
                f"{seen}: values are shifted; the last frames of an episode feel it most; label more "
                "episodes."
            )
            return Check(name, "warn", error, fail, sentence)
        sentence = (
            f"{seen}: values do not mean what they say, and the last frames of every episode are marked by "
            "that error; was it trained with another failure_penalty, or on other labels? Train it again."
        )
        return Check(name, "fail", error, fail, sentence)

    together = [Group("", (), outcomes, True)] if len(groups) > 1 else []
    return worst([*groups, *together], ask) or Check(name, "warn", None, None, "no episode has an outcome.")

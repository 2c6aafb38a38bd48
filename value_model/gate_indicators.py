"""The gate's questions to the indicators: are they constant, of the share asked for, and V's own doing?"""

from __future__ import annotations

import numpy as np

from pipeline.episode import Outcome, Source
from pipeline.frame_table import FrameTable
from pipeline.prompts import NONE, POSITIVE
from value_model.advantages import FrameAdvantages, Reason
from value_model.gate_config import GateConfig
from value_model.gate_report import Check
from value_model.gate_words import of_hundred
from value_model.returns import Outcomes, episode_outcomes

# Advantages are stored in single precision.
_ROUNDING = 1e-6


def indicator_checks(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    labelled: FrameAdvantages,
    positive_fraction: float | None,
    config: GateConfig,
) -> list[Check]:
    """Constant indicators, the share of positives per task, and the share of forced ones."""
    barred = barred_frames(table, values, outcomes, labelled)
    return [
        _constant(table, labelled, barred, config),
        _share(table, labelled, barred, positive_fraction, config),
        _forced(labelled, config),
    ]


def barred_frames(
    table: FrameTable, values: np.ndarray, outcomes: Outcomes, labelled: FrameAdvantages
) -> np.ndarray:
    """Frames that the rule about a failure's end kept from being positive, bool ``(N,)``.

    They are known by their numbers: where the sum reaches the end, the advantage is the return minus the
    value (``value_model.advantages``). Where such a frame is positive by its advantage the rule was off.
    """
    lost = np.array([o == Outcome.FAILURE for o in episode_outcomes(table, outcomes)], dtype=bool)
    gap = np.abs(labelled.advantages - (labelled.returns - np.asarray(values, dtype=np.float64)))
    decided = ~np.isin(labelled.reasons, (Reason.NO_OUTCOME, Reason.FORCED_POSITIVE_INTERVENTION))
    ends = decided & lost[table.episode_index] & (np.nan_to_num(gap, nan=np.inf) <= _ROUNDING)
    if (labelled.reasons[ends] == Reason.ABOVE_THRESHOLD).any():
        return np.zeros(len(ends), dtype=bool)
    return ends


def _constant(table: FrameTable, labelled: FrameAdvantages, barred: np.ndarray, config: GateConfig) -> Check:
    """Per task, and per task and source: frames that a person did not correct, all marked alike.

    Where nearly all of them are the ends of failures a rule decided so, and not the values: a policy that
    always fails at a task is no reason to mistrust them.
    """
    name = "indicators differ"
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    decided = (labelled.indicators != NONE) & (labelled.reasons != Reason.FORCED_POSITIVE_INTERVENTION)
    constant: list[str] = []
    ruled: list[str] = []
    for task in dict.fromkeys(table.tasks):
        of_task = decided & (task_of_frame == task)
        groups = {"every frame": of_task}
        groups |= {f"every {s.name.lower()} frame": of_task & (table.source == s) for s in Source}
        for which, here in groups.items():
            marked = labelled.indicators[here]
            if len(marked) < config.fewest_marked_frames or np.ptp(marked) > 0:
                continue
            mark = "positive" if marked[0] == POSITIVE else "negative"
            # Where the rule leaves too few frames for a value to decide, the rule makes them alike.
            by_rule = (here & ~barred).sum() < config.fewest_marked_frames
            (ruled if by_rule else constant).append(f"{which} of {task!r} is {mark}")
            break
    if constant:
        sentence = (
            f"{'; '.join(constant[:3])}: the prompt would then say which data a frame is from and not how "
            "good it is; look at those values, and record or label episodes of the other outcome."
        )
        return Check(name, "fail", float(len(constant)), 0.0, sentence)
    if ruled:
        sentence = (
            f"{'; '.join(ruled[:3])}: all of those attempts failed, and the end of a failure is never "
            "positive (with n_step 'end' that is the whole of it); the prompt then says which data it is "
            "from, until an attempt succeeds or n_seconds is shorter."
        )
        return Check(name, "warn", float(len(ruled)), 0.0, sentence)
    return Check(name, "pass", 0.0, 0.0, "in every task and source there are positive and negative frames.")


def _share(
    table: FrameTable,
    labelled: FrameAdvantages,
    barred: np.ndarray,
    positive_fraction: float | None,
    config: GateConfig,
) -> Check:
    name = "share of positives"
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    free = (labelled.indicators != NONE) & (labelled.reasons != Reason.FORCED_POSITIVE_INTERVENTION)
    shares = {
        str(task): float((labelled.indicators[free & (task_of_frame == task)] == POSITIVE).mean())
        for task in sorted(set(task_of_frame[free]))
    }
    if not shares:
        return Check(name, "warn", None, None, "no frame has an indicator that follows from a value.")
    low, high = min(shares.values()), max(shares.values())
    seen = f"{of_hundred(low)} of a task's frames are positive"
    if high - low >= 0.005:
        seen = f"{of_hundred(low)} to {of_hundred(high)} of a task's frames are positive"
    if positive_fraction is None:
        return Check(name, "pass", high, None, f"{seen}.")
    task, share = max(shares.items(), key=lambda item: abs(item[1] - positive_fraction))
    gap = abs(share - positive_fraction)
    seen += f", {of_hundred(positive_fraction)} were asked for"
    if gap <= config.warn_share_gap:
        return Check(name, "pass", gap, config.warn_share_gap, f"{seen}.")
    kept = float(barred[free & (task_of_frame == task)].mean())
    if share < positive_fraction and 1 - kept < positive_fraction:
        sentence = (
            f"{seen}: {of_hundred(kept)} of {task!r} are the ends of failures, which are never positive, and "
            "all other frames are; look less far ahead (n_seconds), ask for a smaller positive_fraction, or "
            "record successes."
        )
    else:
        sentence = f"{seen}: in {task!r} many frames have the same advantage; look whether its values vary."
    return Check(name, "warn", gap, config.warn_share_gap, sentence)


def _forced(labelled: FrameAdvantages, config: GateConfig) -> Check:
    positive = labelled.indicators == POSITIVE
    forced = positive & (labelled.reasons == Reason.FORCED_POSITIVE_INTERVENTION)
    share = float(forced.sum() / max(1, positive.sum()))
    seen = f"{of_hundred(share)} of the positive frames are a person's corrections"
    if share <= config.warn_forced_share:
        return Check("corrections", "pass", share, config.warn_forced_share, f"{seen}.")
    sentence = (
        f"{seen}: values hardly decide what is good; add episodes of the policy alone, or read the result "
        "as an imitation of corrections."
    )
    return Check("corrections", "warn", share, config.warn_forced_share, sentence)

"""The gate's questions to the indicators: are they constant, of the share asked for, and V's own doing?"""

from __future__ import annotations

import numpy as np

from pipeline.episode import Source
from pipeline.frame_table import FrameTable
from pipeline.prompts import NONE, POSITIVE
from value_model.advantages import FrameAdvantages, Reason
from value_model.gate_config import GateConfig
from value_model.gate_report import Check
from value_model.gate_words import of_hundred


def indicator_checks(
    table: FrameTable, labelled: FrameAdvantages, positive_fraction: float | None, config: GateConfig
) -> list[Check]:
    """Constant indicators, the share of positives per task, and the share of forced ones."""
    return [
        _constant(table, labelled, config),
        _share(table, labelled, positive_fraction, config),
        _forced(labelled, config),
    ]


def _constant(table: FrameTable, labelled: FrameAdvantages, config: GateConfig) -> Check:
    """Per task, and per task and source: frames that a person did not correct, all marked alike."""
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    free = (labelled.indicators != NONE) & (labelled.reasons != Reason.FORCED_POSITIVE_INTERVENTION)
    constant = []
    for task in dict.fromkeys(table.tasks):
        of_task = free & (task_of_frame == task)
        groups = {"every frame": of_task}
        groups |= {f"every {s.name.lower()} frame": of_task & (table.source == s) for s in Source}
        for name, here in groups.items():
            marked = labelled.indicators[here]
            if len(marked) >= config.fewest_marked_frames and np.ptp(marked) == 0:
                mark = "positive" if marked[0] == POSITIVE else "negative"
                constant.append(f"{name} of {task!r} is {mark}")
                break
    if not constant:
        sentence = "in every task and source there are positive and negative frames."
        return Check("indicators differ", "pass", 0.0, 0.0, sentence)
    sentence = (
        f"{'; '.join(constant[:3])}: the prompt would then say which data a frame is from and not how good "
        "it is; look at those values, and record or label episodes of the other outcome."
    )
    return Check("indicators differ", "fail", float(len(constant)), 0.0, sentence)


def _share(
    table: FrameTable, labelled: FrameAdvantages, positive_fraction: float | None, config: GateConfig
) -> Check:
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    free = (labelled.indicators != NONE) & (labelled.reasons != Reason.FORCED_POSITIVE_INTERVENTION)
    shares = {
        str(task): float((labelled.indicators[free & (task_of_frame == task)] == POSITIVE).mean())
        for task in sorted(set(task_of_frame[free]))
    }
    if not shares:
        return Check(
            "share of positives", "warn", None, None, "no frame has an indicator that follows from a value."
        )
    low, high = min(shares.values()), max(shares.values())
    seen = f"{of_hundred(low)} of a task's frames are positive"
    if high - low >= 0.005:
        seen = f"{of_hundred(low)} to {of_hundred(high)} of a task's frames are positive"
    if positive_fraction is None:
        return Check("share of positives", "pass", high, None, f"{seen}.")
    task, share = max(shares.items(), key=lambda item: abs(item[1] - positive_fraction))
    gap = abs(share - positive_fraction)
    seen += f", {of_hundred(positive_fraction)} were asked for"
    if gap <= config.warn_share_gap:
        return Check("share of positives", "pass", gap, config.warn_share_gap, f"{seen}.")
    sentence = f"{seen}: in {task!r} many frames have the same advantage; look whether its values vary."
    return Check("share of positives", "warn", gap, config.warn_share_gap, sentence)


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

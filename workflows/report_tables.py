"""The report's tables, as plain rows of text and shares for the template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.episode import Outcome, Source
from pipeline.prompts import NONE, POSITIVE
from value_model.advantages import Reason
from workflows.comparison import PairedDifference, Performance
from workflows.report_words import estimate_text, is_narrow, number, p_text, percent, signed, tone

SOURCE_NAMES = {
    Source.TELEOP: "teleoperation",
    Source.POLICY: "policy",
    Source.INTERVENTION: "correction by a person",
}
REASON_WORDS = {
    Reason.NO_OUTCOME: "no mark: the episode has no outcome",
    Reason.BELOW_THRESHOLD: "negative: advantage at or below the task's threshold",
    Reason.ABOVE_THRESHOLD: "positive: advantage above the task's threshold",
    Reason.FORCED_POSITIVE_INTERVENTION: "positive: a person's correction",
    Reason.NEGATIVE_FAILURE_END: "negative: the end of a failure, whatever its advantage",
}

# How an episode was recorded, in the order of the table.
KIND_NAMES = ("teleoperation", "policy alone", "policy, corrected by a person")


@dataclass(frozen=True)
class ShareRow:
    """Frames of one source (and one operator, or all), and how many of the marked ones are positive."""

    source: str
    operator: str
    frames: int
    share: float | None
    text: str


@dataclass(frozen=True)
class EpisodeRow:
    """Episodes of one operator recorded in one way, by outcome."""

    operator: str
    kind: str
    episodes: int
    success: int
    failure: int
    unlabelled: int
    minutes: str


def performance_rows(performances: Mapping[str, Performance]) -> list[dict[str, str]]:
    """One row per policy, numbers with their 95 % intervals."""
    return [
        {
            "name": name,
            "attempts": number(p.attempts),
            "successes": number(p.successes),
            "rate": estimate_text(p.success_rate, share=True),
            "per_hour": estimate_text(p.successes_per_hour),
            "seconds": "–" if p.median_success_seconds is None else number(p.median_success_seconds, 1),
        }
        for name, p in performances.items()
    ]


def difference_rows(differences: Mapping[str, PairedDifference]) -> list[dict[str, str]]:
    """One row per comparison on the same starts; the verdict is by the test that decides on promotion."""
    words = {"good": "better", "bad": "worse", "unclear": "not clear"}
    rows = []
    for name, d in differences.items():
        rate, hour = d.success_rate, d.successes_per_hour
        points = f"{signed(100 * rate.value)} ({signed(100 * rate.low)} to {signed(100 * rate.high)})"
        per_hour = f"{signed(hour.value)} ({signed(hour.low)} to {signed(hour.high)})"
        found = tone(d)
        rows.append(
            {
                "name": name,
                "points": points,
                "per_hour": per_hour,
                "p": p_text(d.p_value),
                "verdict": "better, only just" if is_narrow(d) else words[found],
                "tone": found,
            }
        )
    return rows


def share_rows(frames: pd.DataFrame) -> list[ShareRow]:
    """The share of positives per source, each followed by its operators where there are several."""
    rows = []
    for source in Source:
        of_source = frames[frames["source"] == source]
        if of_source.empty:
            continue
        rows.append(_share(SOURCE_NAMES[source], "everyone", of_source))
        operators = sorted(of_source["operator"].unique())
        for operator in operators if len(operators) > 1 else []:
            rows.append(_share("", operator, of_source[of_source["operator"] == operator]))
        if len(operators) == 1:
            rows[-1] = _share(SOURCE_NAMES[source], operators[0], of_source)
    return rows


def _share(source: str, operator: str, frames: pd.DataFrame) -> ShareRow:
    marked = frames.loc[frames["indicator"] != NONE, "indicator"].to_numpy()
    share = float(np.mean(marked == POSITIVE)) if len(marked) else None
    return ShareRow(source, operator, len(frames), share, "no mark" if share is None else percent(share))


def reason_rows(frames: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Why frames have the mark they have: words, frames, share; the most frequent first."""
    counts = frames["reason"].value_counts()
    return [(_reason_words(r), number(n), percent(n / len(frames))) for r, n in counts.items()]


def _reason_words(reason: Any) -> str:
    if not isinstance(reason, str):
        return REASON_WORDS[Reason(int(reason))]
    known = Reason.__members__.get(reason.upper())
    return reason if known is None else REASON_WORDS[known]


def per_episode(frames: pd.DataFrame) -> pd.DataFrame:
    """One row per episode, by its id: task, operator, outcome, frames, mean value, shares of sources."""
    source = frames["source"]
    table = frames.assign(
        by_policy=source == Source.POLICY,
        by_teleop=source == Source.TELEOP,
        by_correction=source == Source.INTERVENTION,
    )
    return table.groupby("episode_id", sort=True).agg(
        task=("task", "first"),
        operator=("operator", "first"),
        outcome=("outcome", "first"),
        frames=("frame", "size"),
        value=("value", "mean"),
        by_policy=("by_policy", "mean"),
        by_teleop=("by_teleop", "mean"),
        by_correction=("by_correction", "mean"),
    )


def episode_rows(frames: pd.DataFrame, rates: Mapping[str, float]) -> list[EpisodeRow]:
    """The data that came in, by operator and way of recording. ``rates`` is each episode's rate in Hz."""
    episodes = per_episode(frames)
    kinds = np.select([episodes["by_correction"] > 0, episodes["by_policy"] > 0], [2, 1], 0)
    seconds = episodes["frames"] / pd.Series(rates, dtype=float).reindex(episodes.index)
    table = episodes.assign(kind=kinds, seconds=seconds)
    rows = []
    for kind, name in enumerate(KIND_NAMES):
        of_kind = table[table["kind"] == kind]
        for operator in sorted(of_kind["operator"].unique()):
            group = of_kind[of_kind["operator"] == operator]
            won = int((group["outcome"] == Outcome.SUCCESS).sum())
            lost = int((group["outcome"] == Outcome.FAILURE).sum())
            minutes = number(group["seconds"].sum() / 60, 1) if group["seconds"].notna().all() else "–"
            rows.append(EpisodeRow(operator, name, len(group), won, lost, len(group) - won - lost, minutes))
    return rows

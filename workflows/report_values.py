"""The report's section on the values: the gate's verdicts in words, the numbers, and a figure for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from value_model.calibration import ValueQuality, reliability
from value_model.gate_report import GateReport, Verdict
from workflows import report_alarm_figures as alarms
from workflows import report_value_figures as figures
from workflows.report_theme import Picture
from workflows.report_words import Tile, number

_SIGNS: dict[Verdict, tuple[str, str]] = {"fail": ("✕", "stop"), "warn": ("!", "look"), "pass": ("✓", "ok")}
Shown = tuple[Picture, str]


@dataclass(frozen=True)
class VerdictLine:
    """One check on the page: ``tone`` is its verdict, ``icon`` and ``word`` say the same."""

    tone: str
    icon: str
    word: str
    name: str
    sentence: str


@dataclass(frozen=True)
class ValueSection:
    """What the template shows; ``figures`` (and ``wide`` ones) are pictures with their captions."""

    headline: str
    badge: str
    tone: str
    passed: bool
    verdicts: list[VerdictLine]
    tiles: list[Tile]
    wide: list[Shown]
    figures: list[Shown]


def value_section(
    frames: pd.DataFrame, rates: Mapping[str, float], gate: GateReport | None, quality: ValueQuality | None
) -> ValueSection:
    """From the report's frames, their episodes' rates, and what was measured; either may be missing."""
    wide: list[Shown] = []
    if gate is not None and gate.evidence.curves:
        caption = (
            "For each pair of a success and a failure of one task: is the success valued higher? Left, at "
            "equal ages, the clock knows nothing. Right, failures that last longer are older, which flatters."
        )
        wide.append((figures.auc_figure(gate.evidence.parts, gate.evidence.curves), caption))
    return ValueSection(
        headline=_headline(gate, quality),
        badge=_badge(gate),
        tone="no" if gate is None else "stop" if not gate.passed else "no" if gate.of("warn") else "yes",
        passed=gate is None or gate.passed,
        verdicts=list(_verdicts(gate)) if gate else [],
        tiles=_tiles(quality) if quality else [],
        wide=wide,
        figures=list(_figures(frames, rates, gate, quality)),
    )


def _headline(gate: GateReport | None, quality: ValueQuality | None) -> str:
    if gate is not None:
        return gate.words()[0]
    if quality is None:
        return "The quality of the values was not measured."
    return "These values are from before there was a gate: nothing judged them, the figures are all there is."


def _badge(gate: GateReport | None) -> str:
    if gate is None:
        return "not judged"
    if not gate.passed:
        return "✕ not trusted"
    return "! look" if gate.of("warn") else "✓ trusted"


def _verdicts(gate: GateReport) -> Iterator[VerdictLine]:
    for verdict, (icon, word) in _SIGNS.items():
        for check in gate.of(verdict):
            sentence = check.sentence[:1].upper() + check.sentence[1:]
            yield VerdictLine(verdict, icon, word, check.name[:1].upper() + check.name[1:], sentence)


def _tiles(quality: ValueQuality) -> list[Tile]:
    def tile(title: str, value: float | None, digits: int = 2) -> Tile:
        return Tile(title, None, "–" if value is None else number(value, digits), "", "", "unclear")

    shown = [tile("Correlation of value and return", quality.correlation)]
    shown.append(tile("Rank correlation with time left, in successes", quality.rank_correlation))
    for part, auc in quality.auc_by_part.items():
        shown.append(tile(f"Tells success from failure at {part} (AUC)", auc))
    known = [auc for auc in quality.auc_same_age.values() if auc is not None]
    if known:
        shown.append(tile("The same at equal ages, on average", sum(known) / len(known)))
    shown.append(tile("Expected calibration error", quality.expected_calibration_error, 3))
    return [*shown, tile("Mean absolute error", quality.mean_absolute_error, 3)]


def _figures(
    frames: pd.DataFrame, rates: Mapping[str, float], gate: GateReport | None, quality: ValueQuality | None
) -> Iterator[Shown]:
    """Each figure that the data allow."""
    known = frames[frames["return_"].notna()]
    rho = quality.rank_correlation if quality else None
    over_time = figures.over_time_figure(frames, rates)
    if over_time is not None:
        yield over_time, "Median value and the middle half of all episodes, by how they ended."
    progress = figures.progress_figure(frames, rates, rho)
    if progress is not None:
        yield progress, "Successes only, against the seconds that were left; right is the moment of success."
    if len(known):
        bins = reliability(known["value"].to_numpy(float), known["return_"].to_numpy(float))
        error = quality.expected_calibration_error if quality else None
        yield (
            figures.reliability_figure(bins, error),
            "Mean return of the frames in each tenth of the value's range; dots grow with their frames.",
        )
    if quality is not None:
        asked = gate.evidence.positive_fraction if gate else None
        shares = alarms.shares_figure(quality.positive_share, asked)
        if shares is not None:
            yield shares, "Thresholds are set per task, over all frames that no person corrected."
    if gate is not None:
        bound = next((check.bound for check in gate.checks if check.name == "first picture"), None)
        first = alarms.first_frame_figure(gate.evidence, bound)
        if first is not None:
            caption = "A plain classifier of first pictures, and these values: both should be near guessing."
            yield first, caption
        within = alarms.within_figure(gate.evidence)
        if within is not None:
            caption = "At equal ages. Where values know the work, dots stay right within one person, too."
            yield within, caption

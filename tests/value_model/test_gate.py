"""The gate lets sound values through, and closes for every known way in which values are worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.prompts import NEGATIVE, POSITIVE
from tests.value_model.gate_samples import Case, sound_case
from tests.value_model.synthetic import BLUE, RED, SMALL
from value_model.advantages import FrameAdvantages, Reason
from value_model.baselines import TimeOnly
from value_model.gate import Check, EpisodeFacts, GateConfig, GateReport
from value_model.returns import frame_returns, task_scales


@pytest.fixture(scope="module")
def report() -> GateReport:
    """The gate's report on sound data."""
    return sound_case().judge()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sound_values_pass_and_two_operators_of_different_skill_only_warn(seed: int) -> None:
    judged = sound_case(seed=seed).judge()
    assert judged.passed
    verdicts = {check.name: check.verdict for check in judged.checks}
    assert verdicts.pop("operator") == "warn"
    assert set(verdicts.values()) == {"pass"}, judged.words()


def constant(case: Case) -> None:
    """Every frame has the same value."""
    case.values[:] = -0.5


def collapsed(case: Case) -> None:
    """The right order, but hardly any spread."""
    case.values[:] = -0.5 + 0.01 * (case.values + 0.5)


def shuffled_outcomes(case: Case) -> None:
    """Somebody's labels slipped by some rows: they belong to other episodes."""
    outcomes = list(case.outcomes.values())
    order = np.random.default_rng(5).permutation(len(outcomes))
    case.outcomes = {i: outcomes[k] for i, k in zip(case.outcomes, order, strict=True)}


def clock_alone(case: Case) -> None:
    """The values of a model that only counts frames."""
    case.values[:] = TimeOnly().score(case.table, case.outcomes, SMALL)


def outcome_alone(case: Case) -> None:
    """A model that sees whether it will succeed and never how far it is."""
    case.values[:] = np.where(case.won, -0.3, -0.8)[case.table.episode_index]
    case.values[:] += np.random.default_rng(0).normal(0, 0.05, len(case.values))


def memorised(case: Case) -> None:
    """Scored by models that had trained on these very episodes: the return itself, from the first frame."""
    returns = frame_returns(case.table, case.outcomes, task_scales(case.table, case.outcomes, 1.0))
    case.values[:] = np.clip(returns + np.random.default_rng(0).normal(0, 0.02, len(returns)), -1, 0)


def miscalibrated(case: Case) -> None:
    """Trained with another failure penalty: the order is right, the numbers are not."""
    case.values[:] = 0.4 * case.values


def leaked_background(case: Case) -> None:
    """A lamp in the corner of the first picture that is on in successes."""
    for won, images in zip(case.won, case.table._episode_images, strict=True):
        images[:, 0, :6, :6] = 250 if won else 10


def operator_decides(case: Case) -> None:
    """Each outcome is recorded by one operator only."""
    case.facts = EpisodeFacts(tuple(np.where(case.won, "ana", "ben")), case.facts.day)


def day_decides(case: Case) -> None:
    """Failures were all recorded on another day."""
    case.facts = EpisodeFacts(case.facts.operator, tuple(np.where(case.won, "2026-01-01", "2026-01-02")))


def recognises_the_operator(case: Case) -> None:
    """V has learned who drives; nearly all of one's episodes succeed, nearly all of the other's fail."""
    rng = np.random.default_rng(4)
    skilled = np.where(rng.random(len(case.won)) < 0.85, case.won, ~case.won)
    case.facts = EpisodeFacts(tuple(np.where(skilled, "ana", "ben")), case.facts.day)
    returns = frame_returns(case.table, case.outcomes, task_scales(case.table, case.outcomes, 1.0))
    age = case.table.frame_index
    for ana in (True, False):
        here = skilled[case.table.episode_index] == ana
        by_age = [returns[here & (age == a)] for a in range(int(age.max()) + 1)]
        case.values[here] = np.array([r.mean() if len(r) else -0.3 for r in by_age])[age[here]]
    case.values[:] += rng.normal(0, 0.01, len(case.values))


@pytest.mark.parametrize(
    ("mistake", "failing"),
    [
        (constant, "values vary"),
        (collapsed, "values vary"),
        (shuffled_outcomes, "success and failure"),
        (clock_alone, "not just the clock"),
        (outcome_alone, "progress"),
        (memorised, "first value"),
        (miscalibrated, "calibration"),
        (leaked_background, "first picture"),
        (operator_decides, "operator"),
        (day_decides, "day"),
        (recognises_the_operator, "operator"),
    ],
)
def test_every_known_failure_closes_the_gate(mistake: Callable[[Case], None], failing: str) -> None:
    case = sound_case()
    mistake(case)
    judged = case.judge()
    assert not judged.passed
    assert failing in [check.name for check in judged.of("fail")], judged.words()


def relabelled(case: Case, change: Callable[[FrameAdvantages], np.ndarray]) -> FrameAdvantages:
    """The case's labels with other reasons and the indicators that follow."""
    labels = case.labels()
    reasons = change(labels)
    indicators = np.where(reasons == Reason.BELOW_THRESHOLD, NEGATIVE, POSITIVE).astype(np.int8)
    return replace(labels, reasons=reasons, indicators=indicators)


def test_an_indicator_that_only_says_which_data_it_is_closes_the_gate() -> None:
    case = sound_case()
    by_source = np.where(case.table.source == Source.POLICY, Reason.BELOW_THRESHOLD, Reason.ABOVE_THRESHOLD)
    judged = case.judge(relabelled(case, lambda _: by_source.astype(np.int8)))
    check = next(c for c in judged.of("fail") if c.name == "indicators differ")
    assert "every teleop frame of 'pick up the red cube' is positive" in check.sentence


def test_all_positive_closes_the_gate_and_is_far_from_the_fraction_asked_for() -> None:
    case = sound_case()
    everything = np.full(len(case.table), Reason.ABOVE_THRESHOLD, np.int8)
    verdicts = {c.name: c.verdict for c in case.judge(relabelled(case, lambda _: everything)).checks}
    assert (verdicts["indicators differ"], verdicts["share of positives"]) == ("fail", "warn")


def test_corrections_that_are_most_of_what_is_positive_warn() -> None:
    case = sound_case()

    def corrected(labels: FrameAdvantages) -> np.ndarray:
        reasons = labels.reasons.copy()
        reasons[np.flatnonzero(reasons == Reason.BELOW_THRESHOLD)[5:]] = Reason.FORCED_POSITIVE_INTERVENTION
        return reasons

    judged = case.judge(relabelled(case, corrected))
    assert "corrections" in [check.name for check in judged.of("warn")]


def test_too_few_episodes_warn_say_how_many_more_and_do_not_stop() -> None:
    case = sound_case(episodes=16)
    case.values[:] = np.random.default_rng(0).uniform(-1, 0, len(case.values))
    judged = case.judge()
    enough = judged.checks[0]
    assert enough.name == "enough episodes" and enough.verdict == "warn"
    episodes = list(zip(case.table.tasks, case.outcomes.values(), strict=True))
    missing = {task: 10 - episodes.count((task, "failure")) for task in (RED, BLUE)}
    for task, count in missing.items():
        assert f"{count} more failure of {task!r}" in enough.sentence
    assert {"success and failure", "not just the clock", "progress"} <= {c.name for c in judged.of("warn")}


def test_one_outcome_alone_fails_without_numbers_to_compare() -> None:
    case = sound_case(episodes=40)
    case.outcomes = dict.fromkeys(case.outcomes, "success")
    check = next(c for c in case.judge().of("fail") if c.name == "success and failure")
    assert check.measured is None and "no task has both" in check.sentence


def test_unlabelled_episodes_have_no_say() -> None:
    case = sound_case()
    for episode_id in list(case.outcomes)[::5]:
        case.outcomes[episode_id] = None
    verdicts = {c.name: c.verdict for c in case.judge().checks}
    rows = np.array([case.outcomes[i] is None for i in case.table.episode_ids])[case.table.episode_index]
    case.values[rows] = 0.0
    assert {c.name: c.verdict for c in case.judge().checks} == verdicts


def test_the_report_says_what_was_seen_and_survives_json(report: GateReport) -> None:
    assert GateReport.from_json(report.to_json()) == report
    words = report.words()
    assert words[0] == "The values can be used; 1 thing to look at."
    assert words[1].startswith("  look  operator: outcomes differ by operator")
    assert len(words) == 1 + len(report.checks)
    assert all(check.sentence.endswith(".") for check in report.checks)
    assert GateReport.from_json(GateReport(()).to_json()).passed
    with pytest.raises(InputError, match="not a report of the gate"):
        GateReport.from_json("{}")


def test_a_failure_comes_first_in_words() -> None:
    checks = (Check("a", "pass", 1.0, 0.5, "fine."), Check("b", "fail", 0.1, 0.5, "bad."))
    words = GateReport(checks).words()
    assert words == ["The values cannot be trusted: 1 check failed.", "  STOP  b: bad.", "  ok    a: fine."]
    with pytest.raises(InputError, match="verdict 'maybe'"):
        Check("c", "maybe", None, None, "?")  # type: ignore[arg-type]  # what a damaged file may hold


def test_bounds_come_from_the_site_and_nonsense_is_refused() -> None:
    config = GateConfig.from_site({"fail_auc": 0.5, "warn_auc": 0.55, "fewest_episodes": 4})
    assert (config.fail_auc, config.fewest_episodes) == (0.5, 4)
    for wrong, words in (
        ({"fail_auk": 0.5}, "did you mean 'fail_auc'"),
        ({"fail_auc": 2.0}, "between 0 and 1"),
        ({"fewest_episodes": 2.5}, "whole number"),
        ({"permutations": 0}, "1 or more"),
        ({"fail_auc": 0.9}, "lies above gate.warn_auc"),
        ({"warn_calibration_error": 0.4}, "lies above gate.fail_calibration_error"),
    ):
        with pytest.raises(InputError, match=words):
            GateConfig.from_site(wrong)


def test_facts_of_other_episodes_are_refused() -> None:
    case = sound_case(episodes=20)
    case.facts = EpisodeFacts(("ana",), ("today",))
    with pytest.raises(InputError, match="facts of 1 episodes"):
        case.judge()

"""The gate where tasks, recording rates or drivers differ: what must not hide a failure, or pass for one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.episode import Source
from pipeline.prompts import NEGATIVE
from tests.value_model.gate_samples import Case, expected_returns, sound_case
from tests.value_model.synthetic import BLUE, RED, make_table
from tests.value_model.test_gate import memorised, outcome_alone
from value_model.advantages import AdvantageConfig, Reason, label_frames
from value_model.gate import EpisodeFacts
from value_model.returns import frame_returns, task_scales


def noise_on_one_task(case: Case) -> None:
    """Sound values of one task, and of the other none that mean anything."""
    of_blue = np.array(case.table.tasks)[case.table.episode_index] == BLUE
    returns = frame_returns(case.table, case.outcomes, task_scales(case.table, case.outcomes, 1.0))
    drawn = np.random.default_rng(3).normal(returns[of_blue].mean(), 0.15, of_blue.sum())
    case.values[of_blue] = np.clip(drawn, -1, 0)


def memorised_on_one_task(case: Case) -> None:
    """One task's episodes were trained on."""
    sound = case.values.copy()
    memorised(case)
    of_red = np.array(case.table.tasks)[case.table.episode_index] == RED
    case.values[of_red] = sound[of_red]


@pytest.mark.parametrize(
    ("mistake", "failing"),
    [
        (noise_on_one_task, ["success and failure", "not just the clock", "progress"]),
        (memorised_on_one_task, ["first value"]),
    ],
)
def test_a_sound_task_does_not_hide_another_that_fails(
    mistake: Callable[[Case], None], failing: list[str]
) -> None:
    case = sound_case(seed=1)
    mistake(case)
    failed = {check.name: check.sentence for check in case.judge().of("fail")}
    for name in failing:
        assert failed[name].startswith(f"in {BLUE!r} "), failed


def test_two_tasks_that_fail_are_both_named() -> None:
    case = sound_case()
    outcome_alone(case)
    check = next(c for c in case.judge().of("fail") if c.name == "progress")
    assert RED in check.sentence and BLUE in check.sentence


def of_two_rates(seed: int) -> Case:
    """Successes mostly at 10 Hz, failures at 30 Hz and shorter; values are the mean return of that age."""
    rng = np.random.default_rng(seed)
    won = np.arange(120) % 2 == 0
    rates = np.where(rng.random(120) < np.where(won, 0.85, 0.15), 10.0, 30.0)
    seconds = np.where(won, rng.uniform(4, 7, 120), rng.uniform(3, 5.5, 120))
    table = make_table((seconds * rates).astype(int).tolist(), rates=rates.tolist())
    outcomes: dict[str, str | None] = {
        i: "success" if w else "failure" for i, w in zip(table.episode_ids, won, strict=True)
    }
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, 1.0))
    age = table.frame_index / rates[table.episode_index]
    knots = np.arange(0, 7, 0.5)
    means = np.array([returns[np.abs(age - k) <= 0.5].mean() for k in knots])
    values = np.interp(age, knots, means).astype(np.float32)
    return Case(table, values, outcomes, EpisodeFacts(("ana",) * 120, ("monday",) * 120))


@pytest.mark.parametrize("seed", [0, 2])
def test_a_clock_that_knows_the_recording_rate_is_still_a_clock(seed: int) -> None:
    verdicts = of_two_rates(seed).verdicts()
    assert (verdicts["success and failure"], verdicts["not just the clock"]) == ("pass", "fail")


@pytest.mark.parametrize(("recognised", "verdict"), [(5, "fail"), (15, "pass")])
def test_a_hair_better_than_the_clock_is_not_better(recognised: int, verdict: str) -> None:
    case = of_two_rates(0)
    # So many of 60 successes are worth more than a clock says. Five are beyond chance, and next to nothing.
    seen = np.zeros(len(case.won), bool)
    seen[np.flatnonzero(case.won)[:recognised]] = True
    case.values += 0.1 * seen[case.table.episode_index].astype(np.float32)
    assert case.verdicts()["not just the clock"] == verdict


def first_turn(episodes: int, seed: int = 2) -> Case:
    """All demonstrations succeed, all of the base policy's attempts fail; another day, no operator."""
    case = sound_case(episodes, seed)
    case.table.source[:] = np.where(case.won, Source.TELEOP, Source.POLICY)[case.table.episode_index]
    case.facts = EpisodeFacts(
        tuple(np.where(case.won, "ana", "")),
        tuple(np.where(case.won, "2026-01-01", "2026-01-02")),
        tuple(np.where(case.won, "nobody's (teleoperation)", "base/1")),
    )
    return case


@pytest.mark.parametrize(("episodes", "seed"), [(160, 2), (12, 5), (16, 5)])
def test_an_ordinary_first_turn_passes_with_warnings_that_say_what_values_rest_on(
    episodes: int, seed: int
) -> None:
    case = first_turn(episodes, seed)
    judged = case.judge(case.labels(horizon=10))
    assert judged.passed, judged.words()
    warned = {check.name: check.sentence for check in judged.of("warn")}
    assert {"operator", "day", "policy"} <= set(warned)
    assert ("rest on who drives" in warned["policy"]) == (episodes == 160)


def test_a_first_turn_whose_outcome_is_known_from_the_start_closes_the_gate() -> None:
    case = first_turn(160)
    memorised(case)
    failed = {check.name for check in case.judge(case.labels(horizon=10)).of("fail")}
    assert {"first value", "policy", "operator", "day"} <= failed


def test_a_policy_that_always_fails_one_task_is_no_fault_of_the_values() -> None:
    case = sound_case(seed=1)
    rollout = np.arange(len(case.won)) % 5 == 3
    for episode_id, task, own in zip(case.table.episode_ids, case.table.tasks, rollout, strict=True):
        if own and task == BLUE:
            case.outcomes[episode_id] = "failure"
    case.values = expected_returns(case.table, case.outcomes, case.won, np.random.default_rng(1))
    judged = case.judge()
    check = next(c for c in judged.checks if c.name == "indicators differ")
    assert check.verdict == "warn" and f"every policy frame of {BLUE!r} is negative" in check.sentence
    assert "the end of a failure is never positive" in check.sentence
    # Said by values and not by the rule, the same marks close the gate.
    off = AdvantageConfig(horizon=10, positive_fraction=case.positive_fraction)
    labels = label_frames(case.table, case.values, case.outcomes, 1.0, off)
    rows = (case.table.source == Source.POLICY) & (np.array(case.table.tasks) == BLUE)[
        case.table.episode_index
    ]
    labels.reasons[rows], labels.indicators[rows] = Reason.BELOW_THRESHOLD, NEGATIVE
    assert "indicators differ" in {c.name for c in case.judge(labels).of("fail")}


def test_a_share_that_falls_short_names_the_failures_and_not_the_values() -> None:
    case = sound_case(seed=1)
    drawn = np.random.default_rng(0).random(len(case.won)) < 0.15
    case.outcomes = {
        i: "success" if w else "failure" for i, w in zip(case.table.episode_ids, drawn, strict=True)
    }
    case.values = expected_returns(case.table, case.outcomes, drawn, np.random.default_rng(1))
    check = next(c for c in case.judge().checks if c.name == "share of positives")
    assert check.verdict == "warn" and "are the ends of failures, which are never positive" in check.sentence

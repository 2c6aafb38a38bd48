"""The alarms' measurements: against cases whose answer is known, and quiet where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from pipeline.episode import Source
from tests.value_model.gate_samples import Case, sound_case
from tests.value_model.synthetic import RED, make_table
from value_model.discrimination import Contest, contest, equal_ages
from value_model.leakage import association, first_frame_features, probe_first_frames


@pytest.fixture
def case() -> Case:
    """Sound data: nothing but the work tells the outcome."""
    return sound_case(120)


def rng() -> np.random.Generator:
    """The same draws in every test."""
    return np.random.default_rng(0)


def test_the_probe_finds_a_mark_of_one_cell_among_backgrounds_of_noise(case: Case) -> None:
    for won, images in zip(case.won, case.table._episode_images, strict=True):
        images[:, 0, :3, :3] = 200 if won else 50
    for probe in probe_first_frames(case.table, case.outcomes, 100, rng()):
        assert probe.auc > 0.95 and probe.p_value <= 0.01 and probe.chance < 0.8


def test_the_probe_sees_a_state_and_looks_at_the_first_frame_only(case: Case) -> None:
    later = case.table.frame_index > 0
    case.table.state[later, 0] = case.won[case.table.episode_index[later]]
    assert max(p.auc for p in probe_first_frames(case.table, case.outcomes, 20, rng())) < 0.75
    case.table.state[~later, 0] = case.won
    assert min(p.auc for p in probe_first_frames(case.table, case.outcomes, 20, rng())) > 0.9


def test_the_probe_is_quiet_about_equal_pictures_and_too_few_episodes(case: Case) -> None:
    for images in case.table._episode_images:
        images[:] = 7
    probes = probe_first_frames(case.table, case.outcomes, 20, rng())
    assert [p.auc for p in probes] == [0.5, 0.5] and min(p.p_value for p in probes) == 1.0
    few = make_table([3] * 8)
    outcomes = {i: "success" if k % 2 else "failure" for k, i in enumerate(few.episode_ids)}
    assert probe_first_frames(few, outcomes, 20, rng()) == ()


def test_features_are_cell_means_scaled_and_turned() -> None:
    table = make_table([1, 1, 1, 1])
    for i, images in enumerate(table._episode_images):
        images[:] = 40 * i
    features = first_frame_features(table, np.arange(4))
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    # Pictures that differ by equal steps lie on a line, at equal steps.
    np.testing.assert_allclose(distance[0], distance[0, 1] * np.arange(4), atol=1e-9)
    assert np.sqrt((features**2).sum(axis=1).mean()) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_strength_is_cramers_v_of_a_two_by_k_table(data: st.DataObject) -> None:
    count = data.draw(st.integers(6, 30))
    table = make_table([4] * count)
    mixed = st.lists(st.booleans(), min_size=count, max_size=count).filter(lambda w: 0 < sum(w) < len(w))
    won = data.draw(mixed)
    levels = data.draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    outcomes = {i: "success" if w else "failure" for i, w in zip(table.episode_ids, won, strict=True)}
    found = association(table, np.zeros(len(table)), outcomes, "operator", levels, 20, rng())
    present = sorted(set(levels))
    pairs = list(zip(won, levels, strict=True))
    cells = np.array([[pairs.count((outcome, level)) for level in present] for outcome in (True, False)])
    expected = np.sqrt(chi2_contingency(cells, correction=False).statistic / count)
    assert found.strength == pytest.approx(expected, abs=1e-9)
    assert found.counts == {level: tuple(cells[:, i].tolist()) for i, level in enumerate(present)}


def test_outcomes_that_do_not_follow_the_operator_are_not_said_to(case: Case) -> None:
    levels = ["ana", "ben"] * (len(case.won) // 2)
    found = association(case.table, case.values, case.outcomes, "operator", levels, 200, rng())
    assert found.strength < 0.25 and found.p_value > 0.01
    assert found.auc_within == pytest.approx(found.auc_all, abs=0.05)


def test_within_one_operator_a_value_that_only_knows_the_operator_is_worth_nothing(case: Case) -> None:
    sloppy = np.arange(len(case.won)) % 2 == 1
    levels = list(np.where(sloppy, "ben", "ana"))
    values = np.where(sloppy, -0.8, -0.3)[case.table.episode_index]
    found = association(case.table, values, case.outcomes, "operator", levels, 200, rng())
    assert found.auc_within == 0.5 and found.within_p_value == 1.0


def test_pairs_share_a_task_and_with_within_also_the_level() -> None:
    table = make_table([4] * 4, [RED] * 4)
    outcomes = {"e000": "success", "e001": "failure", "e002": "success", "e003": "failure"}
    pairs = contest(table, np.arange(16.0), outcomes, (0.0,), same_age=True)
    assert pairs.pairs() == 4 and pairs.within(["x", "x", "y", "y"]).pairs() == 2
    assert pairs.within(["x", "y", "x", "y"]).pairs() == 0


def test_shuffling_keeps_each_strata_count_and_a_chance_result_is_not_significant() -> None:
    table = make_table([4] * 40)
    won = np.arange(40) % 4 == 0
    outcomes = {i: "success" if w else "failure" for i, w in zip(table.episode_ids, won, strict=True)}
    pairs = contest(table, rng().random(160), outcomes, (0.5,), same_age=True)
    chance = pairs.shuffled(300, rng())
    assert abs(chance.mean() - 0.5) < 0.02 and chance.std() > 0.03
    assert pairs.p_value(300, rng()) > 0.01
    sharp = contest(table, np.repeat(won, 4).astype(float), outcomes, (0.5,), same_age=True)
    assert sharp.p_value(300, rng()) == pytest.approx(1 / 301)


@pytest.mark.parametrize("rates", [(10.0, 30.0), (10.0, 25.0), (12.5, 10.0), (30.0, 30.0)])
def test_ages_are_equal_to_the_instant_whatever_the_rates(rates: tuple[float, float]) -> None:
    rate = np.array([*rates, rates[0]])
    won, lengths = np.array([True, False, True]), (rate * np.array([4.0, 5.0, 4.4])).astype(int)
    for part, frames in zip(
        (0.25, 0.5, 0.75), equal_ages(lengths, rate, won, (0.25, 0.5, 0.75)), strict=True
    ):
        ages = frames / rate
        np.testing.assert_allclose(ages, ages[0], atol=1e-9)
        assert part * 4.2 - 0.41 <= ages[0] <= part * 4.2 + 1e-9


def test_rates_without_a_common_frame_are_at_most_a_frame_apart() -> None:
    rate = np.array([29.97, 30.0, 14.0])
    won, lengths = np.array([True, False, True]), np.array([150, 150, 70])
    for frames in equal_ages(lengths, rate, won, (0.25, 0.5, 0.75)):
        assert np.ptp(frames / rate) < 1 / 29


def test_the_standard_error_is_the_spread_over_repeated_draws_of_episodes() -> None:
    draws = np.random.default_rng(0)
    won, stratum = np.arange(80) % 2 == 0, np.arange(80) // 40
    gaps, said = [], []
    for _ in range(300):
        own, rival = draws.normal(0.8 * won, 1), draws.normal(0.3 * won, 1)
        # Two moments that share the episode's luck.
        first, second = (
            Contest(np.stack([s, s + draws.normal(0, 0.5, 80)]), won, stratum, np.arange(80))
            for s in (own, rival + own)
        )
        gaps.append(first.auc()[0] - second.auc()[0])
        said.append(first.standard_error(second))
    assert np.mean(said) == pytest.approx(np.std(gaps), rel=0.15)


def test_what_differs_between_demonstrations_and_rollouts_alone_is_told_from_the_person(case: Case) -> None:
    rollout = np.arange(len(case.won)) // 2 % 2 == 1
    case.table.source[:] = np.where(rollout, Source.POLICY, Source.TELEOP)[case.table.episode_index]
    who_drives = list(np.where(rollout, "robot", "ana"))
    outcome = list(np.where(case.won, "ana", "ben"))
    case.outcomes = {i: "failure" if r else "success" for i, r in zip(case.outcomes, rollout, strict=True)}
    driven = association(case.table, case.values, case.outcomes, "operator", who_drives, 200, rng())
    assert driven.strength == pytest.approx(1) and driven.strength_within_drive == 0
    case.outcomes = {
        i: "success" if o == "ana" else "failure" for i, o in zip(case.outcomes, outcome, strict=True)
    }
    person = association(case.table, case.values, case.outcomes, "operator", outcome, 200, rng())
    assert person.strength_within_drive == pytest.approx(1) and person.p_value_within_drive < 0.01
    assert person.rarer_within == 0

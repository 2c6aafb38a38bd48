"""The decision about a candidate: promoted, kept or still open; what holds it back; how it is told."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.site_config import SiteConfig
from pipeline.site_promotion import LEAST_SIGNIFICANCE, PromotionSection
from tests.workflows.promotion_samples import BASE, RECAP, evaluations
from workflows.comparison import Attempt
from workflows.paired_comparison import paired_difference
from workflows.promotion import BETTER, GUARD_OPEN, HELD_BACK, Verdict, as_decided, judge
from workflows.promotion_guards import guards
from workflows.promotion_looks import SWAPS
from workflows.promotion_rule import PromotionRule
from workflows.report_words import guard_that_holds
from workflows.settings import FULL, QUICK, settings_from_site

ONCE = PromotionRule()
EARLY = PromotionRule(stop_early=True)


def attempts(marks: str, seconds: float = 4.0, tasks: str = "t", interventions: str = "") -> list[Attempt]:
    """``+`` is a success, ``-`` a failure; one start each, the tasks in turn."""
    return [
        Attempt(
            tasks[i % len(tasks)], i, m == "+", round(10 * seconds), seconds, interventions[i : i + 1] == "x"
        )
        for i, m in enumerate(marks)
    ]


def mixed(rate: float, count: int, seed: int, **given: str | float) -> list[Attempt]:
    """Successes strewn at random, just that share of them."""
    won = np.arange(count) < round(rate * count)
    np.random.default_rng(seed).shuffle(won)
    return attempts("".join("+" if one else "-" for one in won), **given)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("candidate", "reference", "promoted", "words"),
    [
        (
            attempts("+" * 80 + "-" * 20),
            attempts("+" * 40 + "-" * 60),
            True,
            "better than base on the same 100",
        ),
        (attempts("+" * 41 + "-" * 59), attempts("+" * 40 + "-" * 60), False, "not better beyond chance"),
        (attempts("+" * 40 + "-" * 60), attempts("+" * 80 + "-" * 20), False, "the candidate is worse"),
        # Twice as fast, but it fails where the base does not: speed alone must not win.
        (attempts("+" * 80 + "-" * 20, 2.0), attempts("+" * 100), False, "20 points less often"),
        (attempts("+" * 100, 2.0), attempts("+" * 100), True, "better than base"),
    ],
)
def test_promotion_needs_more_throughput_beyond_chance_and_no_loss_of_reliability(
    candidate: list[Attempt], reference: list[Attempt], promoted: bool, words: str
) -> None:
    decision = judge(candidate, reference, "base", 100, ONCE).decision()
    assert decision.promoted is promoted
    assert words in decision.reason and decision.reason.startswith("promoted" if promoted else "kept base")
    assert len(decision.looks) == 1 and decision.looks[0]["starts"] == 100


def rounds(candidate: list[Attempt], reference: list[Attempt], rule: PromotionRule = EARLY) -> Verdict:
    """As the loop does it: round after round, until nothing is open; each verdict keeps what was before."""
    starts = len(candidate)
    before: tuple[object, ...] = ()
    for done in rule.looks(starts):
        verdict = judge(candidate[:done], reference[:done], "base", starts, rule)
        assert verdict.looks[: len(before)] == before and verdict.starts == done
        if not verdict.is_open:
            break
        before = verdict.looks
        with pytest.raises(ValueError, match=f"after {done} of {starts}"):
            verdict.decision()
    # Starts that were run beyond the look that decided change nothing.
    assert judge(candidate, reference, "base", starts, rule) == verdict
    return verdict


def test_a_clear_gain_is_promoted_after_the_first_rounds_and_says_so() -> None:
    candidate, reference = evaluations(RECAP, BASE, 200, np.random.default_rng(1))
    verdict = rounds(candidate, reference)
    assert verdict.looks[-1].verdict == BETTER and verdict.starts < 200
    reason = verdict.decision().reason
    assert f"on the same {verdict.starts} starts" in reason
    assert reason.endswith(f"no guard rail was broken; decided after {verdict.starts} of 200 starts")


def test_the_reverse_is_kept_after_the_first_rounds() -> None:
    reference, candidate = evaluations(RECAP, BASE, 200, np.random.default_rng(1))
    verdict = rounds(candidate, reference)
    assert verdict.starts <= 80 and not verdict.decision().promoted
    assert verdict.decision().reason.endswith(f"decided after {verdict.starts} of 200 starts") or (
        "given up after" in verdict.decision().reason
    )


def test_no_difference_is_given_up_before_the_end_with_the_chance_that_it_had() -> None:
    candidate, reference = mixed(0.6, 200, 3), mixed(0.6, 200, 4)
    verdict = rounds(candidate, reference)
    assert verdict.starts < 200
    assert f"given up after {verdict.starts} of 200 starts" in verdict.decision().reason
    assert 0 <= (verdict.looks[-1].chance or 0) < 0.05
    # With nothing given up, the evaluation goes to its end and says the same.
    whole = rounds(candidate, reference, replace(EARLY, least_chance=0.0))
    assert whole.starts == 200 and not whole.decision().promoted


def test_one_look_at_the_end_ends_there_whatever_it_shows() -> None:
    candidate, reference = evaluations(RECAP, BASE, 200, np.random.default_rng(1))
    verdict = judge(candidate, reference, "base", 200, ONCE)
    assert (verdict.starts, len(verdict.looks), verdict.is_open) == (200, 1, False)
    assert "decided after" not in verdict.decision().reason


def test_fewer_starts_than_the_first_look_needs_are_named() -> None:
    with pytest.raises(InputError, match="8 starts were evaluated, and the first look is after 40"):
        judge(attempts("+" * 8), attempts("-" * 8), "base", 200, EARLY)


def test_a_loss_of_success_that_may_be_chance_has_more_starts_run_and_counts_at_the_end() -> None:
    """Twice as fast, 10 points less sure: 4 of 40 may be chance, so it goes on until that is clear."""
    candidate = attempts(("+" * 8 + "--") * 20, 2.0)
    reference = attempts(("+" * 7 + "-++") * 20)
    verdict = rounds(candidate, reference)
    assert [look.verdict for look in verdict.looks[:-1]] == [GUARD_OPEN] * (len(verdict.looks) - 1)
    assert len(verdict.looks) > 1 and verdict.looks[-1].verdict == HELD_BACK
    assert "the candidate is faster" in verdict.decision().reason
    assert "10 points less often" in verdict.decision().reason
    # Allowed by the site, it is promoted at once.
    assert rounds(candidate, reference, replace(EARLY, success_loss=0.1)).decision().promoted


def test_found_better_while_a_guard_rail_was_open_it_says_at_which_look_and_what_came_after() -> None:
    """Far better at first, no better later; interventions that may be chance had more starts run."""
    candidate = attempts("+" * 36 + "-" * 4 + "+-" * 80, interventions="xx" + "." * 198)
    reference = attempts("+-" * 20 + "++-" * 53 + "+", interventions="." * 90 + "xxx" + "." * 107)
    verdict = rounds(candidate, reference)
    assert [look.verdict for look in verdict.looks] == [GUARD_OPEN, GUARD_OPEN, BETTER]
    assert verdict.looks[-1].p > 0.4 and verdict.decision().reason == (
        "promoted: better than base on the same 40 starts (+360 successes per hour, p < 0.001; a guard rail "
        "was open then), and no guard rail was broken after 120 (+15 successes per hour [-98, +128], "
        "p = 0.453); decided after 120 of 200 starts"
    )
    # Had the interventions gone on, it would say both and be held back.
    candidate = [replace(one, interventions=1) for one in candidate[:120]] + candidate[120:]
    reference = [replace(one, interventions=0) for one in reference]
    more = [replace(one, interventions=int(i in (0, 1) or i > 39)) for i, one in enumerate(candidate)]
    held = rounds(more, reference)
    assert held.looks[0].verdict == GUARD_OPEN and held.looks[-1].verdict == HELD_BACK
    assert "faster (+360 successes per hour, p < 0.001 on the same 40 starts; " in held.decision().reason
    assert f" after {held.starts}), but on the same {held.starts} starts it " in held.decision().reason


def test_an_error_that_the_swaps_cannot_resolve_is_refused_and_the_least_can_promote() -> None:
    assert LEAST_SIGNIFICANCE == 1 / (SWAPS + 1)
    for make in (PromotionSection, PromotionRule):
        make(significance=LEAST_SIGNIFICANCE)
        with pytest.raises(InputError, match=r"0\.0001"):
            make(significance=0.00009)
    candidate, reference = attempts("+" * 100, 2.0), attempts("+-" * 50)
    assert (
        judge(candidate, reference, "base", 100, replace(ONCE, significance=LEAST_SIGNIFICANCE))
        .decision()
        .promoted
    )


def test_a_loss_on_one_task_holds_back_though_all_tasks_together_gained() -> None:
    candidate = attempts("+-" * 100, 2.0, tasks="ab")
    reference = attempts(("--" + "-+") * 50, tasks="ab")
    decision = judge(candidate, reference, "base", 200, ONCE).decision()
    assert not decision.promoted and "succeeds at 'b' 50 points less often" in decision.reason
    assert [(g["name"], g["verdict"]) for g in decision.guards] == [
        ("success rate", "passed"),
        ("a", "passed"),
        ("b", "failed"),
        ("interventions", "passed"),
    ]
    assert guard_that_holds(False, decision.guards) == "50 points fewer attempts succeed at “b”"


def test_a_task_is_not_judged_by_the_noise_of_few_starts() -> None:
    """Two of five starts of a task lost may be chance: it is told and does not hold back at the end."""
    candidate = attempts("+++-+++-++" * 1, 1.0, tasks="ab")
    reference = attempts("++++++++++" * 1, 4.0, tasks="ab")
    found = {guard.name: guard for guard in guards(candidate, reference, ONCE)}
    assert found["b"].starts == 5 and found["b"].worse == pytest.approx(40)
    assert found["b"].verdict == "open" and found["b"].low < 0
    assert not found["b"].holds_back(last=True)
    assert found["success rate"].holds_back(last=True) and not found["success rate"].holds_back(last=False)
    # The same share of many starts is beyond chance.
    many = {
        guard.name: guard
        for guard in guards(
            attempts("+++-+++-++" * 10, 1.0, tasks="ab"), attempts("+" * 100, 4.0, tasks="ab"), ONCE
        )
    }
    assert many["b"].verdict == "failed" and many["a"].verdict == "passed"


def test_more_interventions_hold_back_only_beyond_chance_and_beyond_what_is_allowed() -> None:
    candidate = attempts("+" * 100, 2.0, interventions="x" * 30)
    reference = attempts("+" * 100, 4.0, interventions="x" * 10)
    decision = judge(candidate, reference, "base", 100, ONCE).decision()
    assert not decision.promoted and "it needs 20 more interventions in 100 attempts" in decision.reason
    assert judge(candidate, reference, "base", 100, replace(ONCE, more_interventions=0.2)).decision().promoted
    few = attempts("+" * 100, 2.0, interventions="x" * 12)
    other = attempts("+" * 100, 4.0, interventions="." * 90 + "x" * 10)
    assert judge(few, other, "base", 100, ONCE).decision().promoted


def test_what_it_says_is_plain_json_and_complete() -> None:
    candidate, reference = evaluations(RECAP, BASE, 80, np.random.default_rng(2))
    decision = judge(candidate, reference, "base", 80, EARLY).decision()
    looks, rails = json.loads(json.dumps([decision.looks, decision.guards], allow_nan=False))
    assert {"starts", "difference", "p", "bound", "verdict", "chance"} == set(looks[0])
    assert {"name", "worse", "low", "high", "bound", "unit", "starts", "verdict", "strict"} == set(rails[0])
    for words in ("sign-swap test", "5 % error in all", "every 40 starts", "80 starts at most", "10 points"):
        assert words in decision.rule
    assert "looked at once" in judge(candidate, reference, "base", 80, ONCE).decision().rule


def test_the_table_says_of_the_one_to_be_beaten_what_the_decision_says() -> None:
    candidate, reference = evaluations(RECAP, BASE, 80, np.random.default_rng(2))
    plain = paired_difference(candidate, reference)
    decision = judge(candidate, reference, "base", 80, ONCE).decision()
    assert as_decided(plain, decision).better
    kept = replace(decision, looks=({**decision.looks[0], "verdict": "not better beyond chance", "p": 0.04},))
    assert not as_decided(plain, kept).better and as_decided(plain, kept).p_value == 0.04


def test_rounds_and_looks_of_a_rule() -> None:
    assert EARLY.rounds(200) == [40, 80, 120, 160, 200] == EARLY.looks(200)
    assert EARLY.rounds(90) == [40, 80, 90] and EARLY.rounds(40) == [40] and EARLY.rounds(8) == [8]
    assert ONCE.rounds(90) == [40, 80, 90] and ONCE.looks(90) == [90]
    for wrong in ({"round_starts": 1}, {"significance": 0.0}, {"least_chance": 0.5}):
        with pytest.raises(InputError):
            replace(ONCE, **wrong)


def test_a_sites_rule_replaces_what_it_names() -> None:
    said = PromotionSection(stop_early=False, round_starts=20, success_loss=0.02, starts=100)
    rule = EARLY.with_site(said)
    assert rule == replace(EARLY, stop_early=False, round_starts=20, success_loss=0.02)
    assert EARLY.with_site(said, sizes=False) == replace(rule, round_starts=40)
    assert EARLY.with_site(PromotionSection()) == EARLY


def test_the_page_on_promotion_names_every_bound_with_what_it_is_unless_said() -> None:
    page = (Path(__file__).parents[2] / "docs" / "promotion.md").read_text(encoding="utf-8")
    table = tomllib.loads(page.split("```toml\n")[1].split("```")[0])["promotion"]
    assert list(table) == [f.name for f in fields(PromotionSection)]
    turn = settings_from_site(FULL, SiteConfig())
    assert turn.evaluation_starts == table.pop("starts")
    assert asdict(turn.promotion) == table


def test_a_site_says_how_many_starts_and_a_quick_turn_stays_quick() -> None:
    site = SiteConfig(promotion=PromotionSection(starts=300, round_starts=50, success_loss=0.0))
    turn, quick = settings_from_site(FULL, site), settings_from_site(QUICK, site)
    assert (turn.evaluation_starts, turn.promotion.round_starts) == (300, 50)
    assert (quick.evaluation_starts, quick.promotion.round_starts) == (20, 10)
    assert turn.promotion.success_loss == quick.promotion.success_loss == 0.0
    assert turn.promotion.stop_early and quick.promotion.stop_early
    # The demo looks once, at all of its starts.
    assert not FULL.promotion.stop_early and not QUICK.promotion.stop_early

"""Independent second labels, disputes, adjudication and gold: what holds, who is asked, who may speak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.label_state import draw
from pipeline.labels import LabelStore, Lease, Mark, NewLabel, QueueFilter
from pipeline.site_config import LabelsSection

TASK = "pick up the red cube"
ALL_TWICE = LabelsSection(double_share=1.0, gold_share=0.0, reviewers=("rita",))

Opened = Callable[..., LabelStore]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens one file, that knows e0, e1 and e2, under some rules."""

    def open_with(rules: LabelsSection = ALL_TWICE) -> LabelStore:
        store = LabelStore(tmp_path / "labels.sqlite", rules=rules)
        store.sync([(f"e{i}", TASK) for i in range(3)])
        return store

    return open_with


def say(store: LabelStore, annotator: str, outcome: str, **more: object) -> str:
    """The annotator takes the next episode and answers; returns its id."""
    lease = store.claim(annotator)
    assert lease is not None
    store.record(lease, outcome, **more)  # type: ignore[arg-type]  # passed through
    return lease.episode_id


def outcome(store: LabelStore, episode: str) -> str | None:
    """What holds."""
    label = store.current().get(episode)
    return None if label is None else label.outcome


def test_a_second_person_is_asked_and_the_first_holds_until_then(opened: Opened) -> None:
    store = opened()
    assert [say(store, "ana", "success") for _ in range(3)] == ["e0", "e1", "e2"]
    assert store.claim("ana") is None, "the second is never the first"
    assert store.progress().awaiting_second == 3
    assert outcome(store, "e0") == "success"
    assert say(store, "bo", "success") == "e0"
    assert store.state("e0") == "agreed"
    assert store.current()["e0"].annotator == "ana"
    assert store.progress().awaiting_second == 2
    assert [say(store, "cy", "success") for _ in range(2)] == ["e1", "e2"]
    assert store.claim("bo") is None, "nobody is asked a third time"
    assert [len(store.opinions(f"e{i}")) for i in range(3)] == [2, 2, 2]


def test_who_differs_disputes_until_a_reviewer_speaks(opened: Opened) -> None:
    store = opened()
    say(store, "ana", "success", note="in the box", quality="clean", marks=[Mark("success", 7, 7)])
    say(store, "bo", "failure", note="beside it")
    assert store.state("e0") == "disputed"
    assert outcome(store, "e0") is None
    progress = store.progress()
    assert (progress.disputed, progress.unlabelled, progress.success, progress.total) == (1, 2, 0, 3)
    (dispute,) = store.disputed()
    assert (dispute.episode_id, dispute.task) == ("e0", TASK)
    assert [(o.annotator, o.outcome, o.note) for o in dispute.opinions] == [
        ("ana", "success", "in the box"),
        ("bo", "failure", "beside it"),
    ]
    assert dispute.opinions[0].marks == (Mark("success", 7, 7),)
    assert store.claim_episode("e0", "cy") is None, "a third annotator cannot decide it"
    with pytest.raises(InputError, match="disputed: only a reviewer"):
        store.set("e0", "success", "cy")
    with pytest.raises(InputError, match="cy is no reviewer"):
        store.adjudicate("e0", "success", "cy")
    store.adjudicate("e0", "success", "rita", "it is in", marks=[Mark("success", 8, 8)])
    assert (outcome(store, "e0"), store.state("e0"), store.disputed()) == ("success", "adjudicated", [])
    assert store.marks("e0") == [Mark("success", 8, 8)]
    assert len(store.opinions("e0")) == 2, "the opinions stay, for the agreement"
    with pytest.raises(InputError, match="adjudicated: only a reviewer"):
        store.set("e0", "failure", "bo")
    store.adjudicate("e0", "exclude", "rita")
    assert outcome(store, "e0") == "exclude"
    store.undo("rita")
    assert outcome(store, "e0") == "success"
    store.undo("rita")
    assert store.state("e0") == "disputed"


def test_only_what_is_disputed_is_adjudicated(opened: Opened) -> None:
    store = opened()
    with pytest.raises(InputError, match="not disputed but unlabelled"):
        store.adjudicate("e0", "success", "rita")
    with pytest.raises(InputError, match="does not know"):
        store.adjudicate("nope", "success", "rita")


def test_each_undoes_their_own_opinion_and_the_others_stands(opened: Opened) -> None:
    store = opened()
    say(store, "ana", "success")
    say(store, "bo", "failure")
    undone = store.undo("ana")
    assert undone is not None
    assert (undone.outcome, undone.role) == ("failure", "label")
    assert (outcome(store, "e0"), store.state("e0")) == ("failure", "single")
    again = store.claim_episode("e0", "ana")
    assert again is not None
    assert store.record(again, "failure").role == "second"
    assert store.state("e0") == "agreed"
    store.undo("bo")
    store.undo("ana")
    assert store.state("e0") == "unlabelled"


def test_changing_ones_mind_replaces_only_ones_own_opinion(opened: Opened) -> None:
    store = opened()
    say(store, "ana", "success")
    say(store, "bo", "failure")
    again = store.claim_episode("e0", "ana")
    assert again is not None, "who is party to a dispute may change their mind"
    event = store.record(again, "failure")
    assert (event.role, event.supersedes) == ("second", 1)
    assert (store.state("e0"), outcome(store, "e0")) == ("agreed", "failure")
    store.undo("ana")
    assert store.state("e0") == "disputed"


def test_a_page_that_was_reloaded_is_as_blind_as_before(opened: Opened) -> None:
    store = opened(LabelsSection(double_share=0.0))
    store.set("e0", "success", "ana")
    store.set_priorities({"e0": 1.5})
    lease = store.claim("bo", wanted=QueueFilter(order="helpful"))
    assert lease is not None and lease.episode_id == "e0", "the value model contradicts this label"
    again = store.claim_episode("e0", "bo")
    assert again is not None
    assert store.record(again, "failure").role == "second"
    assert store.state("e0") == "disputed"
    store.undo("bo")
    third = store.claim_episode("e0", "bo")
    assert third is not None
    assert store.record(third, "success").role == "second"


def test_undo_of_the_first_is_refused_only_when_it_was_replaced(opened: Opened) -> None:
    store = opened()
    say(store, "ana", "success")
    say(store, "bo", "failure")
    store.adjudicate("e0", "failure", "rita")
    with pytest.raises(InputError, match="rita has labelled e0 since"):
        store.undo("ana")


def test_the_share_is_chosen_by_the_ids_alone(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "l.sqlite", rules=LabelsSection(double_share=0.3, gold_share=0.0))
    ids = [f"episode-{i:04d}" for i in range(1000)]
    store.sync((i, TASK) for i in ids)
    store.set_all([NewLabel(i, "success", "ana") for i in ids])
    twice = set()
    while (lease := store.claim("bo")) is not None:
        twice.add(lease.episode_id)
    assert twice == {i for i in ids if draw(i) < 0.3}
    assert 250 < len(twice) < 350


def test_gold_is_asked_unmarked_and_changes_nothing_else(opened: Opened) -> None:
    store = opened(LabelsSection(double_share=1.0, gold_share=1.0, reviewers=("rita",)))
    with pytest.raises(InputError, match="ana is no reviewer"):
        store.set_gold("e2", "failure", "ana")
    store.set_gold("e2", "failure", "rita", "seen on site")
    assert (outcome(store, "e2"), store.gold()) == ("failure", {"e2": "failure"})
    lease = store.claim("ana")
    assert lease is not None and lease.episode_id == "e2"
    assert vars(Lease("e2", "ana", lease.fence, lease.expires)) == vars(lease)
    assert store.record(lease, "success", marks=[Mark("failure", 1, 1)]).role == "answer"
    assert (outcome(store, "e2"), store.marks("e2")) == ("failure", [])
    assert [event.outcome for event in store.labels_of("ana", 5)] == ["success"]
    assert say(store, "ana", "success") == "e0", "each gold episode once"
    assert say(store, "bo", "failure") == "e2"
    ritas = store.claim("rita")
    assert ritas is not None and ritas.episode_id == "e0", "who made it gold knows it"
    agreement = store.agreement()
    assert [(g.annotator, g.n, g.correct) for g in agreement.gold] == [("ana", 1, 0), ("bo", 1, 1)]
    assert agreement.n == 0
    with pytest.raises(InputError, match="gold: only a reviewer"):
        store.set("e2", "success", "bo")
    store.undo("bo")
    assert [(g.annotator, g.n) for g in store.agreement().gold] == [("ana", 1)]
    store.undo("rita")
    assert (store.state("e2"), store.gold(), store.agreement().gold) == ("unlabelled", {}, ())


def test_gold_comes_about_as_often_as_was_set(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "l.sqlite", rules=LabelsSection(double_share=0.0, gold_share=0.2))
    store.sync((f"e{i:03d}", TASK) for i in range(400))
    gold = {f"e{i:03d}" for i in range(300, 400)}
    for i in gold:
        store.set_gold(i, "success", "rita")
    asked = [say(store, "ana", "success") in gold for _ in range(200)]
    assert 25 <= sum(asked) <= 55
    assert store.agreement().gold[0].n == sum(asked)


def test_orders_filters_and_skipping(opened: Opened) -> None:
    store = opened(LabelsSection(double_share=0.0))
    store.sync([("a0", "open the drawer"), ("a1", "a third task")], {"a0": "policy", "e1": "corrected"})
    assert store.sync([("e2", TASK)], {"e2": "policy", "a1": "whoever"}) == 0

    def order(**wanted: str) -> list[str]:
        found: list[str] = []
        while (lease := store.claim("ana", wanted=QueueFilter(**wanted), skipped=found)) is not None:
            found.append(lease.episode_id)
            store.release(lease)
        return found

    assert order() == ["e0", "e1", "e2", "a0", "a1"]
    assert order(order="task") == ["a1", "a0", "e0", "e1", "e2"]
    store.set_priorities({"e1": 0.3, "a1": 0.9, "not here": 1.0})
    assert order(order="helpful") == ["a1", "e1", "e0", "e2", "a0"]
    assert order(order="helpful", task=TASK) == ["e1", "e0", "e2"]
    assert order(driver="policy") == ["e2", "a0"]
    assert order(driver="corrected", task=TASK) == ["e1"]
    store.set_priorities({"e0": 0.1})
    assert order(order="helpful") == ["e0", "e1", "e2", "a0", "a1"]
    for bad in ({"order": "newest"}, {"driver": "me"}):
        with pytest.raises(InputError, match="is one of"):
            QueueFilter(**bad)
    with pytest.raises(InputError, match="not NaN"):
        store.set_priorities({"e0": float("nan")})


def test_a_label_is_asked_for_again_only_where_it_is_contradicted(opened: Opened) -> None:
    store = opened(LabelsSection(double_share=0.0))
    for i in range(3):
        store.set(f"e{i}", "success", "ana")
    store.set_priorities({"e0": 0.99, "e1": 1.2, "e2": 1.7})
    helpful = QueueFilter(order="helpful")
    assert store.claim("bo") is None
    assert store.claim("ana", wanted=helpful) is None
    found = [lease.episode_id for _ in range(3) if (lease := store.claim("bo", wanted=helpful)) is not None]
    assert found == ["e2", "e1"]


def test_progress_of_the_last_hour(tmp_path: Path) -> None:
    now = [1_000_000.0]
    store = LabelStore(tmp_path / "l.sqlite", lambda: now[0])
    store.sync([("e0", TASK), ("e1", "other")])
    assert store.progress().last_hour == 0
    store.set("e0", "success", "ana")
    now[0] += 3000
    store.set("e1", "success", "ana")
    assert (store.progress().last_hour, store.progress("other").last_hour) == (2, 1)
    now[0] += 1000
    assert store.progress().last_hour == 1
    store.undo("ana")
    assert store.progress().last_hour == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("luck", 1, 1), "one of success, failure, segment"),
        (("success", -1, -1), "from 0 on"),
        (("success", 1.0, 1.0), "whole numbers"),
        (("success", True, True), "whole numbers"),
        (("failure", 1, 2), "is one frame"),
        (("segment", 2, 2, "reach"), "ends after it starts"),
        (("segment", 1, 2, " "), "says what is done"),
        (("segment", 1, 2, "a\0b"), "without NUL"),
        (("segment", 1, 2, "\ud800"), "valid text"),
    ],
)
def test_marks_that_make_no_sense_are_refused(fields: tuple[str, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mark(*fields)


def test_quality_marks_and_notes_are_kept_as_they_were_said(opened: Opened) -> None:
    store = opened(LabelsSection(double_share=0.0))
    marks = [Mark("segment", 5, 9, "heb op; 'drop'"), Mark("success", 9, 9), Mark("segment", 0, 5, "reik")]
    event = store.set(
        "e0", "success", "ana", "зачем\n'); DROP TABLE label_events", quality="clumsy", marks=marks
    )
    assert store.history("e0") == [event]
    assert store.marks("e0") == [marks[2], marks[0], marks[1]], "by frame"
    label = store.current()["e0"]
    assert (label.quality, label.note) == ("clumsy", "зачем\n'); DROP TABLE label_events")
    for bad in ({"quality": "good"}, {"note": "x" * 10_001}, {"note": "\ud800"}):
        with pytest.raises(InputError):
            store.set("e0", "success", "ana", **bad)  # type: ignore[arg-type]  # one of them
    assert store.marks("e1") == []


def test_several_labels_at_once_are_stored_together_or_not_at_all(opened: Opened) -> None:
    store = opened()
    with pytest.raises(InputError, match="does not know an episode 'nope'"):
        store.set_all([NewLabel("e0", "success", "ana"), NewLabel("nope", "success", "ana")])
    assert store.current() == {}
    assert len(store.set_all([NewLabel("e0", "success", "ana"), NewLabel("e1", "failure", "ana")])) == 2
    assert [event.episode_id for event in store.events()] == ["e0", "e1"]

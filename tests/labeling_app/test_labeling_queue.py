"""The annotator's queue on a real label store."""

from __future__ import annotations

import pytest

from labeling_app.labeling_queue import LabelingQueue, Ticket, annotator_name, refresh
from pipeline.errors import InputError
from pipeline.labels import LabelStore, StaleLease
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker


@pytest.fixture
def store(workspace: Workspace, make_episode: EpisodeMaker) -> LabelStore:
    """A store that knows three episodes, the last one of another task."""
    for task in ("pick up the red cube", "pick up the red cube", "pick up the blue cube"):
        make_episode(task=task)
    opened = LabelStore(workspace.labels_path)
    refresh(workspace, opened)
    return opened


def taken(queue: LabelingQueue, *skipped: str, preferred: str | None = None) -> Ticket:
    ticket = queue.take(skipped, preferred)
    assert ticket is not None
    return ticket


def test_two_people_never_see_the_same_episode(workspace: Workspace, store: LabelStore) -> None:
    ana, ben = LabelingQueue(workspace, store, "Ana"), LabelingQueue(workspace, store, "Ben")
    seen = [taken(queue).entry.id for queue in (ana, ben, ana)]
    assert seen == ["episode-000", "episode-001", "episode-002"]
    assert ben.take() is None


def test_skipped_episodes_come_last_and_are_free_for_others(workspace: Workspace, store: LabelStore) -> None:
    ana, ben = LabelingQueue(workspace, store, "Ana"), LabelingQueue(workspace, store, "Ben")
    first = taken(ana)
    ana.skip(first)
    second = taken(ana, first.entry.id)
    assert second.entry.id == "episode-001"
    assert taken(ben).entry.id == first.entry.id
    third = taken(ana, first.entry.id)
    ana.answer(second, "success")
    ana.answer(third, "failure")
    assert ana.take([first.entry.id]) is None


def test_a_task_narrows_queue_and_counts(workspace: Workspace, store: LabelStore) -> None:
    queue = LabelingQueue(workspace, store, "Ana", "pick up the blue cube")
    queue.answer(taken(queue), "exclude", "  camera fell  ")
    assert queue.take() is None
    assert (queue.progress().total, queue.progress().unlabelled) == (1, 0)
    (label,) = queue.own_labels(5)
    assert (label.episode_id, label.outcome, label.note) == ("episode-002", "exclude", "camera fell")


def test_after_a_reload_the_same_episode_is_taken_again(workspace: Workspace, store: LabelStore) -> None:
    ana = LabelingQueue(workspace, store, "Ana")
    before = taken(ana)
    after = taken(ana, preferred=before.entry.id)
    assert after.entry.id == before.entry.id
    with pytest.raises(StaleLease):
        ana.answer(before, "success")
    ana.answer(after, "success")


def test_someone_elses_or_an_unknown_episode_is_not_had_by_its_id(
    workspace: Workspace, store: LabelStore
) -> None:
    ana, ben = LabelingQueue(workspace, store, "Ana"), LabelingQueue(workspace, store, "Ben")
    held = taken(ana)
    assert taken(ben, preferred=held.entry.id).entry.id == "episode-001"
    assert taken(ben, preferred="no such episode").entry.id == "episode-002"


def test_undo_makes_the_episode_unlabelled_and_names_it(workspace: Workspace, store: LabelStore) -> None:
    ana = LabelingQueue(workspace, store, "Ana")
    assert ana.undo() is None
    first = taken(ana)
    ana.answer(first, "success")
    assert ana.is_labelled(first.entry.id)
    event = ana.undo()
    assert event is not None
    assert (event.episode_id, event.outcome) == (first.entry.id, None)
    assert not ana.is_labelled(first.entry.id)
    assert ana.own_labels(5) == []


def test_own_labels_hide_those_of_others_and_are_newest_first(
    workspace: Workspace, store: LabelStore
) -> None:
    ana, ben = LabelingQueue(workspace, store, "Ana"), LabelingQueue(workspace, store, "Ben")
    for queue, outcome in ((ana, "success"), (ben, "failure"), (ana, "failure")):
        queue.answer(taken(queue), outcome)
    assert [label.episode_id for label in ana.own_labels(5)] == ["episode-002", "episode-000"]
    assert [label.episode_id for label in ana.own_labels(1)] == ["episode-002"]


def test_a_lease_is_kept_until_another_person_labels(workspace: Workspace, store: LabelStore) -> None:
    ana = LabelingQueue(workspace, store, "Ana")
    ticket = ana.keep(taken(ana))
    store.set(ticket.entry.id, "failure", "Ben")
    with pytest.raises(StaleLease):
        ana.keep(ticket)


def test_an_unreadable_episode_is_passed_over(workspace: Workspace, store: LabelStore) -> None:
    workspace.find("episode-000").path.write_bytes(b"not HDF5")
    ana = LabelingQueue(workspace, store, "Ana")
    assert taken(ana).entry.id == "episode-001"
    assert taken(ana).entry.id == "episode-002"
    assert ana.take() is None
    assert store.progress().leased == 2


def test_refresh_finds_what_was_recorded_meanwhile(
    workspace: Workspace, store: LabelStore, make_episode: EpisodeMaker
) -> None:
    new = make_episode()
    assert list(refresh(workspace, store)) == [f"episode-{number:03d}" for number in range(3)] + [new.id]
    assert store.progress().total == 4


def test_names_are_trimmed_and_refused_when_not_printable() -> None:
    assert annotator_name("  Ana  María ") == "Ana María"
    for bad in ("", "   ", "a" * 61, "a\x00b"):
        with pytest.raises(InputError, match="a name has"):
            annotator_name(bad)

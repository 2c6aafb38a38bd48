"""The annotator's queue on a real label store."""

from __future__ import annotations

import pytest

from labeling_app.catalogue import Catalogue
from labeling_app.labeling_queue import LEFT_FOR_OTHERS, LabelingQueue, Ticket, annotator_name
from labeling_app.messages import Said
from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.labels import LabelStore, Left, QueueFilter, StaleLease
from pipeline.site_config import LabelsSection
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker


@pytest.fixture
def store(workspace: Workspace) -> LabelStore:
    """The workspace's label store."""
    return LabelStore(workspace.labels_path)


@pytest.fixture
def catalogue(workspace: Workspace, store: LabelStore, make_episode: EpisodeMaker) -> Catalogue:
    """A catalogue of three episodes, the last one of another task and driven by a policy."""
    for task in ("pick up the red cube", "pick up the red cube"):
        make_episode(task=task)
    make_episode(task="pick up the blue cube", sources=[Source.POLICY] * 12)
    found = Catalogue(workspace, store)
    found.look()
    return found


def queue_of(catalogue: Catalogue, name: str = "Ana", wanted: QueueFilter | None = None) -> LabelingQueue:
    return LabelingQueue(catalogue, catalogue.store, name, wanted)


def taken(queue: LabelingQueue, *skipped: str, preferred: str | None = None) -> Ticket:
    ticket = queue.take(skipped, preferred)
    assert ticket is not None
    return ticket


def say(queue: LabelingQueue, ticket: Ticket, outcome: str, note: str = "") -> None:
    queue.answer(ticket, Said(ticket.token, outcome, note=note))


def test_two_people_never_see_the_same_episode(catalogue: Catalogue) -> None:
    ana, ben = queue_of(catalogue, "Ana"), queue_of(catalogue, "Ben")
    seen = [taken(queue).entry.id for queue in (ana, ben, ana)]
    assert seen == ["episode-000", "episode-001", "episode-002"]
    assert ben.take() is None


def test_skipped_episodes_are_free_for_others(catalogue: Catalogue) -> None:
    ana, ben = queue_of(catalogue, "Ana"), queue_of(catalogue, "Ben")
    first = taken(ana)
    ana.give_back(first)
    second = taken(ana, first.entry.id)
    assert second.entry.id == "episode-001"
    assert taken(ben).entry.id == first.entry.id
    third = taken(ana, first.entry.id)
    say(ana, second, "success")
    say(ana, third, "failure")
    assert ana.take([first.entry.id]) is None


def test_a_filter_narrows_queue_and_counts(catalogue: Catalogue) -> None:
    queue = queue_of(catalogue, wanted=QueueFilter(task="pick up the blue cube"))
    say(queue, taken(queue), "exclude", "camera fell")
    assert queue.take() is None
    assert (queue.progress().total, queue.progress().unlabelled) == (1, 0)
    (label,) = queue.own_labels(5)
    assert (label.episode_id, label.outcome, label.note) == ("episode-002", "exclude", "camera fell")
    assert taken(queue_of(catalogue, "Ben", QueueFilter(driver="teleop"))).entry.id == "episode-000"
    assert queue_of(catalogue, "Ben", QueueFilter(driver="corrected")).take() is None


def test_after_a_reload_the_lease_goes_on(catalogue: Catalogue) -> None:
    ana, ben = queue_of(catalogue, "Ana"), queue_of(catalogue, "Ben")
    before = taken(ana)
    after = ana.resume(before.token)
    assert after is not None
    assert after.entry.id == before.entry.id
    assert ben.resume(before.token) is None
    say(ana, after, "success")
    with pytest.raises(StaleLease):
        say(ana, before, "failure")
    assert ana.resume(before.token) is None


@pytest.mark.parametrize(
    "token", [None, "", ":", "episode-000", "episode-000:x", "no such:1", "../x:1", "é:²"]
)
def test_a_made_up_token_gives_nothing(catalogue: Catalogue, token: str | None) -> None:
    assert queue_of(catalogue).resume(token) is None


def test_someone_elses_or_an_unknown_episode_is_not_had_by_its_id(catalogue: Catalogue) -> None:
    ana, ben = queue_of(catalogue, "Ana"), queue_of(catalogue, "Ben")
    held = taken(ana)
    assert taken(ben, preferred=held.entry.id).entry.id == "episode-001"
    assert taken(ben, preferred="no such episode").entry.id == "episode-002"


def test_undo_makes_the_episode_unlabelled_and_names_it(catalogue: Catalogue) -> None:
    ana = queue_of(catalogue)
    assert ana.undo() is None
    first = taken(ana)
    say(ana, first, "success")
    event = ana.undo()
    assert event is not None
    assert (event.episode_id, event.outcome) == (first.entry.id, "success")
    assert ana.own_labels(5) == []


def test_undo_on_the_label_page_never_takes_back_a_reviewers_decision(catalogue: Catalogue) -> None:
    ana, store = queue_of(catalogue), catalogue.store
    say(ana, taken(ana), "success")
    store.set_gold("episode-001", "failure", "Ana")
    assert [label.episode_id for label in ana.own_labels(5)] == ["episode-000"]
    taken_back = ana.undo()
    assert taken_back is not None
    assert taken_back.episode_id == "episode-000"
    assert ana.undo() is None
    assert store.state("episode-001") == "gold"


def test_what_is_left_moves_by_one_with_each_answer_of_any_kind(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    for _ in range(8):
        make_episode()
    rules = LabelsSection(double_share=1.0, gold_share=0.5)
    catalogue = Catalogue(workspace, LabelStore(workspace.labels_path, rules=rules))
    catalogue.look()
    for number in range(3):
        catalogue.store.set_gold(f"episode-00{number}", "success", "Rita")
    ben, ana = queue_of(catalogue, "Ben"), queue_of(catalogue, "Ana")
    say(ben, taken(ben), "failure")
    left, answered = ana.left(), 0
    while (ticket := ana.take()) is not None:
        say(ana, ticket, "success")
        answered += 1
        assert ana.left() == Left(answered, left.to_go - answered)
    assert ana.left().to_go == 0


def test_own_labels_hide_those_of_others_and_are_newest_first(catalogue: Catalogue) -> None:
    ana, ben = queue_of(catalogue, "Ana"), queue_of(catalogue, "Ben")
    for queue, outcome in ((ana, "success"), (ben, "failure"), (ana, "failure")):
        say(queue, taken(queue), outcome)
    assert [label.episode_id for label in ana.own_labels(5)] == ["episode-002", "episode-000"]
    assert [label.episode_id for label in ana.own_labels(1)] == ["episode-002"]


def test_a_lease_is_kept_until_another_person_labels(catalogue: Catalogue) -> None:
    ana = queue_of(catalogue)
    ticket = ana.keep(taken(ana))
    catalogue.store.set(ticket.entry.id, "failure", "Ben")
    with pytest.raises(StaleLease):
        ana.keep(ticket)
    assert ana.kept(ticket) is None


def test_the_episode_ahead_is_left_alone_near_the_end(
    catalogue: Catalogue, make_episode: EpisodeMaker
) -> None:
    ana = queue_of(catalogue)
    taken(ana)
    assert ana.take_ahead() is None
    for _ in range(LEFT_FOR_OTHERS):
        make_episode()
    catalogue.look()
    ahead = ana.take_ahead()
    assert ahead is not None
    assert ahead.entry.id == "episode-001"


def test_an_unreadable_episode_is_passed_over(workspace: Workspace, catalogue: Catalogue) -> None:
    workspace.find("episode-000").path.write_bytes(b"not HDF5")
    catalogue.look()
    ana = queue_of(catalogue)
    assert taken(ana).entry.id == "episode-001"
    workspace.find("episode-002").path.unlink()  # and one that has gone since
    assert ana.take() is None
    assert catalogue.store.progress().leased == 1


def test_the_catalogue_finds_what_was_recorded_meanwhile(
    catalogue: Catalogue, make_episode: EpisodeMaker
) -> None:
    new = make_episode()
    assert new.id not in catalogue.episodes()
    catalogue.look()
    assert list(catalogue.episodes()) == [f"episode-{number:03d}" for number in range(4)]
    assert catalogue.store.progress().total == 4
    assert catalogue.tasks() == ["pick up the blue cube", "pick up the red cube"]
    with pytest.raises(InputError, match="no readable episode"):
        catalogue.find("../labels")


def test_names_are_trimmed_and_refused_when_not_printable() -> None:
    assert annotator_name("  Ana  María ") == "Ana María"
    for bad in ("", "   ", "a" * 61, "a\x00b"):
        with pytest.raises(InputError, match="a name has"):
            annotator_name(bad)

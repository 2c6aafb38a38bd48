"""Scoring: every frame once, by the right models, whatever shares a batch with it; faults are named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from tests.value_model.synthetic import SIZE, SMALL, make_table
from value_model import scoring
from value_model.bins import ValueBins
from value_model.checkpoint import ModelRecord, load_network, read_record, save_checkpoint
from value_model.frame_feed import Batch, FrameFeed, Unreadable
from value_model.network import build_network
from value_model.scoring import FoldCheckpoint, score, score_episodes, work_items
from value_model.scoring_models import ScoringModels
from value_model.scoring_pass import EpisodeScores

CONFIG = replace(SMALL, members=2, network=replace(SMALL.network, state_size=15))


@dataclass
class MadeEpisode:
    """An episode of random frames, the same whenever they are read."""

    number: int
    length: int
    task: str = "pick up the red cube"
    unreadable_from: int | None = None
    not_a_number_at: int | None = None
    copied_from: str = ""
    reads: int = 0

    @property
    def episode_id(self) -> str:
        """As models know it."""
        return f"e{self.number:03d}"

    @property
    def content(self) -> str:
        """Of frames that are its own, unless it says whose they are."""
        return self.copied_from or self.episode_id

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """One small camera."""
        return (1, SIZE, SIZE, 3)

    @property
    def state_size(self) -> int:
        """As recorded."""
        return 15

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All images and states."""
        rng = np.random.default_rng(self.number)
        images = rng.integers(0, 255, (self.length, *self.image_shape), dtype=np.uint8)
        state = rng.normal(size=(self.length, 15)).astype(np.float32)
        if self.not_a_number_at is not None:
            state[self.not_a_number_at, 3] = np.nan
        return images, state

    @contextmanager
    def opened(self) -> Iterator[MadeEpisode]:
        """Nothing is to be opened."""
        yield self

    def read(self, start: int, images: np.ndarray, state: np.ndarray) -> None:
        """Copies frames, unless they are past the point where it breaks off."""
        stop = start + len(images)
        if self.unreadable_from is not None and stop > self.unreadable_from:
            raise InputError(f"episode {self.episode_id} is not whole")
        self.reads += len(images)
        own_images, own_state = self.arrays()
        images[:], state[:] = own_images[start:stop], own_state[start:stop]


class Episodes:
    """A source of frames."""

    def __init__(self, episodes: list[MadeEpisode]) -> None:
        self.by_id = {episode.episode_id: episode for episode in episodes}

    def episode(self, episode_id: str) -> MadeEpisode:
        """One of them."""
        return self.by_id[episode_id]


def make_models(
    folder: Path, seen_of_fold: list[list[str]], *, contents: bool = True
) -> list[FoldCheckpoint]:
    """Two models of random weights a fold; the k-th fold's have seen the k-th list of episodes.

    Without ``contents`` their records are those of an earlier version.
    """
    checkpoints: list[FoldCheckpoint] = []
    for fold, seen in enumerate(seen_of_fold):
        for member in range(2):
            torch.manual_seed(10 * fold + member)
            network = build_network(CONFIG.network)
            with torch.no_grad():
                for weights in network.parameters():
                    weights.mul_(2.0)
            path = folder / f"{fold}-{member}"
            record = ModelRecord(fold, member, tuple(seen), CONFIG.network, {}, 1, 1.0, None)
            if contents:
                record = replace(record, seen_contents=tuple(seen))
            save_checkpoint(path, network, record)
            checkpoints.append((fold, member, path))
    return checkpoints


@torch.inference_mode()
def one_by_one(episode: MadeEpisode, checkpoints: list[FoldCheckpoint]) -> np.ndarray:
    """The values of each model that may score the episode, frame by frame: ``(models, T)``."""
    images, state = episode.arrays()
    found = []
    for _, _, path in checkpoints:
        record = read_record(path)
        if episode.episode_id in record.seen:
            continue
        network = load_network(path, record)
        tokens = network.tokenize([episode.task])
        logits = [
            network(torch.from_numpy(images[t : t + 1]), torch.from_numpy(state[t : t + 1]), tokens)
            for t in range(episode.length)
        ]
        found.append(ValueBins(record.network.bins).expectation(torch.cat(logits)).numpy())
    return np.array(found)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[FoldCheckpoint]:
    return make_models(
        tmp_path_factory.mktemp("models"),
        [[f"e{i:03d}" for i in range(1, 20, 2)], [f"e{i:03d}" for i in range(0, 20, 2)]],
    )


def scored(
    episodes: list[MadeEpisode], checkpoints: list[FoldCheckpoint]
) -> tuple[dict[str, EpisodeScores], dict[str, str]]:
    found: dict[str, EpisodeScores] = {}
    failed: dict[str, str] = {}
    score_episodes(
        Episodes(episodes),
        [e.episode_id for e in episodes],
        checkpoints,
        CONFIG,
        found.__setitem__,
        lambda episode_id, error: failed.__setitem__(episode_id, str(error)),
    )
    return found, failed


def test_batches_across_episodes_give_each_frame_its_own_value_and_spread(
    checkpoints: list[FoldCheckpoint],
) -> None:
    # Lengths around the batch size, two tasks, both folds, and two episodes that no model has seen.
    lengths = [1, 5, 63, 64, 65, 130, 7, 200]
    tasks = ("pick up the red cube", "pick up the blue cube")
    episodes = [
        MadeEpisode(number if number < 6 else 50 + number, length, tasks[number % 2])
        for number, length in enumerate(lengths)
    ]
    found, failed = scored(episodes, checkpoints)
    assert failed == {}
    for episode in episodes:
        each = one_by_one(episode, checkpoints)
        assert len(each) == (2 if episode.number < 6 else 4)
        np.testing.assert_allclose(found[episode.episode_id].value, each.mean(0), atol=2e-6)
        np.testing.assert_allclose(found[episode.episode_id].spread, each.std(0), atol=2e-6)
        assert found[episode.episode_id].value.dtype == np.float32
        assert episode.reads == episode.length, "each frame is read once for all models"
    assert np.ptp(found["e005"].value) > 1e-3 and found["e005"].spread.max() > 1e-4


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), batch=st.integers(2, 17))
def test_the_feed_fills_every_batch_but_a_groups_last_and_loses_no_frame(
    lengths: list[int], batch: int
) -> None:
    episodes = [MadeEpisode(number, length) for number, length in enumerate(lengths)]
    groups = [list(range(0, len(lengths), 2)), list(range(1, len(lengths), 2))]
    seen: list[tuple[int, int]] = []
    sizes: dict[int, list[int]] = {0: [], 1: []}
    feed = FrameFeed(episodes, groups, batch, depth=2)
    with feed:
        for item in feed:
            assert isinstance(item, Batch)
            sizes[item.group].append(len(item.images))
            for part in item.stretches:
                images, state = episodes[part.episode].arrays()
                rows, frames = (
                    slice(part.row, part.row + part.count),
                    slice(part.first_frame, part.first_frame + part.count),
                )
                assert (item.images[rows].numpy() == images[frames]).all()
                assert (item.state[rows].numpy() == state[frames]).all()
                assert (item.episodes[rows] == part.episode).all()
                seen += [(part.episode, t) for t in range(frames.start, frames.stop)]
            feed.release(item)
    assert sorted(seen) == [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    for group, positions in enumerate(groups):
        total = sum(lengths[i] for i in positions)
        assert sizes[group] == [batch] * (total // batch) + ([total % batch] if total % batch else [])


def test_a_feed_that_is_left_early_ends_its_thread() -> None:
    feed = FrameFeed([MadeEpisode(0, 1000)], [[0]], 10, depth=2)
    with feed:
        next(iter(feed))
    assert not feed._thread.is_alive()


def test_an_episode_that_breaks_off_costs_only_itself(checkpoints: list[FoldCheckpoint]) -> None:
    whole = [MadeEpisode(number, 30) for number in (0, 2, 4)]
    broken = MadeEpisode(6, 200, unreadable_from=100)
    spoilt = MadeEpisode(8, 40, not_a_number_at=17)
    found, failed = scored([whole[0], broken, whole[1], spoilt, whole[2]], checkpoints)
    assert set(found) == {"e000", "e002", "e004"}
    assert failed == {
        "e006": "episode e006 is not whole",
        "e008": "frame 17 of episode e008 gets a value that is not finite: look for NaN in its states",
    }
    for episode in whole:
        each = one_by_one(episode, checkpoints)
        np.testing.assert_allclose(found[episode.episode_id].value, each.mean(0), atol=2e-6)


def test_a_copy_under_another_id_is_scored_by_the_models_of_its_original_alone(
    checkpoints: list[FoldCheckpoint], tmp_path: Path
) -> None:
    copies = [MadeEpisode(50, 30, copied_from="e002"), MadeEpisode(51, 30, copied_from="e003")]
    found, failed = scored(copies, checkpoints)
    assert failed == {}
    models = ScoringModels(checkpoints, CONFIG)
    assert [models.allowed(e.episode_id, e.content) for e in copies] == [(0, 1), (2, 3)]
    for episode, own in zip(copies, (slice(0, 2), slice(2, 4)), strict=True):
        each = one_by_one(episode, checkpoints)
        assert len(each) == 4, "its id is on no model's list"
        np.testing.assert_allclose(found[episode.episode_id].value, each[own].mean(0), atol=2e-6)
    # Records from before contents were written down go by the id.
    older = make_models(tmp_path, [["e001"], ["e000"]], contents=False)
    assert ScoringModels(older, CONFIG).allowed("copy", "e001") == (0, 1, 2, 3)


def test_the_feed_names_what_it_could_not_read_and_goes_on() -> None:
    episodes = [MadeEpisode(0, 3), MadeEpisode(1, 9, unreadable_from=8), MadeEpisode(2, 3)]
    feed = FrameFeed(episodes, [[0, 1, 2]], 4)
    with feed:
        items = list(feed)
    assert [i.episode for i in items if isinstance(i, Unreadable)] == [1]
    frames = [
        (s.episode, s.first_frame + k)
        for i in items
        if isinstance(i, Batch)
        for s in i.stretches
        for k in range(s.count)
    ]
    assert [f for f in frames if f[0] != 1] == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]


def test_without_a_place_for_faults_the_first_is_raised(checkpoints: list[FoldCheckpoint]) -> None:
    spoilt = MadeEpisode(8, 40, not_a_number_at=0)
    with pytest.raises(InputError, match="frame 0 of episode e008"):
        score_episodes(Episodes([spoilt]), ["e008"], checkpoints, CONFIG, lambda *_: None)


def test_items_hold_episodes_of_the_same_models_and_do_not_depend_on_each_other(
    checkpoints: list[FoldCheckpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "ITEM_FRAMES", 100)
    models = ScoringModels(checkpoints, CONFIG)
    lengths = [10 + 7 * i % 60 for i in range(20)]
    episodes = [MadeEpisode(i, length) for i, length in enumerate(lengths)]
    items = work_items(episodes, models)
    assert sorted(i for item in items for i in item) == list(range(20))
    for item in items:
        assert len({models.allowed(episodes[i].episode_id, episodes[i].content) for i in item}) == 1
        assert sum(lengths[i] for i in item[:-1]) < 100, "closed as soon as it is full"
        again = work_items([episodes[i] for i in item], models)
        assert again == [list(range(len(item)))], "whoever gets an item deals it out alike"
    assert sum(sum(lengths[i] for i in item) < 100 for item in items) <= 2


def test_a_table_is_scored_like_its_episodes(checkpoints: list[FoldCheckpoint]) -> None:
    rng = np.random.default_rng(0)
    lengths = [20, 70, 33]
    images = [rng.integers(0, 255, (n, 1, SIZE, SIZE, 3), dtype=np.uint8) for n in lengths]
    table: FrameTable = make_table(lengths, images=images)
    told: list[tuple[int, int]] = []
    values = score(table, checkpoints, CONFIG, lambda done, total: told.append((done, total)))
    assert values.shape == (123,) and np.isfinite(values).all()
    assert sorted(told) == told and told[-1] == (123, 123)
    alone = score(make_table([70], images=[images[1]]), checkpoints, CONFIG)
    # The same frames under another name, e000, are scored by the other fold's models.
    assert np.abs(alone - values[table.frames_of(1)]).max() > 1e-3


def test_frames_of_another_shape_are_refused_by_name(checkpoints: list[FoldCheckpoint]) -> None:
    wide = make_table([4], images=[np.zeros((4, 2, SIZE, SIZE, 3), np.uint8)])
    with pytest.raises(InputError, match="episode e000: frames have images of shape"):
        score(wide, checkpoints, CONFIG)


def test_bfloat16_is_used_where_the_models_were_trained_in_it(checkpoints: list[FoldCheckpoint]) -> None:
    episode = MadeEpisode(0, 30)
    exact, _ = scored([episode], checkpoints)
    found: dict[str, EpisodeScores] = {}
    score_episodes(
        Episodes([episode]), ["e000"], checkpoints, replace(CONFIG, precision="bfloat16"), found.__setitem__
    )
    difference = np.abs(found["e000"].value - exact["e000"].value).max()
    assert 0 < difference < 0.05

"""The torch dataset: every sample equals a plain loop over the cache, in any number of workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pipeline.episode import CAMERAS
from pipeline.errors import InputError
from pipeline.frame_cache import CachedEpisode, FrameCache
from pipeline.frame_dataset import FrameDataset, as_is
from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, NONE, POSITIVE, parse_prompt, prompt
from tests.pipeline.episodes import make_frames, make_info, write_episode

LENGTHS = (7, 1, 12)
FRAMES = sum(LENGTHS)
SIZE = 10
INDICATORS = (np.arange(FRAMES) % 3 - 1).astype(np.int8)
VALUES = np.linspace(-1, 0, FRAMES)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FrameCache:
    folder = tmp_path_factory.mktemp("dataset")
    cache = FrameCache(folder / "cache", SIZE)
    for number, length in enumerate(LENGTHS):
        info = make_info(f"e{number}", task=f"task {number}")
        cache.build(write_episode(folder / f"e{number}.h5", make_frames(length, seed=number), info))
    return cache


@pytest.fixture(scope="module", params=[False, True], ids=["mapped", "preloaded"])
def table(request: pytest.FixtureRequest, cache: FrameCache) -> FrameTable:
    return FrameTable.load(cache, ["e0", "e1", "e2"], preload=request.param)


def place(table: FrameTable, cache: FrameCache, row: int) -> tuple[CachedEpisode, int]:
    """The cached episode of a row, and the frame in it."""
    episode = cache.open(table.episode_ids[table.episode_index[row]])
    return episode, int(table.frame_index[row])


@settings(deadline=None, max_examples=40)
@given(row=st.integers(0, FRAMES - 1), chunk=st.integers(1, 14), history=st.integers(0, 9))
def test_a_sample_equals_a_plain_loop(
    table: FrameTable, cache: FrameCache, row: int, chunk: int, history: int
) -> None:
    dataset = FrameDataset(
        table, chunk=chunk, history=history, indicators=INDICATORS, scores={"value": VALUES}
    )
    sample = dataset[row]
    episode, frame = place(table, cache, row)
    wanted = [frame - back for back in range(history, -1, -1)]
    for column, camera in enumerate(CAMERAS):
        images = sample[f"observation.images.{camera}"]
        expected = np.stack([episode.images[max(0, i), column].transpose(2, 0, 1) for i in wanted])
        assert images.dtype == torch.uint8
        assert torch.equal(images if history else images[None], torch.from_numpy(expected))
    state = np.stack([episode.state[max(0, i)] for i in wanted])
    assert torch.equal(sample["observation.state"], torch.from_numpy(state if history else state[0]))
    masks = [key for key in sample if key.startswith("observation.") and key.endswith("_is_pad")]
    assert len(masks) == (3 if history else 0)
    assert all(sample[key].tolist() == [i < 0 for i in wanted] for key in masks)
    last = episode.length - 1
    assert sample["action"].shape == (chunk, 7)
    for step in range(chunk):
        expected_action = torch.from_numpy(episode.action[min(frame + step, last)].copy())
        assert torch.equal(sample["action"][step], expected_action)
    assert sample["action_is_pad"].tolist() == [frame + step > last for step in range(chunk)]
    names = {POSITIVE: "positive", NEGATIVE: "negative", NONE: None}
    assert sample["task"] == prompt(episode.task, names[int(INDICATORS[row])])  # type: ignore[arg-type]  # literals
    assert (sample["index"].item(), sample["value"].item()) == (row, np.float32(VALUES[row]))


def load(dataset: FrameDataset, **options: Any) -> list[dict[str, Any]]:
    return list(DataLoader(dataset, batch_size=6, collate_fn=as_is, **options))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


# A spawned worker loads torch anew, for seconds: one shows that it gets all it needs, two that they agree.
@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_what_this_process_gives(table: FrameTable, context: str, workers: int) -> None:
    dataset = FrameDataset(
        table, chunk=4, history=2, indicators=INDICATORS, indicator_dropout=0.5, scores={"value": VALUES}
    )
    here = load(dataset)
    assert sum(len(batch["task"]) for batch in here) == FRAMES
    there = load(dataset, num_workers=workers, multiprocessing_context=context)
    assert len(here) == len(there) and all(map(same, here, there))


def test_a_batch_is_its_samples(table: FrameTable) -> None:
    dataset = FrameDataset(table, chunk=4, history=1, scores={"value": VALUES})
    rows = [19, 0, 7, 0]
    batch = dataset.__getitems__(rows)
    for position, row in enumerate(rows):
        sample = {key: value[position] for key, value in batch.items()}
        assert same(sample, dataset[row])


def test_images_of_all_cameras_share_one_copy(table: FrameTable) -> None:
    batch = FrameDataset(table, chunk=2).__getitems__([3, 4, 5])
    first, second = (batch[f"observation.images.{camera}"] for camera in CAMERAS)
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    assert first.untyped_storage().nbytes() == 3 * 2 * SIZE * SIZE * 3
    first.zero_()  # a batch may be written to, and the cache stays as it was
    assert FrameDataset(table, chunk=2)[3][f"observation.images.{CAMERAS[0]}"].any()


def test_pickled_it_takes_no_images_along(cache: FrameCache) -> None:
    table = FrameTable.load(cache, ["e0", "e1", "e2"], preload=True)
    images = FRAMES * 2 * SIZE * SIZE * 3
    packed = pickle.dumps(FrameDataset(table, chunk=3))
    assert len(packed) < images / 2
    assert same(pickle.loads(packed)[5], FrameDataset(table, chunk=3)[5])


def test_dropout_follows_seed_and_epoch_alone(table: FrameTable) -> None:
    always = np.full(FRAMES, POSITIVE, np.int8)

    def kept(seed: int, epoch: int, order: list[int]) -> list[bool]:
        dataset = FrameDataset(table, chunk=1, indicators=always, indicator_dropout=0.5, seed=seed)
        dataset.set_epoch(epoch)
        texts = dataset.__getitems__(order)["task"]
        found = dict(zip(order, [parse_prompt(text)[1] is not None for text in texts], strict=True))
        return [found[row] for row in range(FRAMES)]

    rows = list(range(FRAMES))
    assert kept(0, 0, rows) == kept(0, 0, rows[::-1])
    assert kept(0, 0, rows) != kept(0, 1, rows) != kept(1, 1, rows)
    assert 0 < sum(kept(0, 0, rows)) < FRAMES


def test_workers_that_live_on_hear_of_a_new_epoch(table: FrameTable) -> None:
    always = np.full(FRAMES, POSITIVE, np.int8)
    dataset = FrameDataset(table, chunk=1, indicators=always, indicator_dropout=0.5)
    loader = DataLoader(dataset, batch_size=FRAMES, collate_fn=as_is, num_workers=1, persistent_workers=True)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        (batch,) = list(loader)
        assert batch["task"] == dataset.__getitems__(range(FRAMES))["task"]


def test_rows_choose_and_order_the_samples(table: FrameTable) -> None:
    dataset = FrameDataset(table, chunk=2, rows=np.array([9, 2, 9]))
    assert len(dataset) == 3
    assert [dataset[i]["index"].item() for i in range(3)] == [9, 2, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0}, "a chunk of 0"),
        ({"history": -1}, "-1 past frames"),
        ({"rows": np.array([0, FRAMES])}, f"rows go from 0 to {FRAMES}"),
        ({"rows": np.array([-1])}, "rows go from -1"),
        ({"rows": np.array([0.5])}, "whole numbers"),
        ({"indicators": INDICATORS[1:]}, f"there are {FRAMES} frames and indicators"),
        ({"indicators": INDICATORS.astype(np.int64)}, "int8"),
        ({"indicators": INDICATORS, "indicator_dropout": 1.5}, "dropout 1.5"),
        ({"scores": {"value": VALUES[1:]}}, "score 'value'"),
    ],
)
def test_what_does_not_fit_is_refused(table: FrameTable, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrameDataset(table, **{"chunk": 2, **options})


def test_a_table_whose_files_are_gone_says_so(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache", SIZE)
    cache.build(write_episode(tmp_path / "e.h5", make_frames(3), make_info("e")))
    table = FrameTable.load(cache, ["e"])
    packed = pickle.dumps(table)
    cache.open("e").image_file.unlink()
    assert table.images(np.array([2])).any()  # what is mapped stays
    with pytest.raises(InputError, match="a cached episode is gone"):
        pickle.loads(packed)

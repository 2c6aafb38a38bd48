"""Conditioned views: each frame's prompt is in the data, all else is the base's, videos are shared."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import atomic_folder
from pipeline.conditioned_view import number_prompts
from pipeline.durable_files import fsync_path
from pipeline.episode import Source
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.lerobot_statistics import QUANTILES, segment_statistics
from pipeline.prompts import INDICATOR_NAMES, NEGATIVE, NONE, POSITIVE, parse_prompt, prompt
from tests.pipeline.datasets import (
    BLUE,
    CODES,
    RED,
    columns_of,
    contents,
    export,
    indicators_of,
    names,
    open_dataset,
    three_episodes,
    view,
)
from tests.tiny_episodes import EpisodeMaker

pytest.importorskip("lerobot.datasets")

NUMBERED = ("observation.state", "action", "policy_action", "source", "timestamp_ns", "index", "next.done")


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeEntry]:
    return three_episodes(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def base(entries: list[EpisodeEntry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(entries, tmp_path_factory.mktemp("datasets") / "base")


@pytest.fixture(scope="module")
def made(base: Path, entries: list[EpisodeEntry]) -> Path:
    """The view of that base, for tests that only read it."""
    return view(base, entries, base.with_name("view"))


def prompts_in(root: Path) -> list[str]:
    dataset = open_dataset(root)
    tasks = dataset.meta.tasks.index
    return [tasks[number] for number in dataset.hf_dataset.data.column("task_index").to_pylist()]


def test_each_frame_has_its_own_prompt(entries: list[EpisodeEntry], made: Path) -> None:
    dataset = open_dataset(made)
    found = [parse_prompt(dataset[i]["task"]) for i in range(len(dataset))]
    words = {POSITIVE: "positive", NEGATIVE: "negative", NONE: None}
    indicators = indicators_of(entries)
    assert found == [(e.info.task, words[int(code)]) for e in entries for code in indicators[e.id]]
    suffixes = ("", ". Advantage: positive", ". Advantage: negative")
    wanted = sorted(f"{task}{suffix}" for task in (RED, BLUE) for suffix in suffixes)
    assert list(dataset.meta.tasks.index) == wanted
    assert dataset.meta.total_tasks == 6
    assert [set(tasks) for tasks in dataset.meta.episodes["tasks"]] == [
        {f"{e.info.task}{s}" for s in suffixes[: e.length] if e.length > 1} or {f"{e.info.task}{suffixes[1]}"}
        for e in entries
    ]


def test_all_else_is_that_of_the_base(entries: list[EpisodeEntry], base: Path, made: Path) -> None:
    plain, conditioned, columns = open_dataset(base), open_dataset(made), columns_of(entries)
    assert set(conditioned.features) == set(plain.features) | set(columns)
    for name in NUMBERED:
        ours, theirs = (np.array(d.hf_dataset.data.column(name).to_pylist()) for d in (conditioned, plain))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    for name, per_episode in columns.items():
        values = conditioned.hf_dataset.data.column(name).to_numpy()
        np.testing.assert_array_equal(values, np.concatenate([per_episode[e.id] for e in entries]))
    for i in (0, 8, 9, 13):
        for camera in ("observation.images.table", "observation.images.wrist"):
            assert (conditioned[i][camera] == plain[i][camera]).all()
    for name in set(plain.meta.episodes.column_names) - {"tasks"}:
        assert conditioned.meta.episodes[name] == plain.meta.episodes[name], name


def test_videos_are_the_same_files(base: Path, made: Path) -> None:
    videos = sorted(path.relative_to(base) for path in base.rglob("*.mp4"))
    assert len(videos) == 6
    assert all((made / name).samefile(base / name) for name in videos)


def test_where_links_are_not_possible_videos_are_copied(
    entries: list[EpisodeEntry], base: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse_links)
    copied = view(base, entries, tmp_path / "copied")
    assert contents(copied) == contents(made)
    assert not any((copied / p.relative_to(base)).samefile(p) for p in base.rglob("*.mp4"))


@pytest.mark.parametrize("links", [True, False])
def test_all_that_was_written_is_flushed_to_the_disk(
    entries: list[EpisodeEntry], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    flushed = set()

    def flush(path: Path) -> None:
        flushed.add(path.name)
        fsync_path(path)

    monkeypatch.setattr(atomic_folder, "fsync_path", flush)
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    out = view(base, entries, tmp_path / "out")
    # A video that is linked was flushed when it was published; thousands of them take long.
    own = {path.name for path in out.rglob("*") if path.is_file() and (path.suffix != ".mp4" or not links)}
    assert own <= flushed
    assert links != any(name.endswith(".mp4") for name in flushed)


def refuse_links(*_: Any, **__: Any) -> None:
    """As a file system that has no hard links."""
    raise OSError("cross-device link")


def test_on_another_file_system_videos_are_copied(
    entries: list[EpisodeEntry], base: Path, made: Path, tmp_path: Path
) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == base.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    out = elsewhere / f"recap-view-of-a-test-{os.getpid()}"
    try:
        assert contents(view(base, entries, out)) == contents(made)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_statistics_are_those_of_the_new_columns(entries: list[EpisodeEntry], made: Path) -> None:
    dataset = open_dataset(made)
    per_episode = columns_of(entries)["value"]
    values = np.concatenate([per_episode[e.id] for e in entries]).astype(np.float64)
    found = dataset.meta.stats["value"]
    for name, expected in [("mean", values.mean()), ("std", values.std()), ("min", values.min())]:
        np.testing.assert_allclose(found[name], [expected], rtol=1e-9)
    np.testing.assert_allclose(found["q90"], [np.quantile(values, 0.9)], rtol=1e-9)
    assert found["count"] == [14]
    assert dataset.meta.stats["task_index"]["max"] == [5]
    assert set(dataset.meta.stats) == set(open_dataset(made.with_name("base")).meta.stats) | {
        "value",
        "advantage",
        "return",
    }


def test_each_episode_has_its_own_statistics(entries: list[EpisodeEntry], base: Path, made: Path) -> None:
    name = "meta/episodes/chunk-000/file-000.parquet"
    plain, conditioned = pq.read_table(base / name), pq.read_table(made / name)
    for column in columns_of(entries):
        found = conditioned[f"stats/{column}/mean"].to_pylist()
        wanted = [[values.mean()] for values in columns_of(entries)[column].values()]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert conditioned["stats/task_index/min"].to_pylist() == [[3], [0], [5]]
    assert conditioned["stats/task_index/count"].to_pylist() == [[9], [4], [1]]
    kept = [n for n in plain.column_names if n != "tasks" and not n.startswith("stats/task_index/")]
    assert conditioned.select(kept).equals(plain.select(kept))


@settings(max_examples=50, deadline=None)
@given(
    episodes=st.lists(
        st.tuples(st.sampled_from(["a", "b", "b c"]), st.lists(st.sampled_from(CODES.tolist()), min_size=1)),
        min_size=1,
        max_size=6,
    )
)
def test_numbered_prompts_are_those_of_each_frame(episodes: list[tuple[str, list[int]]]) -> None:
    codes = [np.array(found, dtype=np.int8) for _, found in episodes]
    tasks = [task for task, _ in episodes]
    lengths = np.array([len(found) for found in codes])
    prompts, numbers = number_prompts(tasks, np.concatenate(codes), lengths)
    wanted = [
        prompt(task, INDICATOR_NAMES[code])
        for task, found in zip(tasks, codes, strict=True)
        for code in found.tolist()
    ]
    assert [prompts[number] for number in numbers] == wanted
    assert prompts == sorted(set(wanted))


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    width=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_statistics_of_many_episodes_are_those_of_each(lengths: list[int], width: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(sum(lengths), width)).round(1).astype(np.float32)
    found = segment_statistics(values, np.array(lengths))
    for i, rows in enumerate(np.split(values.astype(np.float64), np.cumsum(lengths)[:-1])):
        expected = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
        expected |= {name: np.quantile(rows, share, axis=0) for name, share in QUANTILES.items()}
        for name, wanted in expected.items():
            np.testing.assert_allclose(found[name][i], wanted, atol=1e-12, err_msg=name)
        assert found["count"][i] == [len(rows)]


def test_dropout_depends_on_the_seed_and_the_episode_alone(
    make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    entries = [make_episode(RED, (Source.POLICY,) * 40) for _ in range(2)]
    positive = {e.id: np.full(40, POSITIVE, dtype=np.int8) for e in entries}
    bases = [export(entries, tmp_path / "of-both"), export(entries[1:], tmp_path / "of-one")]

    def bare(out: str, base: Path, seed: int) -> list[bool]:
        root = view(base, entries, tmp_path / out, indicators=positive, indicator_dropout=0.3, seed=seed)
        return [parse_prompt(text)[1] is None for text in prompts_in(root)]

    both = bare("both", bases[0], 1)
    assert 0.1 < np.mean(both) < 0.5
    assert both[:40] != both[40:]
    assert bare("second", bases[1], 1) == both[40:]
    assert bare("seed", bases[1], 2) != both[40:]


def test_equal_arguments_give_equal_bytes(
    entries: list[EpisodeEntry], base: Path, made: Path, tmp_path: Path
) -> None:
    assert contents(view(base, entries, tmp_path / "second")) == contents(made)


def test_making_it_again_does_nothing_and_other_content_is_refused(
    entries: list[EpisodeEntry], base: Path, tmp_path: Path
) -> None:
    out = view(base, entries, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    time.sleep(0.01)
    assert view(base, entries, out) == out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    flipped = {name: -codes.astype(np.int8) for name, codes in indicators_of(entries).items()}
    for changes in (
        {"seed": 2},
        {"indicator_dropout": 0.5},
        {"indicators": flipped},
        {"extra_columns": columns_of(entries, seed=6)},
        {"extra_columns": None},
    ):
        with pytest.raises(InputError, match="holds an export of other episodes, labels or options: exports"):
            view(base, entries, out, **changes)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    with pytest.raises(InputError, match="holds something else"):
        view(base, entries, tmp_path / "mine")


def test_making_a_view_opens_no_recorded_episode(
    entries: list[EpisodeEntry], base: Path, made: Path, tmp_path: Path
) -> None:
    hidden = [entry.path.rename(entry.path.with_suffix(".away")) for entry in entries]
    try:
        assert contents(view(base, entries, tmp_path / "out")) == contents(made)
    finally:
        for path in hidden:
            path.rename(path.with_suffix(".h5"))


def test_missing_or_broken_scores_are_refused(
    entries: list[EpisodeEntry], base: Path, made: Path, tmp_path: Path
) -> None:
    def refused(message: str, of: Path = base, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            view(of, entries, tmp_path / "out", **changes)

    good = indicators_of(entries)
    first = entries[0].id
    refused("one indicator for each of its 9 frames", indicators={**good, first: good[first][:-1]})
    refused("one indicator", indicators={k: v for k, v in good.items() if k != first})
    refused("int8", indicators={**good, first: good[first].astype(np.int64)})
    values = columns_of(entries)["value"]
    for broken in (values[first][:-1], np.full(9, np.nan, dtype=np.float32)):
        refused("one finite 'value'", extra_columns={"value": {**values, first: broken}})
    refused("one finite 'value'", extra_columns={"value": {}})
    for name in ("action", "timestamp", "task"):
        refused(f"a column '{name}' already", extra_columns={name: values})
    refused("without '/'", extra_columns={"my/value": values})
    refused("dropout", indicator_dropout=1.5)
    refused("no dataset to make a view of", of=tmp_path)
    refused("no dataset to make a view of", of=made)
    assert names(tmp_path) == []

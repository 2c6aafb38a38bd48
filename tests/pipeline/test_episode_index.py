"""The index of the list: right, quick, shared, and never in the way."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import episode_index
from pipeline.episode import Source
from pipeline.episode_index import IndexedEpisode, look_up
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from tests.pipeline.episodes import TASK, make_frame, make_frames, make_info, write_episode


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """A demonstration, a rollout, and a corrected one that lacks a field."""
    lab = Workspace(tmp_path / "lab").create()
    rng = np.random.default_rng(0)
    drivers = {"a": [0] * 3, "b": [1] * 3, "c": [1, 1, 2, 2]}
    for name, sources in drivers.items():
        frames = [make_frame(i, rng, Source(source)) for i, source in enumerate(sources)]
        info = make_info(name, missing=("tool_wrench",) if name == "c" else ())
        write_episode(lab.episode_path(TASK, name), frames, info)
    return lab


def forget() -> None:
    """As a new process."""
    episode_index._seen.clear()


def test_it_says_who_drove_and_what_is_missing_also_from_the_database(lab: Workspace) -> None:
    fresh = lab.index()
    forget()
    again = lab.index()
    assert fresh == again
    assert [item.driver for item in again] == ["person", "policy", "corrected"]
    assert [item.sources for item in again] == [(3, 0, 0), (0, 3, 0), (0, 2, 2)]
    assert again[2].entry.info.missing == ("tool_wrench",)
    assert (lab.cache / "episodes.sqlite").is_file()


def test_files_are_opened_once_and_again_when_they_change(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.index()
    forget()
    read: list[Path] = []
    real = episode_index._read_all

    def spy(paths: Sequence[Path], timeout_s: float) -> dict[Path, dict[str, Any]]:
        read.extend(paths)
        return real(paths, timeout_s)

    monkeypatch.setattr(episode_index, "_read_all", spy)
    lab.index()
    assert read == []
    path = lab.find("a").path
    path.unlink()
    write_episode(path, make_frames(7), make_info("a"))
    assert lab.find("a").length == 7
    assert read == [path]


def test_a_file_that_hangs_the_library_is_left_out_and_remembered(lab: Workspace) -> None:
    """Zeros over the block that holds the attributes' texts: HDF5 then looks for them for ever."""
    path = lab.find("a").path
    content = bytearray(path.read_bytes())
    start = content.rfind(make_info().created.encode())
    assert start > 0
    content[start : start + 2048] = bytes(2048)
    path.write_bytes(content)
    others = [lab.find(name).path for name in ("b", "c")]
    database = lab.cache / "episodes.sqlite"
    for limit_s in (0.3, 60):  # the second time nothing is read
        results = look_up([path, *others], database, timeout_s=limit_s)
        assert "did not end within 0.3 s" in str(results[path])
        assert all(isinstance(results[other], IndexedEpisode) for other in others)
        forget()
    assert [entry.id for entry in lab.list_episodes()] == ["b", "c"]


@pytest.mark.parametrize("spoil", ["delete", "garbage", "folder", "other version", "rows"])
def test_the_database_may_be_lost_or_spoilt(lab: Workspace, spoil: str) -> None:
    expected = lab.index()
    forget()
    database = lab.cache / "episodes.sqlite"
    if spoil == "rows":
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE files SET document = '{}'")
        connection.close()
    else:
        database.unlink()
    if spoil == "garbage":
        database.write_bytes(os.urandom(5000))
    if spoil == "folder":
        database.mkdir()
    if spoil == "other version":
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA user_version = 77")
        connection.close()
    for _ in range(2):
        assert lab.index() == expected
        forget()


def _list(root: Path, sender: multiprocessing.connection.Connection) -> None:
    forget()
    sender.send([entry.id for entry in Workspace(root).list_episodes()])


def test_several_processes_may_list_at_once(lab: Workspace) -> None:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(4)]
    processes = [context.Process(target=_list, args=(lab.root, sender)) for _, sender in pipes]
    for process in processes:
        process.start()
    for receiver, _ in pipes:
        assert receiver.poll(60) and receiver.recv() == ["a", "b", "c"]
    for process in processes:
        process.join()


def test_what_cannot_be_read_says_so(lab: Workspace) -> None:
    nowhere = lab.episodes / "nowhere.h5"
    [result] = look_up([nowhere], None).values()
    assert isinstance(result, InputError) and "no such file" in str(result)

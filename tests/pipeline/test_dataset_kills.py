"""Datasets and views under SIGKILL: nothing half-built is ever seen, and the next run completes."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.episode import Source
from tests.pipeline.datasets import RED, contents, export, names, open_dataset, view
from tests.tiny_episodes import EpisodeMaker

# Imported before the first fork, so that a child is killed at its work and not while it imports.
pytest.importorskip("lerobot.datasets")
pytest.importorskip("pipeline.lerobot_files")
pytest.importorskip("pipeline.view_files")

KILLS = 6


def killed_after(delay_s: float, build: Callable[[], Path]) -> None:
    """Forks a process that builds, and kills it after ``delay_s``; it may have ended sooner."""
    process = multiprocessing.get_context("fork").Process(target=build)
    process.start()
    process.join(delay_s)
    process.kill()
    process.join()


def torment(out: Path, build: Callable[[], Path], longest_s: float) -> int:
    """Kills the building of ``out`` again and again; returns how often something was left aside."""
    rng = random.Random(4)
    disturbed = 0
    for _ in range(KILLS):
        killed_after(rng.uniform(0.1, 1.0) * longest_s, build)
        if out.exists():  # it was faster than the kill, and then it is whole
            assert len(open_dataset(out)) == 600
            return disturbed
        disturbed += out.parent.exists() and names(out.parent) != []
    return disturbed


def test_a_killed_export_shows_nothing_and_the_next_one_completes(
    make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    entries = [make_episode(RED, (Source.POLICY,) * 60, size=(120, 160)) for _ in range(10)]
    out = tmp_path / "datasets" / "out"

    def build() -> Path:
        return export(entries, out, video_store=tmp_path / "videos")

    start = time.perf_counter()
    undisturbed = export(entries, tmp_path / "undisturbed")
    assert torment(out, build, time.perf_counter() - start) > 0
    build()
    assert names(out.parent) == ["out"]
    assert contents(out) == contents(undisturbed)
    assert names(tmp_path / "videos") == sorted(entry.id for entry in entries)


def test_a_killed_view_shows_nothing_and_the_next_one_completes(
    make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    entries = [make_episode(RED, (Source.POLICY,) * 60) for _ in range(10)]
    base = export(entries, tmp_path / "base")
    before = contents(base)
    out = tmp_path / "datasets" / "out"
    start = time.perf_counter()
    undisturbed = view(base, entries, tmp_path / "undisturbed")
    longest_s = 0.8 * (time.perf_counter() - start)
    assert torment(out, lambda: view(base, entries, out), longest_s) > 0
    view(base, entries, out)
    assert names(out.parent) == ["out"]
    assert contents(out) == contents(undisturbed)
    assert contents(base) == before

"""Hundreds of damaged files beside good ones: nothing crashes, nothing hangs, no good one is touched."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from pipeline.episode_file import EpisodeReader
from pipeline.episode_finding import Kind, is_fatal
from pipeline.episode_layout import PART_SUFFIX
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache
from pipeline.guarded_reading import guarded_map
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.pipeline.damage import KINDS, damaged_copies
from tests.pipeline.episodes import TASK, make_frames, make_info, write_episode

COUNT = 8 * sum(KINDS.values())  # each kind with as many draws as it has weight, eight times
WORKERS = min(2, os.cpu_count() or 1)
# Some damage makes the HDF5 library loop for ever; a good file of this size takes a hundredth of this.
TIMEOUT_S = 0.3
HEALTHY = 5
PYTHON_ERROR = re.compile(r"[a-z]Error\b")


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """Good episodes with labels, and nothing else."""
    lab = Workspace(tmp_path / "lab").create()
    with LabelStore(lab.labels_path) as store:
        for number in range(HEALTHY):
            name = f"good-{number}"
            write_episode(lab.episode_path(TASK, name), make_frames(10, seed=number), make_info(name))
            store.sync([(name, TASK)])
            store.set(name, "success", "bo")
    return lab


def digests(lab: Workspace) -> dict[str, str]:
    """Of the good episodes, as they lie on the disk."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns)
        for path in sorted(lab.episodes.rglob("good-*.h5"))
    }


def damage(lab: Workspace, folder: Path, count: int = COUNT, seed: int = 0) -> dict[Path, str]:
    """Damaged copies of one episode; path to the kind of damage."""
    source = write_episode(folder.parent / "source.h5", make_frames(10, seed=99), make_info("source"))
    return damaged_copies(source, folder, count, seed)


def build(job: tuple[Path, Path]) -> None:
    """One file into the frame cache."""
    path, cache = job
    FrameCache(cache, image_size=16).build(path)


def test_the_check_survives_hundreds_of_damaged_files_and_the_repair_takes_them_out(
    lab: Workspace, tmp_path: Path
) -> None:
    folder = lab.episode_path(TASK, "x").parent
    kinds = damage(lab, folder)
    inodes = {path.lstat().st_ino for path in kinds}
    before = digests(lab)
    findings = lab.check(workers=WORKERS, timeout_s=TIMEOUT_S)
    fatal = {finding.path for finding in findings if is_fatal(finding)}
    # All hold the id of their source under names of their own: none can pass.
    assert fatal == set(kinds)
    assert [f for f in findings if PYTHON_ERROR.search(f.message)] == [], "said in words, not in Python"
    assert all("\n" not in finding.message for finding in findings)
    assert {f.kind for f in findings} >= {Kind.UNREADABLE, Kind.LAYOUT, Kind.ROWS, Kind.CHANGED, Kind.NAME}

    repairs = list(lab.repair(findings, workers=WORKERS, timeout_s=TIMEOUT_S))
    assert len(repairs) == COUNT
    assert digests(lab) == before
    after = [f for f in lab.check(workers=WORKERS, timeout_s=TIMEOUT_S) if is_fatal(f)]
    assert after == []
    assert list(lab.repair(after, timeout_s=TIMEOUT_S)) == []
    kept = [path for path in lab.quarantine.iterdir() if not path.name.endswith(".txt")]
    everything = [*kept, *folder.iterdir()]
    assert inodes <= {path.lstat().st_ino for path in everything}, "no file was deleted"
    assert all(path.with_name(path.name + ".txt").is_file() for path in kept)


def test_damaged_episodes_of_the_right_names_are_saved_as_far_as_they_are_whole(
    lab: Workspace, tmp_path: Path
) -> None:
    folder = lab.episode_path(TASK, "x").parent
    made = damaged_copies(
        write_episode(tmp_path / "source.h5", make_frames(10, seed=99), make_info("source")),
        tmp_path / "aside",
        2 * sum(KINDS.values()),
        seed=3,
    )
    saved: Counter[int] = Counter()
    for path in made:
        path.rename(folder / "source.h5")
        findings = lab.check(timeout_s=TIMEOUT_S)
        list(lab.repair(findings, timeout_s=TIMEOUT_S))
        if not os.path.lexists(folder / "source.h5"):
            saved[0] += 1
            continue
        entry = lab.find("source")
        assert entry.length == 10 or entry.info.truncated
        with EpisodeReader(entry.path) as reader:
            assert reader.computed_fingerprint() == reader.fingerprint
        saved[entry.length] += 1
        entry.path.unlink()
    assert saved[0] > 0 and saved[10] > 0 and sum(saved[n] for n in range(1, 10)) > 0


def test_importing_and_caching_survive_hundreds_of_damaged_files(lab: Workspace, tmp_path: Path) -> None:
    made = damage(lab, tmp_path / "usb-stick")
    before = digests(lab)
    told: Counter[str] = Counter()
    for path in made:
        try:
            lab.import_episode(path, timeout_s=TIMEOUT_S).path.unlink()
            told["imported"] += 1
        except InputError as error:
            assert "\n" not in str(error) and not PYTHON_ERROR.search(str(error)), made[path]
            told["refused"] += 1
    assert told["refused"] > 0.8 * COUNT
    jobs = [(path, lab.cache) for path in made]
    for (path, _), result in guarded_map(build, jobs, workers=WORKERS, timeout_s=1.0):
        if result is not None:
            assert isinstance(result, InputError)
            assert "\n" not in str(result), made[path]
    assert digests(lab) == before
    assert not [f for f in lab.check(timeout_s=TIMEOUT_S) if is_fatal(f)]
    assert not list(lab.episodes.rglob("*.import"))


def test_damaged_left_overs_are_recovered_or_kept(lab: Workspace) -> None:
    folder = lab.episode_path(TASK, "x").parent
    made = damage(lab, folder, count=86, seed=5)
    for path in made:
        path.rename(f"{path}{PART_SUFFIX}")
    before = digests(lab)
    recovered = list(lab.repair([], timeout_s=TIMEOUT_S))
    assert len(recovered) == len(made)
    assert lab.unfinished() == [] and digests(lab) == before

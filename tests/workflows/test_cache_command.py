"""``recap cache`` through its entry point, and the cache step of a turn."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from tests.pipeline.episodes import make_frames, make_info, write_episode
from workflows import loop_steps
from workflows.cli import main
from workflows.driver_lock import driver_lock
from workflows.improvement import freeze_labels
from workflows.snapshot_table import snapshot_table

Recap = Callable[..., tuple[int, str, str]]
IDS = ("e0", "e1", "e2")


@pytest.fixture
def lab(workspace: Workspace) -> Workspace:
    """Three different episodes of 20 frames; 84 pixels make them 1.7 MB in total."""
    for number, name in enumerate(IDS):
        info = make_info(name)
        path = workspace.episode_path(info.task, name)
        path.parent.mkdir(exist_ok=True)
        write_episode(path, make_frames(20, seed=number), info)
    return workspace


@pytest.fixture
def recap(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> Recap:
    """Runs ``recap cache``; gives exit status, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["cache", *words, "--workspace", str(lab.root)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def cached(lab: Workspace, size: int = 84) -> list[str]:
    return [name for name in IDS if FrameCache(lab.cache, size).has(name)]


def test_build_decodes_everything_once(lab: Workspace, recap: Recap) -> None:
    status, out, err = recap("build")
    assert (status, out) == (0, "3 episodes are cached, 3 of them decoded now\n")
    assert "decode 3 episodes at 84×84" in err
    assert recap("build")[1] == "3 episodes are cached, 0 of them decoded now\n"
    assert recap("build", "--image-size", "24")[0] == 0
    assert cached(lab) == cached(lab, 24) == list(IDS)


def test_one_episode_is_cached(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    info = make_info("only")
    write_episode(workspace.episode_path(info.task, "only"), make_frames(3), info)
    assert main(["cache", "build", "--workspace", str(workspace.root)]) == 0
    assert capsys.readouterr().out == "1 episode is cached, 1 of them decoded now\n"


def test_build_caches_the_rest_and_names_what_is_damaged(lab: Workspace, recap: Recap) -> None:
    path = lab.find("e1").path
    path.write_bytes(path.read_bytes()[:3000])
    status, _, err = recap("build")
    assert status == 2
    assert len(err.splitlines()[-1:]) == 1 and "e1.h5" in err.splitlines()[-1]
    assert "recap episodes check --repair" in err.splitlines()[-1]
    assert cached(lab) == ["e0", "e2"]


def test_status_counts_what_is_there(lab: Workspace, recap: Recap) -> None:
    assert re.search(r"frames: 0\.0 MiB of at most \d+\.\d\d GiB", recap("status")[1])
    recap("build")
    (lab.root / "recap.toml").write_text("[cache]\nmax_gib = 0.001\n")
    status, out, _ = recap("status")
    assert status == 0
    assert re.search(r"^ +84 +3 +60 +0\.002  20\d\d-", out, re.MULTILINE)
    assert (
        "frames: 2.4 MiB of at most 1.0 MiB" in out and "scores: 0 scoring runs" in out and "videos: " in out
    )


def test_trim_keeps_what_fits(lab: Workspace, recap: Recap) -> None:
    recap("build")
    for seconds, name in enumerate(("e1", "e0", "e2")):
        os.utime(FrameCache(lab.cache, 84).folder(name) / "zarr.json", (seconds, seconds))
    status, out, _ = recap("trim", "--max-gib", "0.0018", "--dry-run")
    assert status == 0 and out.startswith("84×84: e1, ")
    assert "would remove the decoded frames of 1 recording (the episodes stay): 0.8 MiB; 1.6 MiB" in out
    assert cached(lab) == list(IDS)
    with driver_lock(lab.root):
        status, _, err = recap("trim", "--max-gib", "0")
        assert status == 2 and "another recap command" in err
    recap("trim", "--max-gib", "0.0018")
    assert cached(lab) == ["e0", "e2"]
    (lab.root / "recap.toml").write_text("[cache]\nmax_gib = 0\n")
    recap("trim")
    assert cached(lab) == []


def test_build_says_when_it_is_too_much(lab: Workspace, recap: Recap) -> None:
    (lab.root / "recap.toml").write_text("[cache]\nmax_gib = 0\n")
    out = recap("build")[1]
    assert "more than the 0.0 MiB that it may" in out
    assert cached(lab) == list(IDS)


def test_a_killed_build_is_completed_by_the_next(lab: Workspace, recap: Recap) -> None:
    for number in range(3, 12):
        info = make_info(f"e{number}")
        write_episode(lab.episode_path(info.task, info.id), make_frames(20, seed=number), info)
    content = lab.cache / "frames-84" / "content"
    for already in (0, 4):  # killed at the first entry, and once more in the middle
        words = [sys.executable, "-m", "workflows.cli", "cache", "build", "--workspace", str(lab.root)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while len(list(content.glob("[!.]*"))) <= already and time.monotonic() < deadline:
                time.sleep(0.002)
            process.kill()
        for folder in content.glob("[!.]*"):
            images = zarr.open_array(folder / "images", mode="r")
            assert np.asarray(images[...]).reshape(20, -1).any(axis=1).all(), "nothing half-built is visible"
    status, out, _ = recap("build")
    assert status == 0 and out.startswith("12 episodes are cached")
    assert len(list(content.glob("[!.]*"))) == 12
    recap("trim", "--max-gib", "1")
    assert not list(content.glob(".*"))


def step(lab: Workspace, snapshot: Snapshot, part: tuple[int, int]) -> dict[str, int]:
    return loop_steps.cache_frames(
        Path("unused"),
        workspace=lab.root,
        snapshot=snapshot.path,
        image_size=84,
        part=part,
        progress=lambda done, total: None,
    )


def test_the_step_evicts_other_episodes_but_none_of_its_snapshot(lab: Workspace, recap: Recap) -> None:
    recap("build", "--image-size", "48")
    (lab.root / "recap.toml").write_text("[cache]\nmax_gib = 0\n")
    snapshot = freeze_labels(lab, ["e0", "e2"])
    assert step(lab, snapshot, (0, 2)) == {"episodes": 1, "frames": 20}
    assert step(lab, snapshot, (1, 2)) == {"episodes": 1, "frames": 20}
    assert cached(lab) == ["e0", "e2"] and cached(lab, 48) == []


def test_a_table_decodes_what_is_gone_and_refuses_what_is_damaged(lab: Workspace) -> None:
    snapshot = freeze_labels(lab, IDS)
    table, rows = snapshot_table(lab.root, snapshot.path, 24)
    assert len(table) == 60 and [row.episode_id for row in rows] == list(IDS)
    shutil.rmtree(lab.cache)
    again, _ = snapshot_table(lab.root, snapshot.path, 24)
    assert (again.images(np.arange(60)) == table.images(np.arange(60))).all()
    path = lab.find("e1").path
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"e1\.h5.*recap episodes check --repair"):
        snapshot_table(lab.root, snapshot.path, 24)

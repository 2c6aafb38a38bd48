"""Damaged recordings of every format: one line each, no traceback, no hang, the healthy ones untouched."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.exchange.column_mapping import ColumnMapping
from pipeline.workspace import Workspace
from tests.pipeline.exchange.foreign_samples import (
    aloha_columns,
    droid_columns,
    images,
    robomimic_demo,
    write_aloha_file,
    write_droid_folder,
    write_robomimic_file,
)
from tests.pipeline.exchange.imports import bring, snapshot
from tests.pipeline.exchange.lerobot_samples import number_feature, video_feature, write_lerobot_v21

TASK = "lift the cube"
COPIES = 24


def robomimic(root: Path) -> list[Path]:
    return [write_robomimic_file(root / "lift.hdf5", [robomimic_demo(0)])]


def aloha(root: Path) -> list[Path]:
    shown = {"top": images()}
    return [write_aloha_file(root / "e.hdf5", aloha_columns(14), shown, compress=True)]


def droid(root: Path) -> list[Path]:
    write_droid_folder(root, droid_columns(), {"wrist": images()})
    return [root / "trajectory.h5", root / "recordings/MP4/14013996.mp4", *root.glob("metadata*.json")]


def lerobot(root: Path) -> list[Path]:
    columns = {"action": np.zeros((9, 7), np.float32), "observation.images.top": images()}
    features = {"action": number_feature(7), "observation.images.top": video_feature()}
    write_lerobot_v21(root, [columns], features, [TASK])
    return sorted(path for path in root.rglob("*") if path.is_file())


def damage(path: Path, rng: np.random.Generator) -> None:
    """Flips bits in the first part or anywhere, cuts off the end, overwrites a stretch, or empties."""
    data = bytearray(path.read_bytes())
    kind = int(rng.integers(5))
    if kind == 0:
        data = data[: int(rng.integers(len(data)))]
    elif kind == 1:
        start = int(rng.integers(len(data)))
        length = min(256, len(data) - start)
        data[start : start + length] = rng.bytes(length)
    elif kind == 2 and rng.random() < 0.2:
        data = bytearray()
    else:
        reach = min(len(data), 4096) if kind == 3 else len(data)
        for position in rng.integers(0, reach, 24):
            data[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


@pytest.mark.parametrize("write", [robomimic, aloha, droid, lerobot])
def test_damage_is_one_line_each(write: Callable[[Path], list[Path]], tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "lab")
    healthy = tmp_path / "healthy"
    write(healthy / "run")
    (first,) = bring(workspace, healthy, task=TASK, allow_missing=True)
    assert first.imported is not None, first.refused
    before = snapshot(workspace.episodes)
    folders = []
    for number in range(COPIES):
        rng = np.random.default_rng(number)
        folder = tmp_path / f"damaged-{number:03d}"
        shutil.copytree(healthy, folder)
        files = [folder / path.relative_to(healthy) for path in sorted(healthy.rglob("*")) if path.is_file()]
        damage(files[number % len(files)], rng)
        folders.append(folder)
    began = time.monotonic()
    results = bring(workspace, *folders, healthy, task=TASK, allow_missing=True)
    assert time.monotonic() - began < 60
    refused = [result.refused for result in results if result.refused is not None]
    assert refused and all("\n" not in line and "Traceback" not in line for line in refused)
    assert results[-1].imported is not None and results[-1].imported.status == "present"
    after = snapshot(workspace.episodes)
    assert {name: after[name] for name in before} == before
    assert not (workspace.root / "importing").exists()
    assert not [finding for finding in workspace.check() if finding.severity == "fatal"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.h5", b""), ("b.hdf5", b"not HDF5 at all"), ("c.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100)],
)
def test_what_is_no_recording(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (result,) = bring(Workspace(tmp_path / "lab"), tmp_path / name)
    assert result.refused is not None and "\n" not in result.refused


def test_a_folder_of_nothing_and_a_path_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    results = bring(Workspace(tmp_path / "lab"), tmp_path / "empty", tmp_path / "nowhere")
    assert ["no recording in" in str(results[0].refused), "no file or folder" in str(results[1].refused)] == [
        True
    ] * 2


def test_a_killed_import_leaves_nothing_half_and_goes_on(tmp_path: Path) -> None:
    """Killed while it writes: what is there is whole, and the next import brings the rest."""
    path = write_robomimic_file(tmp_path / "lift.hdf5", [robomimic_demo(i, 60) for i in range(6)])
    workspace = Workspace(tmp_path / "lab").create()
    mapping = ColumnMapping(cameras=(("table", "agentview"),))
    command = [
        *(sys.executable, "-m", "workflows.cli", "episodes", "import", str(path), "--task", TASK),
        *("--camera", "table=agentview", "--workspace", str(workspace.root)),
    ]
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(workspace.root.glob("importing/*.part")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(workspace.list_episodes()) < 6
        assert not workspace.unfinished()
        assert not [finding for finding in workspace.check() if finding.severity == "fatal"]
    results = bring(workspace, path, task=TASK, mapping=mapping)
    assert [result.refused for result in results] == [None] * 6
    assert len(workspace.list_episodes()) == 6

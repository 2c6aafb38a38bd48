"""Images are copied to memory only where all steps that may run at once can do so; the result is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from tests.pipeline.episodes import make_frame, make_info, write_episode
from tests.value_model.synthetic import SMALL
from tests.workflows.sample_lab import frozen
from value_model.training import train_fold
from workflows import snapshot_table as module
from workflows import value_steps
from workflows.snapshot_table import snapshot_table

SIZE, FRAMES, EPISODES = 24, 12, 6


@pytest.fixture
def lab(tmp_path: Path) -> tuple[Workspace, Snapshot]:
    """Six episodes of noise, half of them labelled success."""
    workspace = Workspace(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(EPISODES):
        info = make_info(f"e{i}")
        write_episode(
            workspace.episode_path(info.task, info.id), [make_frame(k, rng) for k in range(FRAMES)], info
        )
    labels = [(f"e{i}", "success" if i % 2 else "failure", "ann") for i in range(EPISODES)]
    return workspace, frozen(workspace, *labels)


def memory(monkeypatch: pytest.MonkeyPatch, free: int, cores: int = 2) -> None:
    """A machine with so many bytes free and so many cores."""
    monkeypatch.setattr(module, "available_bytes", lambda: free)
    monkeypatch.setattr(module, "available_cpus", lambda: cores)


def is_preloaded(lab: tuple[Workspace, Snapshot], preload: bool = True) -> bool:
    table, _ = snapshot_table(lab[0].root, lab[1].path, SIZE, preload=preload)
    return table._preloaded is not None


def test_images_are_copied_where_all_steps_at_once_can_do_so(
    lab: tuple[Workspace, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = len(make_info("e0").cameras)
    images = EPISODES * FRAMES * cameras * SIZE * SIZE * 3
    memory(monkeypatch, 2 * 2 * images)
    assert is_preloaded(lab) and not is_preloaded(lab, preload=False)
    memory(monkeypatch, 2 * 2 * images - 2)
    assert not is_preloaded(lab)
    memory(monkeypatch, 2 * 2 * images, cores=3)
    assert not is_preloaded(lab)


def test_mapped_and_copied_images_train_the_same_model(
    lab: tuple[Workspace, Snapshot], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cameras = len(make_info("e0").cameras)
    config = replace(SMALL, steps=3, network=replace(SMALL.network, cameras=cameras))
    models = []
    for free in (0, 1 << 40):
        memory(monkeypatch, free)
        table, rows = snapshot_table(lab[0].root, lab[1].path, SIZE)
        assert (table._preloaded is None) == (free == 0)
        outcomes = {row.episode_id: row.outcome for row in rows}
        out = tmp_path / f"model-{free}"
        train_fold(table, outcomes, config, 0, 0, out)
        models.append({p.name: p.read_bytes() for p in out.iterdir() if p.suffix == ".safetensors"})
        batch = table.images(np.array([7, 3, 3, 60]))
        models[-1]["batch"] = batch.tobytes()
    assert len(models[0]) > 1 and models[0] == models[1]


def test_an_episode_that_was_recorded_again_is_no_part_of_the_older_snapshot(
    lab: tuple[Workspace, Snapshot],
) -> None:
    workspace, old = lab
    snapshot_table(workspace.root, old.path, SIZE)
    for again in (1, 2):
        info = make_info(f"e{again}")
        path = workspace.episode_path(info.task, info.id)
        path.unlink()
        # As long as before: only the frames are others.
        rng = np.random.default_rng(99)
        write_episode(path, [make_frame(k, rng) for k in range(FRAMES)], info)
    with pytest.raises(
        InputError, match=r"episode e1 is not .* labels-.* \(2 of 6 episodes are not\): "
    ) as caught:
        snapshot_table(workspace.root, old.path, SIZE)
    assert "\n" not in str(caught.value)
    table, _ = snapshot_table(workspace.root, frozen(workspace).path, SIZE)
    assert len(table) == EPISODES * FRAMES


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_that_train_together_map_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    asked: list[bool] = []

    def table(*_: object, preload: bool) -> None:
        asked.append(preload)
        raise KeyboardInterrupt

    monkeypatch.setattr(value_steps, "snapshot_table", table)
    with pytest.raises(KeyboardInterrupt):
        value_steps.train_value_member(
            tmp_path,
            workspace=tmp_path,
            snapshot=tmp_path,
            image_size=SIZE,
            fold=0,
            member=0,
            training={},
            progress=lambda *_: None,
            workers=workers,
        )
    assert asked == [workers == 1]

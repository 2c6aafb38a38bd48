"""Small exported datasets and conditioned views for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.conditioned_view import make_view
from pipeline.episode import Outcome, Source
from pipeline.episode_file import EpisodeEntry
from pipeline.lerobot_dataset import export_dataset
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker

SOURCES = (Source.POLICY, Source.INTERVENTION, Source.TELEOP) * 3
CODES = np.array([POSITIVE, NEGATIVE, NONE], dtype=np.int8)
RED, BLUE = "pick up the red cube", "pick up the blue cube"


def three_episodes(root: Path) -> list[EpisodeEntry]:
    """Three short episodes of two tasks and all sources."""
    workspace = Workspace(root)
    workspace.create()
    make_episode = EpisodeMaker(workspace)
    return [
        make_episode(RED, SOURCES, operator_mark="success", extra={"seed": 3}),
        make_episode(BLUE, SOURCES[:4], truncated=True),
        make_episode(RED, SOURCES[2:3]),
    ]


def outcomes_of(entries: list[EpisodeEntry]) -> dict[str, str | None]:
    """A success, a failure, and so on."""
    return {e.id: (Outcome.SUCCESS, Outcome.FAILURE)[i % 2].value for i, e in enumerate(entries)}


def indicators_of(entries: list[EpisodeEntry]) -> dict[str, np.ndarray]:
    """All three codes in turn."""
    return {e.id: np.resize(CODES, e.length) for e in entries}


def columns_of(entries: list[EpisodeEntry], seed: int = 5) -> dict[str, dict[str, np.ndarray]]:
    """Random scores."""
    rng = np.random.default_rng(seed)
    return {
        name: {e.id: rng.normal(size=e.length).astype(np.float32) for e in entries}
        for name in ("value", "advantage", "return")
    }


def export(entries: list[EpisodeEntry], out: Path, **changes: Any) -> Path:
    """An exported dataset; two workers, labelled unless ``changes`` say otherwise."""
    return export_dataset(entries, out, **{"outcomes": outcomes_of(entries), "workers": 2, **changes})


def view(base: Path, entries: list[EpisodeEntry], out: Path, **changes: Any) -> Path:
    """A view of ``base`` with an indicator and scores for each frame."""
    arguments: dict[str, Any] = {
        "indicators": indicators_of(entries),
        "indicator_dropout": 0.0,
        "seed": 1,
        "extra_columns": columns_of(entries),
    }
    return make_view(base, out=out, **{**arguments, **changes})


def open_dataset(root: Path, **options: Any) -> Any:
    """The dataset as LeRobot reads it."""
    from lerobot.datasets import LeRobotDataset

    return LeRobotDataset("lab/any-name", root=root, video_backend="pyav", **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden or not."""
    return sorted(p.name for p in folder.iterdir())

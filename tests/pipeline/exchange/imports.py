"""What the tests of import share: run it, read what came, compare it with what went in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import STATE_FIELDS
from pipeline.episode_file import EpisodeReader
from pipeline.exchange.importing import ImportOptions, ImportResult, import_episodes
from pipeline.workspace import Workspace

JPEG_TOLERANCE = 6  # levels, of smooth pictures at quality 95
VIDEO_TOLERANCE = 24


def bring(workspace: Workspace, *paths: Path, **options: Any) -> list[ImportResult]:
    """Imports; ``options`` are those of :class:`ImportOptions`."""
    return list(import_episodes(paths, workspace, options=ImportOptions(**options)))


def only(results: list[ImportResult]) -> str:
    """The id of the one episode that was imported."""
    assert [result.refused for result in results] == [None]
    assert results[0].imported is not None
    return results[0].imported.id


def reader_of(workspace: Workspace, episode_id: str) -> EpisodeReader:
    """The episode's reader, to be opened with ``with``."""
    return EpisodeReader(workspace.find(episode_id).path)


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's bytes and time of change."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the precision of float32."""
    np.testing.assert_allclose(found, np.asarray(expected).reshape(found.shape), rtol=1e-5, atol=1e-5)


def assert_pictures(found: np.ndarray, expected: np.ndarray, tolerance: int = JPEG_TOLERANCE) -> None:
    """As many pictures of the same size, alike in every pixel and colour."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= tolerance


def assert_restored(copy: EpisodeReader, original: EpisodeReader) -> None:
    """Every field but the images' bytes is the same, and every attribute but the note of the import."""
    for field in STATE_FIELDS:
        np.testing.assert_array_equal(copy.state(field.name), original.state(field.name))
    for name in ("actions", "policy_actions", "sources", "timestamps_ns"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(original, name))
    for camera in original.info.cameras:
        np.testing.assert_array_equal(
            copy.camera_timestamps_ns(camera), original.camera_timestamps_ns(camera)
        )
    for name in (
        *("id", "task", "operator", "robot", "rate_hz", "cameras", "created", "software_version"),
        *("policy_checkpoint", "operator_mark", "truncated", "missing"),
    ):
        assert getattr(copy.info, name) == getattr(original.info, name)
    extra = {name: value for name, value in copy.info.extra.items() if name != "import"}
    assert extra == original.info.extra

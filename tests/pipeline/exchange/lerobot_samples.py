"""Writes small LeRobot datasets of version 2.1, which the installed LeRobot no longer writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipeline.exchange.foreign_samples import SIZE, Columns, write_video


def write_lerobot_v21(
    root: Path,
    episodes: Sequence[Columns],
    features: dict[str, dict[str, Any]],
    tasks: Sequence[str],
    *,
    rate_hz: int = 10,
    robot: str = "so100",
) -> Path:
    """A dataset of one parquet file and one video a camera for each episode.

    An episode's ``task_index`` column is 0 if not given; columns of four axes are videos.
    """
    videos = {name: f for name, f in features.items() if f["dtype"] == "video"}
    own = {name: _number("int64") for name in ("frame_index", "episode_index", "index", "task_index")}
    info = {
        "codebase_version": "v2.1",
        "robot_type": robot,
        "total_episodes": len(episodes),
        "total_frames": sum(len(e["action"]) for e in episodes),
        "total_tasks": len(tasks),
        "total_videos": len(videos) * len(episodes),
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": rate_hz,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {**features, "timestamp": _number("float32"), **own},
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))
    _json_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(tasks)])
    first, rows = 0, []
    for number, episode in enumerate(episodes):
        length = len(episode["action"])
        numbers = np.arange(length, dtype=np.int64)
        table = {
            **{name: values for name, values in episode.items() if name not in videos},
            "timestamp": (numbers / rate_hz).astype(np.float32),
            "frame_index": numbers,
            "episode_index": np.full_like(numbers, number),
            "index": first + numbers,
            "task_index": episode.get("task_index", np.zeros_like(numbers)),
        }
        path = root / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({name: pa.array(list(values)) for name, values in table.items()}), path)
        for name in videos:
            write_video(root / f"videos/chunk-000/{name}/episode_{number:06d}.mp4", episode[name], rate_hz)
        used = [tasks[i] for i in sorted(set(table["task_index"].tolist()))]
        rows.append({"episode_index": number, "tasks": used, "length": length})
        first += length
    _json_lines(root / "meta/episodes.jsonl", rows)
    return root


def number_feature(width: int, names: Sequence[str] | None = None, dtype: str = "float32") -> dict[str, Any]:
    """A column of ``width`` numbers."""
    return {"dtype": dtype, "shape": [width], "names": list(names) if names else None}


def video_feature(size: int = SIZE) -> dict[str, Any]:
    """A camera."""
    return {"dtype": "video", "shape": [size, size, 3], "names": ["height", "width", "channels"]}


def _number(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1], "names": None}


def _json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

"""The files of a LeRobotDataset v3: tables of frames, videos by hard link, and LeRobot's metadata.

LeRobot's own recorder appends every episode to one growing video and histograms every pixel, which for
small images takes several times as long. Here each episode is a video file of its own, and datasets of
the same episodes share it; the metadata is written by LeRobot itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets import LeRobotDatasetMetadata, write_stats
from lerobot.datasets.feature_utils import get_hf_features_from_features

from pipeline import episode_video
from pipeline.episode import ACTION_NAMES, POLICY_STATE_FIELDS, POLICY_STATE_NAMES, Source, policy_state
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.episode_video import CameraVideo, encode_episode, whole_rate
from pipeline.errors import InputError

# LeRobot wants a name of this form; a dataset in a local folder never looks it up.
REPO_ID = "local/conditioned"

_EPISODES_PER_CHUNK = 1000

Columns = Mapping[str, Mapping[str, np.ndarray]]


def write_dataset(
    root: Path,
    episodes: Sequence[EpisodeEntry],
    prompts: Mapping[str, list[str]],
    columns: Columns,
    video_store: Path,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes the folder ``root`` and writes the dataset into it, not yet safe against a crash.

    ``prompts`` maps an episode id to its T prompts, ``columns`` a column's name to each episode's
    (T,) float32; videos not yet in ``video_store`` are encoded into it. Raises ``InputError`` for
    episodes that differ in image size, and as :func:`pipeline.episode_video.encode_episode` does.
    """
    meta: LeRobotDatasetMetadata | None = None
    writer: _TableWriter | None = None
    for index, entry in enumerate(episodes):
        with EpisodeReader(entry.path) as reader:
            videos = encode_episode(reader, video_store)
            if meta is None or writer is None:
                meta = _create_metadata(root, episodes, videos, columns, prompts)
                writer = _TableWriter(meta)
            _check_sizes(meta, entry, videos)
            table = _episode_table(meta, reader, index, prompts[entry.id])
        for name, per_episode in columns.items():
            table[name] = per_episode[entry.id].astype(np.float32)
        places = writer.write(index, table) | _link_videos(meta, index, entry, videos)
        statistics = {name: _statistics(values) for name, values in table.items()}
        statistics |= {f"observation.images.{camera}": v.statistics for camera, v in videos.items()}
        meta.save_episode(index, entry.length, sorted(set(prompts[entry.id])), statistics, places)
        if progress is not None:
            progress(index + 1, len(episodes))
    assert meta is not None and writer is not None  # there is one episode or more
    writer.close()
    meta.finalize()
    # LeRobot gathers the features in a set, whose order changes from one process to the next.
    write_stats(dict(sorted(meta.stats.items())), root)


def _create_metadata(
    root: Path,
    episodes: Sequence[EpisodeEntry],
    videos: Mapping[str, CameraVideo],
    columns: Columns,
    prompts: Mapping[str, list[str]],
) -> LeRobotDatasetMetadata:
    with EpisodeReader(episodes[0].path) as reader:
        rate = whole_rate(reader)
    meta = LeRobotDatasetMetadata.create(
        repo_id=REPO_ID,
        fps=rate,
        features=_features(videos, columns),
        robot_type=",".join(sorted({e.info.robot for e in episodes})),
        root=root,
        metadata_buffer_size=_EPISODES_PER_CHUNK,
        chunks_size=_EPISODES_PER_CHUNK,
    )
    # All at once and sorted, so that a prompt's number does not depend on where it occurs first.
    meta.save_episode_tasks(sorted({text for texts in prompts.values() for text in texts}))
    return meta


def _features(videos: Mapping[str, CameraVideo], columns: Columns) -> dict[str, dict[str, Any]]:
    def numbers(dtype: str, names: Sequence[str]) -> dict[str, Any]:
        return {"dtype": dtype, "shape": (len(names),), "names": list(names)}

    return {
        "observation.state": numbers("float32", POLICY_STATE_NAMES),
        **{
            f"observation.images.{camera}": {
                "dtype": "video",
                "shape": (video.height, video.width, 3),
                "names": ["height", "width", "channels"],
            }
            for camera, video in videos.items()
        },
        "action": numbers("float32", ACTION_NAMES),
        "source": numbers("int64", ["source"]),
        "intervention": numbers("bool", ["intervention"]),
        **{name: numbers("float32", [name]) for name in columns},
    }


def _check_sizes(
    meta: LeRobotDatasetMetadata, entry: EpisodeEntry, videos: Mapping[str, CameraVideo]
) -> None:
    for camera, video in videos.items():
        expected = tuple(meta.features[f"observation.images.{camera}"]["shape"])
        if (video.height, video.width, 3) != expected:
            raise InputError(
                f"episode {entry.id}: camera {camera!r} has {video.height}×{video.width} pixels, the first "
                f"episode has {expected[0]}×{expected[1]}: a dataset needs the same in all"
            )


def _episode_table(
    meta: LeRobotDatasetMetadata, reader: EpisodeReader, index: int, prompts: list[str]
) -> dict[str, np.ndarray]:
    """Every column of an episode but the extra ones and the videos, each ``(T, …)``."""
    numbers = {text: meta.get_task_index(text) for text in set(prompts)}
    frame = np.arange(len(reader), dtype=np.int64)
    return {
        "observation.state": policy_state({name: reader.state(name) for name in POLICY_STATE_FIELDS}),
        "action": reader.actions,
        "source": reader.sources.astype(np.int64),
        "intervention": reader.sources == Source.INTERVENTION,
        "timestamp": (frame / meta.fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full_like(frame, index),
        "index": meta.total_frames + frame,
        "task_index": np.array([numbers[text] for text in prompts], dtype=np.int64),
    }


class _TableWriter:
    """The frames' parquet files: a row group for each episode, a file for each chunk of episodes."""

    def __init__(self, meta: LeRobotDatasetMetadata) -> None:
        self._meta = meta
        self._schema: pa.Schema = get_hf_features_from_features(meta.features).arrow_schema
        self._writer: pq.ParquetWriter | None = None
        self._chunk = -1

    def write(self, index: int, table: Mapping[str, np.ndarray]) -> dict[str, int]:
        chunk = index // _EPISODES_PER_CHUNK
        if chunk != self._chunk:
            self.close()
            path = self._meta.root / self._meta.data_path.format(chunk_index=chunk, file_index=0)
            path.parent.mkdir(parents=True)
            self._writer = pq.ParquetWriter(path, self._schema, compression="snappy")
            self._chunk = chunk
        assert self._writer is not None
        self._writer.write_table(
            pa.Table.from_arrays([_arrow(table[name]) for name in self._schema.names], schema=self._schema)
        )
        return {"data/chunk_index": chunk, "data/file_index": 0}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _link_videos(
    meta: LeRobotDatasetMetadata, index: int, entry: EpisodeEntry, videos: Mapping[str, CameraVideo]
) -> dict[str, Any]:
    """Puts an episode's videos into the dataset; returns where, for the episode's row in the metadata."""
    chunk, file = divmod(index, _EPISODES_PER_CHUNK)
    places: dict[str, Any] = {}
    for camera, video in videos.items():
        key = f"observation.images.{camera}"
        assert meta.video_path is not None
        path = meta.root / meta.video_path.format(video_key=key, chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(video.path, path)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(video.path, path)
        places |= {
            f"videos/{key}/chunk_index": chunk,
            f"videos/{key}/file_index": file,
            f"videos/{key}/from_timestamp": 0.0,
            f"videos/{key}/to_timestamp": entry.length / meta.fps,
        }
    if index == 0:
        meta.update_video_info(
            video_encoder=RGBEncoderConfig(
                vcodec=episode_video.CODEC,
                pix_fmt=episode_video.PIXEL_FORMAT,
                g=episode_video.KEY_FRAME_INTERVAL,
                crf=episode_video.QUALITY,
                preset=episode_video.PRESET,
            )
        )
    return places


def _statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """The statistics that LeRobot keeps of a column, over the frames; its quantiles are approximate."""
    columns = values.reshape(len(values), -1).astype(np.float64)
    names = list(episode_video.QUANTILES)
    quantiles = np.quantile(columns, list(episode_video.QUANTILES.values()), axis=0)
    return {
        "min": columns.min(axis=0),
        "max": columns.max(axis=0),
        "mean": columns.mean(axis=0),
        "std": columns.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(names, quantiles, strict=True)),
    }

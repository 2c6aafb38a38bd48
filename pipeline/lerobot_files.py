"""The files of a LeRobotDataset v3: tables of frames, videos by hard link, and LeRobot's metadata.

LeRobot's own recorder appends every episode to one growing video and histograms every pixel, which for
small images takes several times as long. Here each episode is a video file of its own, and datasets of
the same episodes share it; the metadata is written by LeRobot itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets import LeRobotDatasetMetadata, write_stats
from lerobot.datasets.feature_utils import get_hf_features_from_features

from pipeline import episode_video
from pipeline.atomic_folder import remove_all_leftovers
from pipeline.dataset_folder import link_or_copy, table_writer, write_episode_facts
from pipeline.episode import Outcome
from pipeline.episode_file import EpisodeEntry
from pipeline.episode_video import CameraVideo
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.guarded_reading import guarded_map
from pipeline.lerobot_language import Subtask, Subtasks, language_columns, language_features
from pipeline.lerobot_rows import EpisodeJob, PreparedEpisode, arrow_column, features, prepare_episode
from pipeline.lerobot_statistics import statistics

# LeRobot wants a name of this form; a dataset in a local folder never looks it up.
REPO_ID: Final = "local/episodes"

_EPISODES_PER_CHUNK: Final = 1000
# LeRobot keeps so many episodes' statistics in memory before it writes them.
_BUFFERED_EPISODES: Final = 100

Columns = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Plan:
    """What is to be written. ``columns`` maps a column's name to each episode's (T,) float32.

    Without ``subtasks`` the dataset has no language columns.
    """

    episodes: Sequence[EpisodeEntry]
    outcomes: Mapping[str, str | None]
    columns: Columns
    action_space: ActionSpace
    video_store: Path
    workers: int
    subtasks: Subtasks | None = None

    @property
    def success_column(self) -> bool:
        """Whether every episode is labelled: a column of truth values cannot say "unlabelled"."""
        return all(self.outcomes.get(e.id) in tuple(Outcome) for e in self.episodes)

    def jobs(self, rows: Path) -> Iterator[EpisodeJob]:
        """One an episode, in order."""
        for index, entry in enumerate(self.episodes):
            yield EpisodeJob(
                entry.path,
                self.video_store,
                rows / f"{index}.arrow",
                self.action_space,
                self.outcomes.get(entry.id),
                self.success_column,
                {
                    name: per_episode[entry.id].astype(np.float32)
                    for name, per_episode in self.columns.items()
                },
            )


def write_dataset(root: Path, plan: Plan, progress: Callable[[int, int], None] | None = None) -> None:
    """Makes the folder ``root`` and writes the dataset into it, not yet safe against a crash.

    Videos not yet in the plan's store are encoded into it. A folder beside ``root`` is used for what is
    under way. Raises ``InputError`` for episodes that differ in image size or cannot be read.
    """
    rows = root.with_name(f"{root.name}.rows")
    rows.mkdir()
    lengths = {entry.path: entry.length for entry in plan.episodes}
    # A frame takes milliseconds: this only ends what a damaged file has made endless.
    results = guarded_map(
        prepare_episode,
        plan.jobs(rows),
        workers=plan.workers,
        timeout_s=lambda job: 60.0 + lengths[job.path],
    )
    meta: LeRobotDatasetMetadata | None = None
    writer: _TableWriter | None = None
    dropped = []
    with closing(results):
        for index, (entry, (job, found)) in enumerate(zip(plan.episodes, results, strict=True)):
            if isinstance(found, InputError):
                raise found
            if meta is None or writer is None:
                meta = _create_metadata(root, plan, found.videos)
                writer = _TableWriter(meta)
            _check_sizes(meta, entry, found.videos)
            _write_episode(meta, writer, index, entry, job, found, plan.subtasks)
            dropped.append(found.dropped)
            if progress is not None:
                progress(index + 1, len(plan.episodes))
    assert meta is not None and writer is not None  # there is one episode or more
    remove_all_leftovers(plan.video_store)
    writer.close()
    meta.finalize()
    # LeRobot gathers the features in a set, whose order changes from one process to the next.
    write_stats(dict(sorted(meta.stats.items())), root)
    write_episode_facts(root, plan.episodes, dropped, plan.outcomes)


def _create_metadata(root: Path, plan: Plan, videos: Mapping[str, CameraVideo]) -> LeRobotDatasetMetadata:
    language = language_features() if plan.subtasks is not None else {}
    meta = LeRobotDatasetMetadata.create(
        repo_id=REPO_ID,
        fps=int(plan.episodes[0].info.rate_hz),
        features=features(videos, plan.action_space, plan.success_column, list(plan.columns)) | language,
        robot_type=",".join(sorted({e.info.robot for e in plan.episodes})),
        root=root,
        metadata_buffer_size=_BUFFERED_EPISODES,
        chunks_size=_EPISODES_PER_CHUNK,
    )
    # All at once and sorted, so that a task's number does not depend on where it occurs first.
    meta.save_episode_tasks(sorted({e.info.task for e in plan.episodes}))
    return meta


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


def _write_episode(
    meta: LeRobotDatasetMetadata,
    writer: _TableWriter,
    index: int,
    entry: EpisodeEntry,
    job: EpisodeJob,
    found: PreparedEpisode,
    subtasks: Subtasks | None,
) -> None:
    task = meta.get_task_index(entry.info.task)
    placed = {
        "episode_index": np.full(entry.length, index, dtype=np.int64),
        "index": meta.total_frames + np.arange(entry.length, dtype=np.int64),
        "task_index": np.full(entry.length, task, dtype=np.int64),
    }
    marked = None if subtasks is None else subtasks.get(entry.id, ())
    places = writer.write(index, job.rows_file, placed, marked) | _link_videos(
        meta, index, entry, found.videos
    )
    job.rows_file.unlink()
    counted = found.statistics | {name: statistics(values) for name, values in placed.items()}
    counted |= {f"observation.images.{camera}": v.statistics for camera, v in found.videos.items()}
    meta.save_episode(index, entry.length, [entry.info.task], counted, places)


class _TableWriter:
    """The frames' parquet files: a row group for each episode, a file for each chunk of episodes."""

    def __init__(self, meta: LeRobotDatasetMetadata) -> None:
        self._meta = meta
        self._schema: pa.Schema = get_hf_features_from_features(meta.features).arrow_schema
        self._writer: pq.ParquetWriter | None = None
        self._chunk = -1

    def write(
        self,
        index: int,
        rows_file: Path,
        placed: Mapping[str, np.ndarray],
        subtasks: Sequence[Subtask] | None,
    ) -> dict[str, int]:
        chunk = index // _EPISODES_PER_CHUNK
        if chunk != self._chunk:
            self.close()
            path = self._meta.root / self._meta.data_path.format(chunk_index=chunk, file_index=0)
            self._writer = table_writer(path, self._schema)
            self._chunk = chunk
        assert self._writer is not None
        with pa.memory_map(str(rows_file)) as file:
            rows = pa.ipc.open_file(file).read_all()
            made = {name: arrow_column(values) for name, values in placed.items()}
            if subtasks is not None:
                made |= language_columns(subtasks, rows["timestamp"].to_numpy(), self._schema)
            columns = [made[name] if name in made else rows[name] for name in self._schema.names]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        return {"data/chunk_index": chunk, "data/file_index": 0}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


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
        link_or_copy(video.path, path)
        places |= {
            f"videos/{key}/chunk_index": chunk,
            f"videos/{key}/file_index": file,
            f"videos/{key}/from_timestamp": 0.0,
            f"videos/{key}/to_timestamp": entry.length / meta.fps,
        }
    if index == 0:
        meta.update_video_info(video_encoder=video_encoder())
    return places


def video_encoder() -> RGBEncoderConfig:
    """How our videos are encoded, in LeRobot's words."""
    return RGBEncoderConfig(
        vcodec=episode_video.CODEC,
        pix_fmt=episode_video.PIXEL_FORMAT,
        g=episode_video.KEY_FRAME_INTERVAL,
        crf=episode_video.QUALITY,
        preset=episode_video.PRESET,
    )

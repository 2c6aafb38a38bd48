"""Recorded episodes as an advantage-conditioned LeRobotDataset v3.

The prompt is in the data, per frame: a frame's task is its episode's task with ``Advantage: positive``
or ``Advantage: negative`` behind it, or bare. Any trainer that reads a LeRobotDataset can therefore
fine-tune on it without a plugin.

A dataset is built whole, from the recorded episodes, and never appended to: LeRobot loses every episode
of a dataset whose writer was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.atomic_folder import building
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import Failure, InputError
from pipeline.prompts import check_indicators, drop_indicators, frame_prompts

LAYOUT_VERSION = 1

_BUILD_RECORD = "meta/recap.json"

Columns = Mapping[str, Mapping[str, np.ndarray]]


def export_conditioned(
    episodes: Sequence[EpisodeEntry],
    indicators: Mapping[str, np.ndarray],
    out: Path,
    *,
    indicator_dropout: float,
    seed: int,
    extra_columns: Columns | None = None,
    video_store: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Builds the dataset aside, reopens and verifies it, and renames it to ``out``, which it returns.

    ``indicators`` maps each episode id to (T,) int8 (see :mod:`pipeline.prompts`); a share
    ``indicator_dropout`` of the frames gets the bare task instead, which ones being decided by
    ``seed`` and the episode's id alone. ``extra_columns`` maps a column's name (value, advantage,
    return, …) to each episode's (T,) float32. With ``video_store``, encoded videos are kept there and
    reused. ``progress(done, total)`` is called after each episode.

    Features: ``observation.state`` (15,), ``observation.images.<camera>`` (video), ``action`` (7,),
    ``source`` (:class:`pipeline.episode.Source`), ``intervention`` (bool) and the extra columns.

    Equal arguments give equal bytes; when ``out`` was built from equal ones nothing is done. Raises
    ``InputError`` when ``out`` holds anything else, and for indicators or columns that are missing,
    not one per frame, or not finite; for episodes that differ in cameras, image size or rate.
    """
    columns = dict(extra_columns or {})
    _check_inputs(episodes, indicators, columns)
    kept = {
        e.id: drop_indicators(indicators[e.id], indicator_dropout, _episode_rng(seed, e.id)) for e in episodes
    }
    record = _build_record(episodes, kept, columns, indicator_dropout, seed)
    if out.exists():
        if _read_record(out) != record:
            raise InputError(f"{out} exists and holds something else: remove it or choose another folder")
        return out
    prompts = {e.id: frame_prompts(e.info.task, kept[e.id]) for e in episodes}
    # Seconds to import: only where there is something to build.
    from pipeline.lerobot_files import write_dataset

    with building(out) as aside:
        aside.rmdir()  # LeRobot insists on making the dataset's folder itself
        store = video_store or aside.with_name("encoded")
        write_dataset(aside, episodes, prompts, columns, store, progress)
        (aside / _BUILD_RECORD).write_text(json.dumps(record, indent=1))
        _verify(aside, episodes, prompts)
    return out


def _check_inputs(
    episodes: Sequence[EpisodeEntry], indicators: Mapping[str, np.ndarray], columns: Columns
) -> None:
    if not episodes:
        raise InputError("a dataset needs one episode or more")
    if len({e.id for e in episodes}) != len(episodes):
        raise InputError("an episode is named twice in a dataset")
    for entry in episodes:
        if entry.id not in indicators or len(indicators[entry.id]) != entry.length:
            raise InputError(f"episode {entry.id} needs one indicator for each of its {entry.length} frames")
        check_indicators(indicators[entry.id])
        for name, per_episode in columns.items():
            values = per_episode.get(entry.id)
            if values is None or values.shape != (entry.length,) or not np.isfinite(values).all():
                raise InputError(
                    f"episode {entry.id} needs one finite {name!r} for each of its {entry.length} frames"
                )
    first = episodes[0].info
    for info in (e.info for e in episodes):
        if (info.cameras, info.rate_hz) != (first.cameras, first.rate_hz):
            raise InputError(
                f"episode {info.id} has cameras {info.cameras} at {info.rate_hz} Hz, episode {first.id} "
                f"{first.cameras} at {first.rate_hz} Hz: a dataset needs the same in all"
            )


def _episode_rng(seed: int, episode_id: str) -> np.random.Generator:
    # By id, not by position: the frames dropped in one episode do not depend on which others there are.
    digest = blake2b(episode_id.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])


def _build_record(
    episodes: Sequence[EpisodeEntry],
    indicators: Mapping[str, np.ndarray],
    columns: Columns,
    indicator_dropout: float,
    seed: int,
) -> dict[str, Any]:
    """What a dataset was built from; two datasets with equal records have equal content."""
    digest = blake2b(digest_size=16)
    for entry in episodes:
        digest.update(f"{entry.id}\n{entry.fingerprint}\n{entry.info.task}\n".encode())
        digest.update(indicators[entry.id].tobytes())
        for name, per_episode in columns.items():
            digest.update(f"{name}\n".encode() + per_episode[entry.id].astype(np.float32).tobytes())
    return {
        "layout_version": LAYOUT_VERSION,
        "content": digest.hexdigest(),
        "indicator_dropout": indicator_dropout,
        "seed": seed,
        "episode_ids": [e.id for e in episodes],
    }


def _read_record(root: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((root / _BUILD_RECORD).read_text())
    except FileNotFoundError:
        return None
    return record


def _verify(root: Path, episodes: Sequence[EpisodeEntry], prompts: Mapping[str, list[str]]) -> None:
    """Opens the dataset as a trainer would and compares it with what went in."""
    from lerobot.datasets import LeRobotDataset

    from pipeline.lerobot_files import REPO_ID

    dataset = LeRobotDataset(REPO_ID, root=root, video_backend="pyav")
    expected = [text for e in episodes for text in prompts[e.id]]
    if (dataset.num_episodes, len(dataset)) != (len(episodes), len(expected)):
        raise Failure(
            f"the dataset has {dataset.num_episodes} episodes and {len(dataset)} frames, "
            f"expected {len(episodes)} and {len(expected)}"
        )
    names = dataset.meta.tasks.index
    found = [names[number] for number in dataset.hf_dataset.data.column("task_index").to_pylist()]
    if found != expected:
        raise Failure("the prompts in the dataset are not those that were written")
    for index in (0, len(dataset) - 1):
        if dataset[index]["task"] != expected[index]:
            raise Failure(f"frame {index} of the dataset cannot be read back")

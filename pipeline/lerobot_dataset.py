"""Recorded episodes as a LeRobotDataset v3: any trainer that reads one can learn from them.

A dataset is built whole, from the recorded episodes, and never appended to: LeRobot loses every episode
of a dataset whose writer was killed. Each frame's task is its episode's task, bare; a dataset with
advantages in the tasks is made from such a one by :mod:`pipeline.conditioned_view`.

What is where
-------------
``videos/observation.images.<camera>/chunk-*/file-*.mp4``: one H.264 file an episode, at the recorded size.

``data/chunk-*/file-*.parquet``: one row a frame, one row group an episode. Besides LeRobot's own
columns:

=================================  ============  =====================================================
``observation.state``              float32 (15)  ``episode.POLICY_STATE_NAMES``
``action``                         float32 (k)   in the chosen action space, ``action_names(space)``
``source``                         int64         :class:`pipeline.episode.Source`
``intervention``                   bool          a person corrected a policy
``next.done``                      bool          the episode's last frame
``next.success``                   bool          the last frame of a success; only where every episode
                                                 has an outcome, since unlabelled is not failed
``joint_velocities``               float32 (7)   rad/s; NaN where the recording lacks them
``tool_wrench``                    float32 (6)   N, N·m, in base; NaN where the recording lacks it
``policy_action``                  float32 (7)   what the policy wanted, always a twist; NaN where none ran
``recorded_action``                float32 (7)   the twist that was sent; only if ``action`` is no twist
``timestamp_ns``                   int64         when the step began, ns since 1970
``camera_timestamp_ns.<camera>``   int64         when the image was taken, ns since 1970
=================================  ============  =====================================================

and the extra columns, float32. With ``subtasks`` also the two columns of :mod:`pipeline.lerobot_language`:
LeRobot before 0.6 cannot open a dataset that has them. The last six above have no statistics, which NaN would
spoil, and no name that begins with ``observation`` or ``action``, which LeRobot would feed to a policy.

``meta/recap_episodes.parquet``: one row an episode, in the dataset's order: ``episode_index``, ``id``,
``task``, ``operator``, ``robot``, ``rate_hz``, ``cameras`` (list), ``created``, ``software_version``,
``policy_checkpoint``, ``operator_mark``, ``truncated``, ``schema_version``, ``extra`` (JSON text),
``missing`` (list), ``length``, ``fingerprint`` (of the recording), ``dropped`` and ``outcome``
(``success``, ``failure`` or null). Texts that an episode lacks are null.

``meta/recap.json``: what the dataset was built from; ``kind`` is ``episodes`` or ``conditioned view``,
``action_space`` a :class:`pipeline.exchange.action_spaces.ActionSpace`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.atomic_folder import building
from pipeline.dataset_folder import is_built, write_record
from pipeline.dataset_selection import Outcomes, check_selection, content_bytes
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import Failure, InputError
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.lerobot_language import Subtasks, check_subtasks

LAYOUT_VERSION = 2
KIND = "episodes"

Columns = Mapping[str, Mapping[str, np.ndarray]]


def export_dataset(
    episodes: Sequence[EpisodeEntry],
    out: Path,
    *,
    action_space: ActionSpace = ActionSpace.TWIST,
    outcomes: Outcomes | None = None,
    extra_columns: Columns | None = None,
    subtasks: Subtasks | None = None,
    video_store: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Builds the dataset aside, reopens and verifies it, and renames it to ``out``, which it returns.

    ``outcomes`` maps an episode's id to its label: ``success``, ``failure`` or, like an id that is not
    in it, ``None``. ``extra_columns`` maps a column's name to each episode's (T,) float32. With
    ``subtasks`` the dataset has LeRobot's language columns. With ``video_store``, encoded videos are kept
    there and reused. Episodes are read in ``workers`` child processes, one for each core if not given;
    memory does not grow with their number, and with their length only by some 500 bytes a frame.
    ``progress(done, total)`` is called after each episode.

    Equal arguments give equal bytes; when ``out`` was built from equal ones nothing is done. Raises
    ``InputError`` when ``out`` holds anything else; for columns that are not one finite number a frame;
    for episodes that cannot be read, lack a policy's state or an action, or differ in cameras, image
    size or rate.
    """
    columns = dict(extra_columns or {})
    labels = dict(outcomes or {})
    _check_inputs(episodes, labels, columns)
    if subtasks is not None:
        check_subtasks(subtasks, {entry.id: entry.length for entry in episodes})
    record = _build_record(episodes, action_space, labels, columns, subtasks)
    if is_built(out, record, len(episodes)):
        return out
    # Seconds to import: only where there is something to build.
    from pipeline.lerobot_files import Plan, write_dataset

    with building(out, links_are_durable=True) as aside:
        aside.rmdir()  # LeRobot insists on making the dataset's folder itself
        plan = Plan(
            episodes=episodes,
            outcomes=labels,
            columns=columns,
            action_space=action_space,
            video_store=video_store or aside.with_name(f"{aside.name}.encoded"),
            workers=workers or os.cpu_count() or 1,
            subtasks=subtasks,
        )
        write_dataset(aside, plan, progress)
        write_record(aside, record)
        _verify(aside, episodes)
    return out


def check_columns(columns: Columns, lengths: Mapping[str, int]) -> None:
    """Raises ``InputError`` unless each column has one finite number for each frame of each episode.

    ``lengths`` maps an episode's id to its number of frames.
    """
    for name, per_episode in columns.items():
        for episode_id, length in lengths.items():
            values = per_episode.get(episode_id)
            if values is None or values.shape != (length,) or not np.isfinite(values).all():
                raise InputError(
                    f"episode {episode_id} needs one finite {name!r} for each of its {length} frames"
                )


def _check_inputs(episodes: Sequence[EpisodeEntry], outcomes: Outcomes, columns: Columns) -> None:
    check_selection(episodes, outcomes)
    first = episodes[0].info
    for entry in episodes:
        info = entry.info
        if info.rate_hz < 1 or info.rate_hz != int(info.rate_hz):
            raise InputError(
                f"episode {info.id} has {info.rate_hz} frames a second: a dataset needs a whole number"
            )
        if info.missing_for_training:
            raise InputError(
                f"episode {info.id} was recorded without {', '.join(info.missing_for_training)}, "
                "which every policy needs: leave it out"
            )
        if (info.cameras, info.rate_hz) != (first.cameras, first.rate_hz):
            raise InputError(
                f"episode {info.id} has cameras {info.cameras} at {info.rate_hz} Hz, episode {first.id} "
                f"{first.cameras} at {first.rate_hz} Hz: a dataset needs the same in all"
            )
    check_columns(columns, {entry.id: entry.length for entry in episodes})


def _build_record(
    episodes: Sequence[EpisodeEntry],
    action_space: ActionSpace,
    outcomes: Outcomes,
    columns: Columns,
    subtasks: Subtasks | None,
) -> dict[str, Any]:
    """What a dataset was built from; two datasets with equal records have equal content."""
    digest = blake2b(digest_size=16)
    for entry in episodes:
        digest.update(content_bytes(entry, outcomes))
        for name, per_episode in columns.items():
            digest.update(f"{name}\n".encode() + per_episode[entry.id].astype(np.float32).tobytes())
        if subtasks is not None:
            found = [list(subtask) for subtask in subtasks.get(entry.id, ())]
            digest.update(f"{json.dumps(found)}\n".encode())
    return {
        "layout_version": LAYOUT_VERSION,
        "kind": KIND,
        "action_space": str(action_space),
        "columns": list(columns),
        # Not a word of it without them: what was built before there were any is built still.
        **({} if subtasks is None else {"subtasks": True}),
        "content": digest.hexdigest(),
    }


def _verify(root: Path, episodes: Sequence[EpisodeEntry]) -> None:
    """Opens the dataset as a trainer would and compares it with what went in."""
    from lerobot.datasets import LeRobotDataset

    from pipeline.lerobot_files import REPO_ID

    # Of the frames only the first and the last episode: LeRobot copies what it opens into its cache.
    ends = sorted({0, len(episodes) - 1})
    dataset = LeRobotDataset(REPO_ID, root=root, episodes=ends, video_backend="pyav")
    expected = (len(episodes), sum(entry.length for entry in episodes))
    found = (dataset.meta.total_episodes, dataset.meta.total_frames)
    if found != expected or list(dataset.meta.episodes["length"]) != [e.length for e in episodes]:
        raise Failure(
            f"the dataset has {found[0]} episodes and {found[1]} frames, "
            f"expected {expected[0]} and {expected[1]}"
        )
    wanted = [episodes[number] for number in ends]
    if len(dataset) != sum(entry.length for entry in wanted):
        raise Failure(f"the dataset's tables have {len(dataset)} frames of the episodes {ends}")
    for index, entry in ((0, wanted[0]), (len(dataset) - 1, wanted[-1])):
        if dataset[index]["task"] != entry.info.task:
            raise Failure(f"frame {index} of the dataset cannot be read back")

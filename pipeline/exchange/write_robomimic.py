"""Recorded episodes as one HDF5 file that robomimic trains on, holding all that the recordings hold.

Names and conventions are robomimic's: images (T, H, W, 3) uint8; low-dimensional observations by the
names and in the conventions of robosuite, which robomimic's default settings read; actions between −1
and 1. What robomimic has no place for lies in each demo's group ``recap`` and in attributes.

::

    data                        attributes: total, env_args (JSON: env_name, type, env_kwargs), and below
      demo_<i>                  one group an episode, in the order exported
        actions                 float32 (T, k)  scaled to [-1, 1], see below
        actions_unscaled        float32 (T, k)  the same in the units of the action space
        rewards, dones          float32, int64 (T,)  1 in the last frame of a labelled success, else 0
        states                  float32 (T, 0)  robomimic keeps a simulator's state here; ours has none
        obs/robot0_eef_pos      float32 (T, 3)  tool position in base, m
        obs/robot0_eef_quat     float32 (T, 4)  tool orientation in base, x y z w (robosuite's order)
        obs/robot0_joint_pos    float32 (T, 7)  rad
        obs/robot0_joint_vel    float32 (T, 7)  rad/s
        obs/robot0_gripper_qpos float32 (T, 1)  0 open to 1 closed
        obs/robot0_ee_force     float32 (T, 3)  N, in base
        obs/robot0_ee_torque    float32 (T, 3)  N·m, in base
        obs/<camera>_image      uint8 (T, H, W, 3)  RGB
        next_obs/...            the same one frame later, the last frame's repeated; images are virtual
                                datasets over obs, which take no room
        recap/action, recap/policy_action      float32 (T, 7)  as recorded: twists; NaN where none ran
        recap/source, recap/timestamp_ns, recap/camera_timestamp_ns/<camera>   as recorded
        recap/foreign/<name>    columns of an imported recording, as they were
    mask/train, mask/valid      names of demos; mask/success, mask/failure: the labelled ones

An observation that an episode lacks has no dataset. Names, shapes and meaning of ``recap/...`` and of a
demo's attributes are those of the episode format (docs/episode-format.md): ``id``, ``task``,
``operator``, ``robot``, ``rate_hz``, ``cameras``, ``created``, ``extra``, ``truncated``, ``missing``,
``fingerprint`` (of the recording) and so on, so that ``pipeline.episode_layout.read_info`` reads them.
Besides these a demo has ``num_samples``, ``ep_meta`` (JSON: ``lang`` is the task, where robomimic's
language-conditioned policies read it) and, if it is labelled, ``outcome``.

Attributes of ``data``: ``recap_export`` (JSON: what the file was made from), ``action_space``,
``action_names`` (list of texts), ``action_unit``, and ``action_statistics``, a JSON list of
:class:`pipeline.action_statistics.ActionStatistics`, one a robot. ``actions`` are ``actions_unscaled``
clipped to the 1st and 99th percentile of their robot and scaled to [−1, 1]; the gripper's target goes
from −1 open to 1 closed. ``ActionStatistics.denormalise`` gives a policy's output its units again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.action_statistics import ActionStatistics, statistics_to_json
from pipeline.dataset_selection import Outcomes, is_written
from pipeline.episode import Outcome
from pipeline.episode_attributes import write_info
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.episode_layout import FOREIGN
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names, action_units
from pipeline.exchange.exporting import (
    FrameCounter,
    Progress,
    build_record,
    building_file,
    check_episodes,
    episode_actions,
    gather_statistics,
    image_blocks,
    image_shapes,
)

LAYOUT_VERSION = 1
KIND = "robomimic"
RECORD = "recap_export"

OBSERVATIONS: dict[str, tuple[str, list[int]]] = {
    "robot0_eef_pos": ("tool_pose", [0, 1, 2]),
    "robot0_eef_quat": ("tool_pose", [4, 5, 6, 3]),
    "robot0_joint_pos": ("joint_positions", list(range(7))),
    "robot0_joint_vel": ("joint_velocities", list(range(7))),
    "robot0_gripper_qpos": ("gripper_position", [0]),
    "robot0_ee_force": ("tool_wrench", [0, 1, 2]),
    "robot0_ee_torque": ("tool_wrench", [3, 4, 5]),
}
"""Each low-dimensional observation: the state field, and which of its components in which order."""

_GYM_ENVIRONMENT = 2  # robomimic's number for an environment that is not a simulator of its own
_VALID_SHARE = 0.1


class Compression(StrEnum):
    """How images are packed. Packed ones take less room and are slower to read at random."""

    NONE = "none"
    LZF = "lzf"
    GZIP = "gzip"


def write_robomimic(
    episodes: Sequence[EpisodeEntry],
    out: Path,
    *,
    outcomes: Outcomes | None = None,
    action_space: ActionSpace = ActionSpace.TWIST,
    image_size: int | None = None,
    compression: Compression = Compression.NONE,
    progress: Progress | None = None,
) -> Path:
    """Writes the episodes, in the given order, into one file ``out``, which it returns.

    ``outcomes`` are the labels; ``image_size`` makes all images that many pixels square. One tenth of the
    episodes, chosen by a hash of their ids, are in ``mask/valid``, the others in ``mask/train``. Where
    ``out`` was written from equal arguments nothing is done. A killed export leaves nothing under that
    name. Needs memory for one episode's numbers and a few images, however long the episodes are.

    Raises ``InputError`` when ``out`` holds anything else, for episodes that do not fit together, lack
    what the action space needs, or are damaged, and ``Failure`` if the disk is full.
    """
    labels = dict(outcomes or {})
    check_episodes(episodes, labels, action_space, image_size)
    record = build_record(
        KIND,
        LAYOUT_VERSION,
        episodes,
        labels,
        action_space=str(action_space),
        image_size=image_size,
        compression=str(compression),
    )
    if is_written(out, record, _read_record(out), episodes=len(episodes), held=_held):
        return out
    shapes = image_shapes(episodes, image_size)
    statistics = gather_statistics(episodes, action_space)
    counter = FrameCounter(episodes, progress)
    with building_file(out) as aside, h5py.File(aside, "w") as file:
        data = file.create_group("data")
        _write_attributes(data, episodes, action_space, statistics)
        data.attrs[RECORD] = json.dumps(record)
        for number, entry in enumerate(episodes):
            with EpisodeReader(entry.path) as reader:
                demo = data.create_group(f"demo_{number}")
                outcome = labels.get(entry.id)
                _write_numbers(demo, reader, outcome, action_space, statistics[entry.info.robot])
                for camera in entry.info.cameras:
                    _write_images(demo, reader, camera, shapes[camera], compression, counter)
        _write_masks(file.create_group("mask"), [entry.id for entry in episodes], labels)
    return out


def split(ids: Sequence[str]) -> tuple[list[int], list[int]]:
    """Positions in ``ids`` for training and for validation, a tenth, decided by a hash of each id.

    So an episode stays on its side while others come and go. Of two or more, both sides have one.
    """
    ranks = [int.from_bytes(blake2b(i.encode(), digest_size=8).digest(), "big") / 2**64 for i in ids]
    order = sorted(range(len(ids)), key=lambda i: (ranks[i], ids[i]))
    valid = {i for i in order if ranks[i] < _VALID_SHARE}
    if len(ids) > 1:
        valid.add(order[0])
    valid.discard(order[-1])
    return [i for i in range(len(ids)) if i not in valid], sorted(valid)


def _write_attributes(
    data: Any,
    episodes: Sequence[EpisodeEntry],
    action_space: ActionSpace,
    statistics: dict[str, ActionStatistics],
) -> None:
    robots = sorted(statistics)
    settings = {"control_freq": episodes[0].info.rate_hz}
    environment = {"env_name": robots[0], "type": _GYM_ENVIRONMENT, "env_kwargs": settings}
    data.attrs["env_args"] = json.dumps(environment)
    data.attrs["total"] = sum(entry.length for entry in episodes)
    data.attrs["action_space"] = str(action_space)
    data.attrs["action_names"] = np.array(action_names(action_space), dtype=h5py.string_dtype())
    data.attrs["action_unit"] = action_units(action_space)
    data.attrs["action_statistics"] = statistics_to_json([statistics[robot] for robot in robots])


def _write_numbers(
    demo: Any,
    reader: EpisodeReader,
    outcome: str | None,
    action_space: ActionSpace,
    statistics: ActionStatistics,
) -> None:
    info, length = reader.info, len(reader)
    write_info(demo, info)
    demo.attrs["fingerprint"] = reader.fingerprint
    demo.attrs["dropped"] = reader.dropped
    demo.attrs["num_samples"] = length
    demo.attrs["ep_meta"] = json.dumps({"lang": info.task})
    if outcome is not None:
        demo.attrs["outcome"] = outcome
    actions = episode_actions(reader, action_space)
    done = np.zeros(length, dtype=np.int64)
    done[-1] = outcome == Outcome.SUCCESS
    demo["actions"] = statistics.normalise(actions)
    demo["actions_unscaled"] = actions
    demo["rewards"] = done.astype(np.float32)
    demo["dones"] = done
    demo["states"] = np.zeros((length, 0), dtype=np.float32)
    demo.create_group("obs")
    demo.create_group("next_obs")
    for name, (field, components) in OBSERVATIONS.items():
        if field not in info.missing:
            values = reader.state(field)[:, components]
            demo[f"obs/{name}"] = values
            demo[f"next_obs/{name}"] = np.concatenate([values[1:], values[-1:]])
    demo["recap/action"] = reader.actions
    demo["recap/policy_action"] = reader.policy_actions
    demo["recap/source"] = reader.sources
    demo["recap/timestamp_ns"] = reader.timestamps_ns
    for camera in info.cameras:
        demo[f"recap/camera_timestamp_ns/{camera}"] = reader.camera_timestamps_ns(camera)
    for name in reader.foreign_names:
        demo[f"recap/{FOREIGN}/{name}"] = reader.foreign(name)


def _write_images(
    demo: Any,
    reader: EpisodeReader,
    camera: str,
    shape: tuple[int, int],
    compression: Compression,
    counter: FrameCounter,
) -> None:
    length = len(reader)
    whole = (length, *shape, 3)
    packing = (
        {}
        if compression == Compression.NONE
        else {"compression": str(compression), "chunks": (1, *whole[1:])}
    )
    images = demo.create_dataset(f"obs/{camera}_image", shape=whole, dtype=np.uint8, **packing)
    for start, block in image_blocks(reader, camera, shape):
        images[start : start + len(block)] = block
        counter.add(len(block))
    layout = h5py.VirtualLayout(shape=whole, dtype=np.uint8)
    source = h5py.VirtualSource(".", images.name, shape=whole, dtype=np.uint8)
    if length > 1:
        layout[:-1] = source[1:]
    layout[length - 1 :] = source[length - 1 :]
    demo.create_virtual_dataset(f"next_obs/{camera}_image", layout)


def _write_masks(mask: Any, ids: Sequence[str], outcomes: Outcomes) -> None:
    train, valid = split(ids)
    groups = {"train": train, "valid": valid}
    for outcome in Outcome:
        groups[str(outcome)] = [i for i, name in enumerate(ids) if outcomes.get(name) == outcome]
    for name, members in groups.items():
        mask[name] = np.array([f"demo_{i}" for i in members], dtype="S")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        with h5py.File(path, "r") as file:
            record: dict[str, Any] = json.loads(file["data"].attrs[RECORD])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError):
        return None
    return record


def _held(path: Path) -> int:
    """How many episodes a file that was written here has."""
    try:
        with h5py.File(path, "r") as file:
            return len(file["data"])
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error

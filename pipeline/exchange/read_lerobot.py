"""LeRobotDataset v2.0, v2.1 and v3.0 in a local folder, read with pyarrow and PyAV alone.

::

    meta/info.json: codebase_version, fps, robot_type, features, chunks_size, data_path, video_path
    v2: meta/episodes.jsonl, meta/tasks.jsonl, data/chunk-000/episode_000000.parquet,
        videos/chunk-000/<camera>/episode_000000.mp4
    v3: meta/episodes/chunk-*/file-*.parquet, meta/tasks.parquet, data/chunk-000/file-000.parquet and
        videos/<camera>/chunk-000/file-000.mp4 with many episodes each

State and action are vectors whose components have names that the robot's driver chose, in the driver's
units. Only names that are ours (``pipeline.episode``) say what they mean; others need a mapping file.
Columns of flags become sources (``intervention``) and the mark (``next.success``). Annotated sub-tasks
(:mod:`pipeline.exchange.language_columns`) are kept with the episode. A dataset that we exported is restored:
see :mod:`pipeline.exchange.restore_lerobot`.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import ACTION_NAMES, POLICY_STATE_FIELDS, STATE_FIELDS, Source
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names
from pipeline.exchange.column_mapping import Action, ColumnMapping, Gripper, Pose, Selection
from pipeline.exchange.foreign_episode import EpisodeReference, ForeignEpisode, camera_name, success_mark
from pipeline.exchange.foreign_video import video_images
from pipeline.exchange.lerobot_folder import EpisodePlace, LeRobotFolder, open_folder
from pipeline.exchange.restore_lerobot import restored
from pipeline.prompts import parse_prompt

FORMAT = "lerobot"
_STATE, _ACTION = "observation.state", "action"
_INTERVENTION = (
    *("intervention", "is_intervention", "complementary_info.is_intervention"),
    *("complementary_info.intervention", "info.is_intervention"),
)
_SUCCESS = ("next.success", "success", "is_success")
_COUNTERS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def list_lerobot(path: Path) -> list[EpisodeReference]:
    """The episodes of a dataset. Raises ``InputError`` for a folder that is none that we read."""
    if path.is_file():
        raise InputError(f"{path} is a file: a LeRobot dataset is a folder, that with meta/info.json")
    folder = open_folder(path)
    return [
        EpisodeReference(FORMAT, path, str(number), folder.size_bytes // max(1, len(folder.numbers)))
        for number in folder.numbers
    ]


def read_lerobot(reference: EpisodeReference) -> ForeignEpisode:
    """Reads one episode's columns; images when they are asked for. Raises ``InputError`` if it is damaged."""
    folder = open_folder(reference.path)
    place = folder.place(int(reference.key))
    columns, texts = folder.columns(place)
    length = place.length
    counters = {name: columns.pop(name) for name in _COUNTERS if name in columns}
    _check_counters(reference, place, counters)
    tasks = _tasks(folder, place, counters)
    cameras, depth = _cameras(folder, place)
    subtasks, others = folder.language(place)
    lost = sorted([*texts, *depth, *([f"annotations ({', '.join(others)})"] if others else [])])
    names = {name: folder.component_names(name) for name in columns}
    values: dict[str, Any] = {
        "tasks": tasks,
        "rate_hz": folder.rate_hz,
        "mapping": _mapping(columns, names),
        "component_names": names,
        "robot": folder.robot,
        "sources": _sources(columns, length),
        "outcome_mark": success_mark(columns, _SUCCESS),
        "step_times_s": counters.get("timestamp"),
        "subtasks": subtasks,
        "notes": (f"not imported: {', '.join(lost)}",) if lost else (),
        **restored(folder, place, columns),
    }
    if values["sources"] is not None and (values["sources"] != Source.TELEOP).any():
        values.setdefault("policy_checkpoint", "unknown")
    return ForeignEpisode(
        FORMAT,
        folder.root.resolve().name,
        f"episode-{place.number:06d}",
        length=length,
        columns=columns,
        cameras=cameras,
        **values,
    )


def _check_counters(
    reference: EpisodeReference, place: EpisodePlace, counters: Mapping[str, np.ndarray]
) -> None:
    expected = np.arange(place.length)
    if "frame_index" in counters and not np.array_equal(counters["frame_index"], expected):
        raise InputError(
            f"{reference}: frame_index does not count from 0 to {place.length - 1}: frames are lost"
        )
    if "episode_index" in counters and (counters["episode_index"] != place.number).any():
        raise InputError(f"{reference}: the table holds rows of other episodes")


def _tasks(folder: LeRobotFolder, place: EpisodePlace, counters: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The bare tasks of the frames, the most frequent first; an indicator behind a task is not part of it."""
    if "task_index" not in counters:
        counts = Counter(dict.fromkeys(place.tasks, 1))
    else:
        numbers = Counter(int(number) for number in counters["task_index"].ravel())
        known = folder.tasks
        unknown = sorted(set(numbers) - set(known))
        if unknown:
            raise InputError(
                f"{folder.root}: frames of episode {place.number} have the unknown task {unknown[0]}"
            )
        counts = Counter()
        for number, count in numbers.items():
            counts[known[number]] += count
    bare: Counter[str] = Counter()
    for text, count in counts.items():
        bare[parse_prompt(text.strip())[0]] += count
    return tuple(text for text, _ in bare.most_common() if text)


def _cameras(folder: LeRobotFolder, place: EpisodePlace) -> tuple[dict[str, Any], list[str]]:
    cameras: dict[str, Any] = {}
    depth = []
    for key, feature in folder.features.items():
        if feature["dtype"] not in ("video", "image"):
            continue
        if folder.is_depth(key):
            depth.append(key)
        elif feature["dtype"] == "video":
            path, start_s = folder.video(place, key)
            cameras[camera_name(key)] = partial(
                video_images, path, place.length, start_s=start_s, rate_hz=folder.rate_hz
            )
        else:
            cameras[camera_name(key)] = partial(_table_images, folder.root, place, key)
    return cameras, depth


def _table_images(root: Path, place: EpisodePlace, key: str) -> Iterator[np.ndarray]:
    """Images that lie in the table itself, as PNG or JPEG, or beside it, by a path in the table."""
    from PIL import Image

    for i, cell in enumerate(open_folder(root).cells(place, key)):
        data = (cell or {}).get("bytes")
        path = (cell or {}).get("path")
        try:
            if data is None and path:
                data = (root / path).read_bytes()
            with Image.open(io.BytesIO(data or b"")) as image:
                yield np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{root}: the image {key} in frame {i} cannot be decoded") from error


def _sources(columns: Mapping[str, np.ndarray], length: int) -> np.ndarray | None:
    """Our codes from ``source``, or policy and intervention where a column says who was in charge."""
    codes = columns.get("source")
    if codes is not None and codes.shape == (length,) and np.isin(codes, list(Source)).all():
        return codes.astype(np.uint8)
    for name in _INTERVENTION:
        flags = columns.get(name)
        if flags is not None and flags.shape == (length,) and flags.dtype.kind in "biuf":
            return np.where(flags > 0, Source.INTERVENTION, Source.POLICY).astype(np.uint8)
    return None


def _mapping(columns: Mapping[str, np.ndarray], names: Mapping[str, tuple[str, ...]]) -> ColumnMapping:
    """Whatever components have our names, wherever they are."""
    fields: dict[str, Any] = {}
    for field in STATE_FIELDS:
        for column in (_STATE, field.name, f"observation.{field.name}"):
            if column in columns and set(field.component_names) <= set(names[column]):
                selection = Selection(column, components=field.component_names)
                fields[field.name] = selection
                break
    if "tool_pose" in fields:
        fields["tool_pose"] = Pose(whole=fields["tool_pose"])
    if "gripper_position" in fields:
        found = fields["gripper_position"]
        fields["gripper_position"] = Gripper(found.column, components=found.components)
    if set(POLICY_STATE_FIELDS) - set(fields):
        # A name such as joint_1.pos is used by many drivers, each in its own unit: ours only all together.
        fields = {}
    for space in ActionSpace:
        wanted = action_names(space)
        if _ACTION in columns and set(wanted) <= set(names[_ACTION]) and (fields or wanted == ACTION_NAMES):
            fields["action"] = Action(space, whole=Selection(_ACTION, components=wanted))
            break
    return ColumnMapping(**fields)

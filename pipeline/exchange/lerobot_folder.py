"""The files of a LeRobotDataset, versions 2 and 3: what is where, and one episode's rows.

Nothing here imports LeRobot, whose release reads one version only and takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError, one_line
from pipeline.exchange.language_columns import read_language
from pipeline.exchange.lerobot_tables import array, read_json, read_json_lines, read_table
from pipeline.lerobot_language import LANGUAGE_COLUMNS, Subtask

INFO = "meta/info.json"
_MAX_EPISODES = 10_000_000


@dataclass(frozen=True)
class EpisodePlace:
    """Where one episode lies: its number, its frames, and in v3 its row of ``meta/episodes``."""

    number: int
    length: int
    tasks: tuple[str, ...] = ()
    row: dict[str, Any] = field(default_factory=dict)


def open_folder(root: Path) -> LeRobotFolder:
    """The dataset in ``root``; the one opened last is kept, since its episodes are read one after the other.

    Raises ``InputError`` as :class:`LeRobotFolder` does.
    """
    try:
        changed = (root / INFO).stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"cannot read {root / INFO}: {one_line(error, None)}") from error
    return _open(root, changed)


@lru_cache(maxsize=1)
def _open(root: Path, changed_ns: int) -> LeRobotFolder:
    return LeRobotFolder(root)


class LeRobotFolder:
    """A dataset's metadata, read when it is asked for. Every method raises ``InputError`` for damage."""

    def __init__(self, root: Path) -> None:
        """Reads ``meta/info.json``; refuses versions that it does not know."""
        self.root = root
        self.info = read_json(root / INFO)
        version = str(self.info.get("codebase_version", "")).removeprefix("v")
        if not version.startswith(("2.", "3.")):
            raise InputError(
                f"{root} is a LeRobotDataset of version {version or 'unknown'}: 2.0 to 3.0 can be read"
            )
        self.is_v3 = version.startswith("3.")
        features = self.info.get("features")
        if not isinstance(features, dict) or not all(
            isinstance(f, dict) and isinstance(f.get("dtype"), str) for f in features.values()
        ):
            raise InputError(f"{root / INFO}: 'features' does not say what the columns are")
        self.features: dict[str, dict[str, Any]] = features

    @property
    def rate_hz(self) -> float:
        """Frames a second."""
        rate = self.info.get("fps")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 10_000:
            raise InputError(f"{self.root / INFO}: fps is {rate!r}")
        return float(rate)

    @property
    def robot(self) -> str | None:
        """The robot's type, if the dataset names one."""
        robot = self.info.get("robot_type")
        return robot if isinstance(robot, str) and robot and robot != "unknown" else None

    @property
    def numbers(self) -> list[int]:
        """The episodes' numbers."""
        return sorted(self._places)

    @cached_property
    def size_bytes(self) -> int:
        """Of all tables and videos."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def place(self, number: int) -> EpisodePlace:
        """Where episode ``number`` lies."""
        if number not in self._places:
            raise InputError(f"{self.root} has no episode {number}")
        return self._places[number]

    @cached_property
    def _places(self) -> dict[int, EpisodePlace]:
        # All at once: what is wrong with the files has been said before what is wrong in them.
        rows = list(self._rows_v3() if self.is_v3 else read_json_lines(self.root / "meta/episodes.jsonl"))
        places = {}
        try:
            for row in rows:
                texts = row.get("tasks")
                tasks = tuple(str(text) for text in texts) if isinstance(texts, list) else ()
                place = EpisodePlace(int(row["episode_index"]), int(row["length"]), tasks, row)
                places[place.number] = place
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.root}: the list of episodes is damaged: {error}") from error
        if not places:
            raise InputError(f"{self.root} holds no episodes")
        if len(places) > _MAX_EPISODES or any(p.length < 1 or p.number < 0 for p in places.values()):
            raise InputError(f"{self.root}: the list of episodes is damaged")
        return places

    def _rows_v3(self) -> Iterator[dict[str, Any]]:
        paths = sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        for path in paths:
            table = read_table(path)
            wanted = [name for name in table.column_names if not name.startswith("stats/")]
            yield from table.select(wanted).to_pylist()

    @cached_property
    def tasks(self) -> dict[int, str]:
        """Every task's text by its number."""
        if (self.root / "meta/tasks.parquet").exists():
            rows = read_table(self.root / "meta/tasks.parquet").to_pylist()
        else:
            rows = list(read_json_lines(self.root / "meta/tasks.jsonl"))
        tasks = {}
        for row in rows:
            texts = [value for name, value in row.items() if name != "task_index" and isinstance(value, str)]
            if not texts or not isinstance(row.get("task_index"), int):
                raise InputError(f"{self.root}: the list of tasks is damaged")
            tasks[row["task_index"]] = texts[0]
        return tasks

    def component_names(self, key: str) -> tuple[str, ...]:
        """The names of a column's components, where the dataset gives them, in whatever nesting."""
        names: Any = self.features.get(key, {}).get("names")
        while isinstance(names, dict) and len(names) == 1 and isinstance(next(iter(names.values())), list):
            names = next(iter(names.values()))
        if isinstance(names, dict):
            names = sorted(names, key=lambda name: names[name] if isinstance(names[name], int) else 0)
        return tuple(str(name) for name in names) if isinstance(names, list) else ()

    def is_depth(self, key: str) -> bool:
        """Whether images are depth, or anything else that is not three channels of colour."""
        feature = self.features[key]
        notes = [feature.get("info"), feature.get("video_info")]
        flags = ("is_depth_map", "video.is_depth_map")
        if any(isinstance(note, dict) and note.get(flag) for note in notes for flag in flags):
            return True
        shape = feature.get("shape")
        return isinstance(shape, list) and len(shape) == 3 and 3 not in (shape[0], shape[2])

    def columns(self, place: EpisodePlace) -> tuple[dict[str, np.ndarray], list[str]]:
        """An episode's columns of numbers, (T, ...), and the names of those of anything else but images."""
        images = [key for key, feature in self.features.items() if feature["dtype"] in ("video", "image")]
        table = self._rows(place, leave_out=[*images, *LANGUAGE_COLUMNS])
        if len(table) != place.length:
            raise InputError(
                f"{self.root}: episode {place.number} has {len(table)} rows, its metadata say {place.length}"
            )
        columns, others = {}, []
        for name in table.column_names:
            values = array(table.column(name), len(table), name)
            if values is None:
                others.append(name)
            else:
                columns[name] = values
        return columns, others

    def language(self, place: EpisodePlace) -> tuple[tuple[Subtask, ...], tuple[str, ...]]:
        """An episode's annotated sub-tasks, and the styles of its other annotations; mostly none."""
        if not set(LANGUAGE_COLUMNS) & set(self.features):
            return (), ()
        wanted = (*LANGUAGE_COLUMNS, "timestamp", "episode_index")
        table = self._rows(place, leave_out=[name for name in self.features if name not in wanted])
        times = table.column("timestamp").to_numpy() if "timestamp" in table.column_names else None
        return read_language(table, times)

    def cells(self, place: EpisodePlace, key: str) -> Iterator[Any]:
        """One column's values of an episode, a few at a time."""
        import pyarrow.parquet as pq

        index = "episode_index"
        try:
            with pq.ParquetFile(self._data_path(place)) as file:
                for batch in file.iter_batches(16, columns=[key, index]):
                    for cell, number in zip(batch.column(key), batch.column(index).to_pylist(), strict=True):
                        if number == place.number:
                            yield cell.as_py()
        except InputError:
            raise
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise InputError(f"{self._data_path(place)} is damaged: {one_line(error, None)}") from error

    def _rows(self, place: EpisodePlace, leave_out: list[str]) -> Any:
        import pyarrow.parquet as pq

        path = self._data_path(place)
        try:
            names = [name for name in pq.read_schema(path).names if name not in leave_out]
            filters = [("episode_index", "=", place.number)] if "episode_index" in names else None
            return pq.read_table(path, columns=names, filters=filters, partitioning=None)
        except FileNotFoundError as error:
            raise InputError(f"there is no {path}") from error
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise InputError(f"{path} is damaged: {one_line(error, None)}") from error

    def _data_path(self, place: EpisodePlace) -> Path:
        if self.is_v3:
            default = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
            indices = self._indices(place, "data")
        else:
            default = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
            indices = self._v2_indices(place)
        return self._path("data_path", default, indices)

    def video(self, place: EpisodePlace, key: str) -> tuple[Path, float]:
        """A camera's video file and the time in it, s, of the episode's first frame."""
        if not self.is_v3:
            default = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
            return self._path("video_path", default, self._v2_indices(place) | {"video_key": key}), 0.0
        default = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        path = self._path("video_path", default, self._indices(place, f"videos/{key}") | {"video_key": key})
        start_s = place.row.get(f"videos/{key}/from_timestamp")
        if not isinstance(start_s, int | float) or not 0 <= start_s < 1e7:
            raise InputError(f"{self.root}: where episode {place.number} begins in {path.name} is not known")
        return path, float(start_s)

    def _v2_indices(self, place: EpisodePlace) -> dict[str, Any]:
        size = self.info.get("chunks_size", 1000)
        if not isinstance(size, int) or size < 1:
            raise InputError(f"{self.root / INFO}: chunks_size is {size!r}")
        return {"episode_index": place.number, "episode_chunk": place.number // size}

    def _indices(self, place: EpisodePlace, what: str) -> dict[str, Any]:
        try:
            return {n: int(place.row[f"{what}/{n}"]) for n in ("chunk_index", "file_index")}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.root}: the files of episode {place.number} are not known") from error

    def _path(self, name: str, default: str, values: dict[str, Any]) -> Path:
        pattern = self.info.get(name) or default
        try:
            relative = Path(str(pattern).format(**values))
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise InputError(f"{self.root / INFO}: {name} is {pattern!r}") from error
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"{self.root / INFO}: {name} leads out of the dataset")
        return self.root / relative

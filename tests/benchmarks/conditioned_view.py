"""A conditioned view of a million frames: ``python -m tests.benchmarks.conditioned_view [--quick]``.

The base has two 480×640 cameras. A few dozen episodes are really recorded and exported, with the project's
own encoder settings; the base of a million frames has tables of its own for every episode, and for its
videos hard links to those few dozen, each counted at its size: a million different pictures would be
some 70 GB. ``bytes_written`` are all bytes of the view that are not shared with its base.

LeRobot cannot give frames of a finished dataset other tasks. The nearest of its tools is
``add_features``, which adds the three score columns and copies the rest; it runs on the really recorded
episodes, and ``lerobot_seconds`` and ``lerobot_bytes_written`` are scaled up by frames. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.conditioned_view import make_view
from pipeline.dataset_folder import read_episode_facts
from pipeline.lerobot_dataset import export_dataset
from tests.benchmarks.camera_episodes import CameraEpisodes
from tests.benchmarks.large_dataset import multiply

COLUMNS = ("value", "advantage", "return")


def bytes_of(folder: Path) -> int:
    """The sizes of all files, also of those that have other names elsewhere."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bytes_unshared(view: Path, base: Path) -> int:
    """The sizes of the files of ``view`` that are not the same files as those of ``base``."""
    total = 0
    for path in view.rglob("*"):
        twin = base / path.relative_to(view)
        if path.is_file() and not (twin.exists() and twin.samefile(path)):
            total += path.stat().st_size
    return total


def make_views(base: Path, out: Path, repeats: int) -> tuple[list[float], int]:
    """Seconds of each of several scoring runs' views, and the bytes that one wrote."""
    facts = read_episode_facts(base)
    seconds = []
    for run in range(repeats):
        rng = np.random.default_rng(run)
        indicators = {}
        columns: dict[str, dict[str, np.ndarray]] = {name: {} for name in COLUMNS}
        for episode_id, length in zip(facts["id"], facts["length"], strict=True):
            indicators[episode_id] = rng.integers(-1, 2, length).astype(np.int8)
            for name in COLUMNS:
                columns[name][episode_id] = rng.normal(size=length).astype(np.float32)
        shutil.rmtree(out, ignore_errors=True)
        os.sync()
        start = time.perf_counter()
        make_view(base, indicators, out, indicator_dropout=0.1, seed=run, extra_columns=columns)
        seconds.append(time.perf_counter() - start)
    return seconds, bytes_unshared(out, base)


def add_with_lerobot(base: Path, out: Path, repeats: int) -> tuple[float, float]:
    """Seconds and bytes a frame of LeRobot's own tool."""
    from lerobot.datasets import LeRobotDataset, add_features

    dataset = LeRobotDataset("local/base", root=base, video_backend="pyav")
    scores = np.random.default_rng(0).normal(size=(len(dataset), 1)).astype(np.float32)
    added = {name: (scores, {"dtype": "float32", "shape": (1,), "names": [name]}) for name in COLUMNS}
    seconds = []
    for _ in range(repeats):
        shutil.rmtree(out, ignore_errors=True)
        os.sync()
        start = time.perf_counter()
        add_features(dataset, added, output_dir=out, repo_id="local/added")
        os.sync()  # ours is on the disk when it is done
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / len(dataset), bytes_unshared(out, base) / len(dataset)


def main() -> None:
    """Prints what was measured on what, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 frames and fewer repeats")
    parser.add_argument("--folder", type=Path, default=None, help="where to put the datasets for the time")
    arguments = parser.parse_args()
    recorded, episodes, length, repeats = (2, 200, 200, 2) if arguments.quick else (24, 2000, 500, 5)
    with tempfile.TemporaryDirectory(prefix="conditioned-view-", dir=arguments.folder) as name:
        folder = Path(name)
        maker = CameraEpisodes(folder / "lab")
        entries = [maker.write(f"recorded-{i}", length, i) for i in range(recorded)]
        small = export_dataset(entries, folder / "small")
        base = multiply(small, folder / "base", episodes)
        frames, size = episodes * length, bytes_of(base)
        print(
            f"base: {frames} frames in {episodes} episodes, {size / 1e9:.2f} GB counting each video of "
            f"{recorded} recorded episodes as often as it is linked"
        )
        seconds, written = make_views(base, folder / "view", repeats)
        print(f"view: {', '.join(f'{s:.1f}' for s in seconds)} s; {written / 1e6:.1f} MB written")
        their_seconds, their_bytes = add_with_lerobot(small, folder / "added", repeats)
        print(f"LeRobot's add_features, measured on {recorded * length} frames and scaled to {frames}")
        ours = statistics.median(seconds)
        figures = {
            "frames": frames,
            "seconds": round(ours, 2),
            "bytes_written": written,
            "dataset_bytes": size,
            "bytes_written_share": round(written / size, 5),
            "lerobot_seconds": round(their_seconds * frames, 1),
            "lerobot_bytes_written": round(their_bytes * frames),
            "ratio": round(their_seconds * frames / ours, 1),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

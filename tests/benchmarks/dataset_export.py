"""HDF5 to LeRobotDataset v3, against LeRobot's own recorder: ``python -m tests.benchmarks.dataset_export``.

Both sides read the same recorded episodes, two 480×640 cameras, and leave a finished dataset; LeRobot's
gets fewer columns. ``ratio`` is against ``add_frame``/``save_episode`` as ``lerobot-record`` uses them,
with LeRobot's own codec; ``ratio_streaming_our_codec`` against the fastest that we could make them:
streaming, with our codec settings.

Memory is the peak of the process and its children, each case in a fresh process: for episodes of L
frames and of 10 L, and for n episodes and 10 n. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import episode_video
from pipeline.episode import (
    ACTION_NAMES,
    CAMERAS,
    POLICY_STATE_FIELDS,
    POLICY_STATE_NAMES,
    Source,
    policy_state,
)
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.lerobot_dataset import export_dataset
from pipeline.workspace import Workspace
from tests.benchmarks.camera_episodes import HEIGHT, RATE_HZ, WIDTH, CameraEpisodes
from workflows.memory_meter import MemoryMeter


def record_with_lerobot(entries: Sequence[EpisodeEntry], out: Path, **options: Any) -> None:
    """The same frames through LeRobot's recorder."""
    from lerobot.datasets import LeRobotDataset

    picture = {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": (15,), "names": list(POLICY_STATE_NAMES)},
        "action": {"dtype": "float32", "shape": (7,), "names": list(ACTION_NAMES)},
        "source": {"dtype": "int64", "shape": (1,), "names": ["source"]},
        "intervention": {"dtype": "bool", "shape": (1,), "names": ["intervention"]},
        **{f"observation.images.{camera}": picture for camera in CAMERAS},
    }
    dataset = LeRobotDataset.create("local/recorded", int(RATE_HZ), features, root=out, **options)
    for entry in entries:
        with EpisodeReader(entry.path) as reader:
            states = policy_state({name: reader.state(name) for name in POLICY_STATE_FIELDS})
            actions, sources = reader.actions, reader.sources
            pictures = zip(*(episode_video.decoded_images(reader, c) for c in CAMERAS), strict=True)
            for i, images in enumerate(pictures):
                frame = {
                    "observation.state": states[i],
                    "action": actions[i],
                    "source": np.array([sources[i]], np.int64),
                    "intervention": np.array([sources[i] == Source.INTERVENTION]),
                    "task": entry.info.task,
                }
                frame |= {f"observation.images.{c}": image for c, image in zip(CAMERAS, images, strict=True)}
                dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


def lerobot_variants() -> dict[str, dict[str, Any]]:
    """LeRobot's recorder as ``lerobot-record`` runs it, and at its fastest with our codec settings."""
    from pipeline.lerobot_files import video_encoder

    return {
        "lerobot_default": {"image_writer_threads": 4 * len(CAMERAS)},
        "lerobot_streaming_our_codec": {
            "streaming_encoding": True,
            "encoder_queue_maxsize": 10_000,  # it drops frames where a queue is full
            "rgb_encoder": video_encoder(),
        },
    }


def speeds(entries: Sequence[EpisodeEntry], folder: Path, repeats: int) -> dict[str, list[float]]:
    """Frames a second of every way, one value a repeat; each begins with nothing encoded."""
    import pipeline.lerobot_files  # noqa: F401  # takes seconds, and is needed by all alike

    ways: dict[str, Callable[[Path], object]] = {"ours": lambda out: export_dataset(entries, out)}
    for name, options in lerobot_variants().items():
        ways[name] = lambda out, options=options: record_with_lerobot(entries, out, **options)  # type: ignore[misc]  # binds now
    frames = sum(entry.length for entry in entries)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):  # interleaved, so that a busy moment of the machine hits all alike
        for name, run in ways.items():
            out = folder / name
            start = time.perf_counter()
            run(out)
            found[name].append(frames / (time.perf_counter() - start))
            shutil.rmtree(out)
    return found


def peak_mib(workspace: Path, folder: Path, names: Sequence[str]) -> float:
    """The peak of exporting these episodes in a fresh process."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.dataset_export",
        "--measure",
        str(workspace),
        str(folder),
    ]
    done = subprocess.run([*command, *names], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def measure(workspace: Path, folder: Path, names: Sequence[str]) -> None:
    """Exports the episodes and prints this process tree's peak in MiB."""
    entries = [Workspace(workspace).find(name) for name in names]
    with MemoryMeter(interval_s=0.05) as meter:
        export_dataset(entries, folder / "measured", workers=2)
    shutil.rmtree(folder / "measured")
    print(meter.peak_bytes / 2**20)


def main() -> None:
    """Prints one line per case, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter episodes")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        workspace, folder, *names = arguments.measure
        measure(Path(workspace), Path(folder), names)
        return
    quick = arguments.quick
    count, length, repeats = (4, 25, 1) if quick else (4, 100, 3)
    short, many = (20, 20) if quick else (60, 30)
    with tempfile.TemporaryDirectory(prefix="dataset-export-") as name:
        folder = Path(name)
        maker = CameraEpisodes(folder / "lab")
        entries = [maker.write(f"timed-{i}", length, i) for i in range(count)]
        figures: dict[str, float] = {}
        results = speeds(entries, folder, repeats)
        for way, values in results.items():
            figures[f"{way}_frames_per_s"] = round(statistics.median(values), 1)
            print(f"{way}: median {statistics.median(values):.1f} frames/s over {repeats} repeats")
        for ratio, way in (
            ("ratio", "lerobot_default"),
            ("ratio_streaming_our_codec", "lerobot_streaming_our_codec"),
        ):
            pairs = zip(results["ours"], results[way], strict=True)
            figures[ratio] = round(statistics.median(ours / theirs for ours, theirs in pairs), 2)
        for case, made in {
            "peak_mib_length": [maker.write("short", short, 1)],
            "peak_mib_10_length": [maker.write("long", 10 * short, 1)],
            "peak_mib_episodes": [maker.write(f"few-{i}", 30, i) for i in range(many // 10)],
            "peak_mib_10_episodes": [maker.write(f"many-{i}", 30, i) for i in range(many)],
        }.items():
            figures[case] = round(peak_mib(maker.workspace.root, folder, [e.id for e in made]), 1)
            print(f"{case}: {figures[case]:.0f} MiB for {len(made)} episodes of {made[0].length} frames")
    figures["cores"] = os.cpu_count() or 1
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

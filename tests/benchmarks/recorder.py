"""Our recorder and LeRobot's own, in one go: ``python -m tests.benchmarks.recorder [--quick]``.

On the same simulated devices (an arm that answers at once, two 640×480 cameras at 30 Hz) each side, in a
process of its own, records one episode of 60 s at 30 Hz and then, as the next episode of a session would,
a second of 1 s. Ours is ``run_session`` as ``recap record`` runs it; LeRobot's is ``record_loop`` and
``save_episode`` with the settings that ``lerobot-record`` has by default.

Both are measured by when commands reach the arm. *Jitter* is by how much the time between two commands
differs from 1/30 s (99th percentile, first episode). *Save stall* is the longest time without a command
between the two episodes, less a period. *cpu_s* is the process's CPU time, children included, from the
first episode's start until all is on the disk. The last line is one JSON object; ``dropped_frames`` and
``missing_frames`` (steps that the rate promises and nobody made) are of the first episode. Without
``--quick`` both sides run three times by turns, and the medians count.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.recorder_devices import (
    RATE_HZ,
    ArmWithoutPhysics,
    ArmWithoutPhysicsConfig,
    PersonWhoJustDrives,
    PersonWhoJustDrivesConfig,
)

TASK = "pick up the red cube"
NEXT_EPISODE_S = 1


def cpu_s() -> float:
    """User and system time of this process and its finished children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measured(sent: list[tuple[float, bool]], steps: int) -> dict[str, float]:
    """Jitter of the first ``steps`` commands of the person, and the longest gap between the two episodes."""
    times = np.array([at for at, _ in sent])
    driven = np.flatnonzero([moves for _, moves in sent])
    first, after = driven[:steps], driven[steps]
    between = np.diff(times[first[-1] : after + 1])
    promised = round((times[first[-1]] - times[first[0]]) * RATE_HZ) + 1
    jitter = np.abs(np.diff(times[first]) - 1 / RATE_HZ) * 1e3
    return {
        "p50_jitter_ms": float(np.percentile(jitter, 50)),
        "p99_jitter_ms": float(np.percentile(jitter, 99)),
        "missing_frames": max(0, promised - steps),
        "save_stall_ms": max(0.0, float(between.max()) - 1 / RATE_HZ) * 1e3,
    }


def record_ours(folder: Path, seconds: int) -> dict[str, float]:
    """A session of two episodes; the person ends each."""
    from collectors.collection_session import SessionSettings, run_session
    from pipeline.episode_file import EpisodeReader
    from pipeline.workspace import Workspace

    workspace = Workspace(folder).create()
    person = PersonWhoJustDrives(
        PersonWhoJustDrivesConfig(lengths=[seconds * RATE_HZ, NEXT_EPISODE_S * RATE_HZ])
    )
    settings = SessionSettings(TASK, "benchmark", RATE_HZ, episodes=2, auto_start_s=0)
    with ArmWithoutPhysics(ArmWithoutPhysicsConfig()) as robot:
        began, began_cpu = time.monotonic(), cpu_s()
        summary = run_session(workspace, robot, person, None, settings)
        used, wall = cpu_s() - began_cpu, time.monotonic() - began
    first = summary.episodes[0]
    with EpisodeReader(workspace.episode_path(TASK, first.id)) as reader:
        frames = len(reader)
    assert frames == first.summary.steps - first.dropped_frames
    return measured(robot.sent, first.summary.steps) | {
        "frames": frames,
        "dropped_frames": first.dropped_frames,
        "cpu_s": used,
        "wall_s": wall,
    }


def record_with_lerobot(folder: Path, seconds: int) -> dict[str, float]:
    """The same two episodes by LeRobot's loop into LeRobot's dataset."""
    from lerobot.configs.dataset import DatasetRecordConfig
    from lerobot.datasets import (
        LeRobotDataset,
        VideoEncodingManager,
        aggregate_pipeline_dataset_features,
        create_initial_features,
    )
    from lerobot.processor import make_default_processors
    from lerobot.scripts.lerobot_record import record_loop
    from lerobot.utils.feature_utils import combine_feature_dicts

    settings = DatasetRecordConfig(repo_id="benchmark/recorder", root=folder / "dataset", fps=RATE_HZ)
    person = PersonWhoJustDrives(PersonWhoJustDrivesConfig())
    events = {"exit_early": False, "rerecord_episode": False, "stop_recording": False}
    of_person, to_robot, of_robot = make_default_processors()
    with ArmWithoutPhysics(ArmWithoutPhysicsConfig()) as robot:
        features = combine_feature_dicts(
            aggregate_pipeline_dataset_features(
                pipeline=of_person, initial_features=create_initial_features(action=robot.action_features)
            ),
            aggregate_pipeline_dataset_features(
                pipeline=of_robot,
                initial_features=create_initial_features(observation=robot.observation_features),
            ),
        )
        began, began_cpu = time.monotonic(), cpu_s()
        dataset = LeRobotDataset.create(  # as lerobot_record.record calls it
            settings.repo_id,
            settings.fps,
            root=settings.root,
            robot_type=robot.name,
            features=features,
            use_videos=settings.video,
            image_writer_processes=settings.num_image_writer_processes,
            image_writer_threads=settings.num_image_writer_threads_per_camera * len(robot.cameras),
            batch_encoding_size=settings.video_encoding_batch_size,
            rgb_encoder=settings.rgb_encoder,
            depth_encoder=settings.depth_encoder,
            encoder_threads=settings.encoder_threads,
            streaming_encoding=settings.streaming_encoding,
            encoder_queue_maxsize=settings.encoder_queue_maxsize,
        )
        with VideoEncodingManager(dataset):
            for length in (seconds, NEXT_EPISODE_S):
                record_loop(
                    robot, events, RATE_HZ, of_person, to_robot, of_robot, dataset, person, length, TASK
                )
                dataset.save_episode()
        dataset.finalize()
        used, wall = cpu_s() - began_cpu, time.monotonic() - began
    frames = LeRobotDataset(settings.repo_id, root=settings.root).meta.episodes["length"]
    assert sum(frames) == len(robot.sent)
    return measured(robot.sent, frames[0]) | {"frames": frames[0], "cpu_s": used, "wall_s": wall}


SIDES = {"ours": record_ours, "lerobot": record_with_lerobot}


def run_side(side: str, seconds: int) -> dict[str, Any]:
    """One side in a process of its own; the figures that it prints last."""
    command = [sys.executable, "-m", "tests.benchmarks.recorder", "--side", side, "--seconds", str(seconds)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:  # otherwise its encoder's chatter would hide the figures
        sys.exit(f"{side} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(side + ": " + ", ".join(f"{name} {value:.6g}" for name, value in figures.items()), flush=True)
    return figures


def main() -> None:
    """Prints a line for each side, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an episode of 8 s")
    parser.add_argument("--seconds", type=int, help="another length of the episode")
    parser.add_argument("--repeats", type=int, help="of both sides by turns; the medians count")
    parser.add_argument("--side", choices=SIDES, help="one side alone, in this process")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (8 if arguments.quick else 60)
    if arguments.side:
        logging.disable(logging.WARNING)  # LeRobot warns of every slow step, which would slow it down
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(SIDES[arguments.side](Path(folder), seconds)))
        return
    repeats = arguments.repeats or (1 if arguments.quick else 3)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(repeats):  # by turns, so that a busy moment of the machine hits both alike
        for side in SIDES:
            runs[side].append(run_side(side, seconds))
    dropped = sum(run["dropped_frames"] for run in runs["ours"])
    figures: dict[str, float] = {"seconds": seconds, "repeats": repeats, "dropped_frames": dropped}
    for name in ("missing_frames", "p50_jitter_ms", "p99_jitter_ms", "save_stall_ms", "cpu_s", "wall_s"):
        figures[name] = round(statistics.median(run[name] for run in runs["ours"]), 2)
        figures[f"lerobot_{name}"] = round(statistics.median(run[name] for run in runs["lerobot"]), 2)
    figures["save_stall_share"] = round(figures["save_stall_ms"] / figures["lerobot_save_stall_ms"], 4)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

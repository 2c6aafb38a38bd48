"""Training throughput, ours against LeRobot's: ``python -m tests.benchmarks.policy_training [--quick]``.

Both train the same policies (this project's ``gen3_vla`` and a small ACT, both in float32 on the CPU) on the
same conditioned data with the same batch size, in one run, on all cores that this process may use:

- *ours*: ``workflows.policy_training``, from the frame cache, as ``recap policy train`` does. The policy and
  the optimiser are the same as theirs; the running mean of the weights, which theirs has not, is on.
- *lerobot*: the command ``lerobot-train``, unchanged, on the conditioned view of the same episodes, with its
  own defaults for workers and video decoding. Its own figures count: seconds for the update and seconds
  waiting for data, per step, as it logs them.

Neither is timed before its first logged steps are over: both then have their workers and their caches warm.
The images are 84 pixels wide in the videos too, as the simulator records them: nothing is resized by either,
which favours LeRobot, since a real camera's video would have to be decoded at full size.

``waiting_share`` is the share of our steps' time in which the network waited for a batch (drawing it,
gathering its frames, preprocessing). The last line is one JSON object; ``ratio``, ``ours_samples_per_s`` and
``lerobot_samples_per_s`` are those of the policy with the smaller ratio, ``policies`` has both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.conditioned_view import make_view
from pipeline.episode import Source
from pipeline.frame_cache import FrameCache
from pipeline.frame_table import FrameTable
from pipeline.lerobot_dataset import export_dataset
from pipeline.policy.new_policy import new_checkpoint, table_facts
from pipeline.policy.training_statistics import table_statistics
from pipeline.policy.tuning import prepare
from pipeline.prompts import NEGATIVE, POSITIVE
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from workflows.local_ray import available_cpus
from workflows.policy_training_batches import PolicyBatches
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_loop import PolicyTrainer

IMAGE_SIZE = 84
ACT: dict[str, Any] = {
    "pretrained_backbone_weights": None,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 256,
    "n_encoder_layers": 2,
    "chunk_size": 8,
    "n_action_steps": 8,
}
POLICIES: dict[str, dict[str, Any]] = {"gen3_vla": {}, "act": ACT}


@dataclass(frozen=True)
class Size:
    """How much is trained: ``steps`` of ``batch`` samples, of which the first ``warm`` are not timed."""

    episodes: int
    length: int
    batch: int
    steps: int
    warm: int


FULL = Size(episodes=40, length=60, batch=64, steps=60, warm=20)
QUICK = Size(episodes=6, length=40, batch=16, steps=12, warm=4)


@dataclass(frozen=True)
class Data:
    """The same frames twice: in our cache, and as a conditioned LeRobotDataset."""

    table: FrameTable
    indicators: np.ndarray
    view: Path


@dataclass(frozen=True)
class Rate:
    """Samples a second in the steady state, and the share of the time that was spent waiting for data."""

    samples_per_s: float
    waiting_share: float


class TimedBatches:
    """Batches as they are, and how long the asking took."""

    def __init__(self, batches: PolicyBatches) -> None:
        """Nothing is drawn yet."""
        self._batches = batches
        self.seconds = 0.0

    def draw(self) -> dict[str, Any]:
        """The next batch."""
        began = time.perf_counter()
        batch = self._batches.draw()
        self.seconds += time.perf_counter() - began
        return batch


def make_data(folder: Path, size: Size) -> Data:
    """Records episodes, decodes them into the cache, exports them and makes a conditioned view."""
    workspace = Workspace(folder).create()
    make = EpisodeMaker(workspace)
    sources = [Source.TELEOP] * size.length
    entries = [make(sources=sources, size=(IMAGE_SIZE, IMAGE_SIZE)) for _ in range(size.episodes)]
    cache = FrameCache(workspace.cache, IMAGE_SIZE)
    cache.build_many([entry.path for entry in entries])
    table = FrameTable.load(cache, [entry.id for entry in entries], preload=True)
    codes = np.resize(np.array([POSITIVE, NEGATIVE], dtype=np.int8), size.length)
    outcomes = {entry.id: ("success", "failure")[i % 2] for i, entry in enumerate(entries)}
    base = export_dataset(entries, folder / "base", outcomes=outcomes, workers=available_cpus())
    indicators = {entry.id: codes for entry in entries}
    view = make_view(base, indicators, folder / "view", indicator_dropout=0.3, seed=0)
    return Data(table, np.tile(codes, size.episodes), view)


def ours(data: Data, policy_type: str, size: Size, threads: int) -> Rate:
    """Our trainer, whose steps are timed one by one."""
    config = PolicyTrainingConfig(
        steps=size.steps,
        batch_size=size.batch,
        policy_type=policy_type,
        policy_options=POLICIES[policy_type],
        threads=threads,
    )
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = new_checkpoint(
        policy_type, table_facts(data.table), table_statistics(data.table), config.policy_options
    )
    batches = TimedBatches(PolicyBatches(data.table, data.indicators, None, config, model))
    trainer = PolicyTrainer(model.policy, prepare(model.policy, config), batches, config)  # type: ignore[arg-type]  # asks it for draw() alone
    times = [time.perf_counter()]
    waited = [0.0]

    def note() -> None:
        times.append(time.perf_counter())
        waited.append(batches.seconds)

    trainer.run(None, note)
    seconds = times[-1] - times[size.warm]
    samples = (size.steps - size.warm) * size.batch
    return Rate(samples / seconds, (waited[-1] - waited[size.warm]) / seconds)


def lerobots(data: Data, policy_type: str, size: Size, out: Path) -> Rate:
    """``lerobot-train``; its own log of every ``warm`` steps is read."""
    options = [f"--policy.{name}={json.dumps(value)}" for name, value in POLICIES[policy_type].items()]
    if policy_type == "gen3_vla":
        options.append("--policy.discover_packages_path=pipeline.policy")
    command = [
        str(Path(sys.executable).with_name("lerobot-train")),
        "--dataset.repo_id=lab/benchmark",
        f"--dataset.root={data.view}",
        f"--policy.type={policy_type}",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        f"--output_dir={out}",
        f"--steps={size.steps}",
        f"--batch_size={size.batch}",
        f"--log_freq={size.warm}",
        "--save_checkpoint=false",
        "--wandb.enable=false",
        *options,
    ]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lerobot-train failed:\n{done.stderr[-3000:]}")
    found = re.findall(r"updt_s:([0-9.]+) .*?data_s:([0-9.]+)", done.stdout + done.stderr)
    if len(found) < 2:
        raise SystemExit("lerobot-train logged nothing that could be read")
    updates, waits = zip(*((float(update), float(wait)) for update, wait in found[1:]), strict=True)
    update, wait = statistics.mean(updates), statistics.mean(waits)
    return Rate(size.batch / (update + wait), wait / (update + wait))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs both on both policies and prints a line each, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little data and few steps: under a minute")
    size = QUICK if parser.parse_args(arguments).quick else FULL
    threads = available_cpus()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder, size)
        print(f"{len(data.table)} frames, batches of {size.batch}, {threads} cores")
        for policy_type in POLICIES:
            theirs = lerobots(data, policy_type, size, folder / policy_type)
            mine = ours(data, policy_type, size, threads)
            found[policy_type] = {
                "ratio": round(mine.samples_per_s / theirs.samples_per_s, 3),
                "ours_samples_per_s": round(mine.samples_per_s, 1),
                "lerobot_samples_per_s": round(theirs.samples_per_s, 1),
                "waiting_share": round(mine.waiting_share, 4),
            }
            print(
                f"{policy_type}: ours {mine.samples_per_s:.0f} samples/s ({mine.waiting_share:.1%} waiting), "
                f"lerobot-train {theirs.samples_per_s:.0f} ({theirs.waiting_share:.1%} waiting)"
            )
    worst = min(found, key=lambda policy_type: found[policy_type]["ratio"])
    waiting = max(figures["waiting_share"] for figures in found.values())
    print(json.dumps({**found[worst], "waiting_share": waiting, "policy": worst, "policies": found}))


if __name__ == "__main__":
    main()

"""LeRobot's side of :mod:`tests.benchmarks.policy_training`, and what both sides are measured by."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.policy_training_data import IMAGE_SIZE, SMALL, Data

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
BLOCK = 4

_STEP = re.compile(r"updt_s:([0-9.]+) .*?data_s:([0-9.]+)")
# LeRobot's own shrinking of what it decodes, for a policy that is told of the smaller images.
_SHRINK = {"resize": {"type": "Resize", "kwargs": {"size": [IMAGE_SIZE, IMAGE_SIZE]}}}


@dataclass(frozen=True)
class Size:
    """How much is trained: of ``steps`` with ``batch`` samples, the first ``warm`` are not timed."""

    episodes: int
    length: int
    batch: int
    steps: int
    warm: int
    recorded: tuple[str, ...]


@dataclass
class Steps:
    """What the timed steps took, step by step: of the clock, and of it waiting for data and the network."""

    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)
    core_seconds: float = 0.0

    def rates(self, batch: int) -> list[float]:
        """Samples a second, block by block."""
        blocks = [self.seconds[i : i + BLOCK] for i in range(0, len(self.seconds), BLOCK)]
        return [batch * len(block) / sum(block) for block in blocks]

    def share(self, part: list[float]) -> float:
        """Of all time."""
        return sum(part) / sum(self.seconds)

    def core_ms(self, batch: int) -> float:
        """Milliseconds of one core for a sample."""
        return 1e3 * self.core_seconds / (batch * len(self.seconds))


def lerobots(data: Data, policy_type: str, size: Size, recorded: str, out: Path) -> Steps:
    """``lerobot-train``; its own log of each step is read."""
    steps = Steps()
    before = 0.0
    with started(lerobot_command(data, policy_type, size, recorded, out), out.with_suffix(".log")) as lines:
        for number, (process, update, wait) in enumerate(lines, 1):
            if number > size.warm:
                steps.seconds.append(update + wait)
                steps.waited.append(wait)
                steps.network.append(update)
            if number in (size.warm, size.steps):
                now = _core_seconds(process)
                before, steps.core_seconds = now, now - before
    if len(steps.seconds) != size.steps - size.warm:
        raise SystemExit(f"lerobot-train logged {len(steps.seconds)} steps that could be read")
    return steps


def lerobot_command(data: Data, policy_type: str, size: Size, recorded: str, out: Path) -> list[str]:
    """The words of the command."""
    options = [f"--policy.{name}={json.dumps(value)}" for name, value in POLICIES[policy_type].items()]
    if policy_type == "gen3_vla":
        options.append("--policy.discover_packages_path=pipeline.policy")
    if recorded != SMALL:
        shape = [3, IMAGE_SIZE, IMAGE_SIZE]
        inputs: dict[str, Any] = {
            f"observation.images.{camera}": {"type": "VISUAL", "shape": shape}
            for camera in data.table.cameras
        }
        inputs["observation.state"] = {"type": "STATE", "shape": [data.table.state.shape[1]]}
        options += [
            "--dataset.image_transforms.enable=true",
            "--dataset.image_transforms.max_num_transforms=1",
            f"--dataset.image_transforms.tfs={json.dumps(_SHRINK)}",
            f"--policy.input_features={json.dumps(inputs)}",
        ]
    return [
        str(Path(sys.executable).with_name("lerobot-train")),
        "--dataset.repo_id=lab/benchmark",
        f"--dataset.root={data.view}",
        f"--policy.type={policy_type}",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        f"--output_dir={out}",
        f"--steps={size.steps}",
        f"--batch_size={size.batch}",
        "--log_freq=1",
        "--save_checkpoint=false",
        "--wandb.enable=false",
        *options,
    ]


@contextmanager
def started(command: list[str], log: Path) -> Iterator[Iterator[tuple[psutil.Process, float, float]]]:
    """Within, the steps that the command logs: its process, seconds of the update, seconds waiting.

    Raises ``SystemExit`` with the end of what it said where it fails.
    """
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    environment.pop("OMP_NUM_THREADS", None)
    with (
        log.open("w+") as said,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child,
    ):
        assert child.stdout is not None

        def steps(lines: Any) -> Iterator[tuple[psutil.Process, float, float]]:
            for line in lines:
                said.write(line)
                found = _STEP.search(line)
                if found:
                    yield psutil.Process(child.pid), float(found[1]), float(found[2])

        try:
            yield steps(child.stdout)
        finally:
            if sys.exc_info()[0] is not None:
                child.terminate()
        if child.wait():
            said.seek(0)
            raise SystemExit(f"lerobot-train failed:\n{said.read()[-3000:]}")


def _core_seconds(process: psutil.Process) -> float:
    """What a process and those that it started have computed so far."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)

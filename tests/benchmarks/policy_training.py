"""Training throughput, ours against LeRobot's: ``python -m tests.benchmarks.policy_training [--quick]``.

Both train the same policy, in float32 on the CPU, with AdamW and the same batch size, on the same conditioned
frames of two cameras, in one run, with a thread for each core:

- *ours*: the trainer and the prefetched batches of ``workflows.policy_training``, from the frame cache, as
  ``recap policy train --threads CORES`` does, and one thread more that draws batches. The running mean of the
  weights, which LeRobot has not, is on. ``ours_one_thread_samples_per_s`` and ``one_thread_ratio`` are the
  same without ``--threads``, which leaves the other cores idle.
- *lerobot*: the command ``lerobot-train``, unchanged, on the conditioned view of the same episodes, with a
  thread for each core, 4 workers, and torchcodec for video decoding, or PyAV where FFmpeg's libraries are
  missing, which takes about 1.6 times as long; a line says which. Its own figures count: seconds for the
  update and seconds waiting for data, of each step, as it logs them.

Images are 84 pixels wide for the network. They are recorded in two sizes. *640x480* is what cameras record
and a lab exports: LeRobot decodes and shrinks two full pictures for every sample (its ``Resize`` transform,
in its workers), our cache has done so once. *84x84* is what a simulator records: LeRobot's videos are as
small as what the network sees, nothing is resized, which favours it. There are few episodes, so that all
files are in the system's cache, which favours LeRobot too.

Neither is timed before its workers and buffers are warm. The rest of the steps is cut into blocks of four
(one batch of each of LeRobot's workers), and the median block counts; ours run before and after LeRobot's,
so that a machine's changing load meets both. ``*_core_ms`` is what a sample takes of one core, all processes
together, in the same steps: it depends less on what else the machine does than samples a second, but threads
that wait for each other, as LeRobot's do on a busy machine, count as if they computed.

``ratio`` is that of ``gen3_vla``, the policy that is made for CPUs, on a camera's recordings, which are what
a lab has; ``lowest_ratio`` is the smallest of all rows, small recordings and the other policy included. A
small ACT is the other policy: its ResNet-18 needs some 20 ms of one core for a sample's arithmetic, which no
trainer can leave out, so that its ratio tends to (network + decoding) / network. ``network_share`` is the
share of our steps' time in the forward and backward pass, ``waiting_share`` that in which the network waited
for a batch, the largest of all rows. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from lerobot.utils.import_utils import get_safe_default_video_backend

from pipeline.policy.new_policy import new_checkpoint, table_facts
from pipeline.policy.training_statistics import table_statistics
from pipeline.policy.tuning import prepare
from tests.benchmarks.policy_training_data import CAMERA, SMALL, Data, make_data
from tests.benchmarks.policy_training_lerobot import POLICIES, Size, Steps, lerobots
from workflows.local_ray import available_cpus
from workflows.policy_training_batches import PolicyBatches
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_loop import PolicyTrainer
from workflows.policy_training_prefetch import PrefetchedBatches

HEADLINE = ("gen3_vla", CAMERA)
DEFAULT_THREADS = PolicyTrainingConfig().threads  # one
# Nothing of ours starts up while it trains: the first steps only take memory.
OUR_WARM = 2
FULL = Size(episodes=8, length=100, batch=64, steps=24, warm=8, recorded=(CAMERA, SMALL))
QUICK = Size(episodes=4, length=40, batch=16, steps=12, warm=4, recorded=(CAMERA,))


def ours(data: Data, policy_type: str, size: Size, threads: int, steps: Steps) -> None:
    """Trains with our trainer and adds its steps, half as many as are timed of LeRobot's, to ``steps``."""
    torch.set_num_threads(threads)
    config = PolicyTrainingConfig(
        steps=OUR_WARM + (size.steps - size.warm) // 2,
        batch_size=size.batch,
        policy_type=policy_type,
        policy_options=POLICIES[policy_type],
        threads=threads,
    )
    torch.manual_seed(0)
    model = new_checkpoint(
        policy_type, table_facts(data.table), table_statistics(data.table), config.policy_options
    )
    batches = PrefetchedBatches(PolicyBatches(data.table, data.indicators, None, config, model))
    computed = 0.0

    def after_backward(_: object) -> None:
        nonlocal computed
        computed = time.perf_counter()

    trainer = PolicyTrainer(
        model.policy, prepare(model.policy, config), batches, config, after_backward=after_backward
    )
    began, waited, cores = time.perf_counter(), 0.0, 0.0

    def after_step() -> None:
        nonlocal began, waited, cores
        now = time.perf_counter()
        if trainer.step > OUR_WARM:
            steps.seconds.append(now - began)
            steps.waited.append(trainer.waited_s - waited)
            steps.network.append(computed - began - steps.waited[-1])
        elif trainer.step == OUR_WARM:
            cores = time.process_time()
        began, waited = now, trainer.waited_s

    with closing(batches):
        trainer.run(None, after_step)
    steps.core_seconds += time.process_time() - cores


def compare(data: Data, policy_type: str, size: Size, recorded: str, folder: Path) -> dict[str, Any]:
    """One row: a policy on recordings of one size."""
    mine, one_thread = Steps(), Steps()
    ours(data, policy_type, size, available_cpus(), mine)
    theirs = lerobots(data, policy_type, size, recorded, folder / f"{policy_type}-{recorded}")
    ours(data, policy_type, size, DEFAULT_THREADS, one_thread)
    ours(data, policy_type, size, available_cpus(), mine)
    rate, other, alone = (statistics.median(s.rates(size.batch)) for s in (mine, theirs, one_thread))
    row = {
        "policy": policy_type,
        "recorded": recorded,
        "ratio": round(rate / other, 3),
        "ours_samples_per_s": round(rate, 1),
        "lerobot_samples_per_s": round(other, 1),
        "one_thread_ratio": round(alone / other, 3),
        "ours_one_thread_samples_per_s": round(alone, 1),
        "waiting_share": round(mine.share(mine.waited), 4),
        "network_share": round(mine.share(mine.network), 4),
        "lerobot_waiting_share": round(theirs.share(theirs.waited), 4),
        "ours_core_ms": round(mine.core_ms(size.batch), 2),
        "lerobot_core_ms": round(theirs.core_ms(size.batch), 2),
    }
    more = f"{alone:.1f} in one thread"
    waits = f"{row['lerobot_waiting_share']:.1%} waiting, {row['lerobot_core_ms']} ms"
    print(
        f"{policy_type}, recorded at {recorded}: ours {rate:.1f} samples/s ({more}, "
        f"{row['waiting_share']:.1%} waiting, {row['network_share']:.1%} in the network, "
        f"{row['ours_core_ms']} ms of a core each), "
        f"lerobot-train {other:.1f} ({waits})",
        flush=True,
    )
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares the policies and prints a line each, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little data and few steps: a minute or two")
    size = QUICK if parser.parse_args(arguments).quick else FULL
    logging.disable(logging.WARNING)  # several pages where torchcodec finds no FFmpeg
    decoder = get_safe_default_video_backend()
    logging.disable(logging.NOTSET)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for recorded in size.recorded:
            folder = Path(name) / recorded
            data = make_data(folder, recorded, size.episodes, size.length)
            print(
                f"{len(data.table)} frames of {len(data.table.cameras)} cameras at {recorded}, batches of "
                f"{size.batch}, {available_cpus()} cores; LeRobot decodes with {decoder}",
                flush=True,
            )
            rows += [compare(data, policy_type, size, recorded, folder) for policy_type in POLICIES]
    (headline,) = (row for row in rows if (row["policy"], row["recorded"]) == HEADLINE)
    waiting = max(row["waiting_share"] for row in rows)
    lowest = min(row["ratio"] for row in rows)
    said = {**headline, "waiting_share": waiting, "lowest_ratio": lowest, "decoder": decoder, "rows": rows}
    print(json.dumps(said))


if __name__ == "__main__":
    main()

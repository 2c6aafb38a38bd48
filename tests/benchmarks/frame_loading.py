"""Random training samples from many frames: ``python -m tests.benchmarks.frame_loading [--quick]``.

A sample is one frame of two 224×224 cameras and a chunk of 16 actions. Three ways to get it, in one run,
on the same cores, samples drawn at random from all frames in batches of 64:

- *ours*: :class:`pipeline.frame_dataset.FrameDataset` over a memory-mapped table of the frame cache,
  through a torch ``DataLoader``. Every episode has a file of its own on the disk, which the system's
  cache holds where the memory is large enough (a line says if not).
- *LeRobot*: ``LeRobotDataset`` with ``delta_timestamps`` for the chunk, through a ``DataLoader`` too,
  with the faster of the video decoders that are installed. The dataset is made from the same episodes
  by our exporter: a key frame every second frame, as LeRobot's own recorder has them. The videos of a
  few different episodes are hard-linked as those of all the others, so that the system's cache holds
  them many times over: that favours LeRobot.
- *memcpy*: ``np.copyto`` of as many bytes as a sample has, from a random row of one array in memory to
  a row of a buffer of 64 rows that is used again and again, in one thread. The array is as large as
  all frames together, or as half of the memory that is left beside them, if that is less.

Both loaders are timed with several numbers of worker processes, and the best counts: for ours the median
of the repeats, with memcpy taking turns, for LeRobot, which takes much longer, of one. Neither is timed
before it is warm: ours has gone through all frames once; LeRobot has drawn so many samples that nearly
all videos are open, in each worker. What workers prepare ahead is not counted either. The last line is
one JSON object; both loaders and memcpy use the cores that this process may use.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader

from pipeline.frame_cache import FrameCache
from pipeline.frame_dataset import FrameDataset, as_is
from pipeline.frame_table import FrameTable
from tests.benchmarks.frame_loading_data import LoadingData, Size, make_data

BATCH = 64
CHUNK = 16
PREFETCH = 2
# Of the memory: more frames than this are not all in the system's cache; and what the array gets of the rest.
CACHED_SHARE = 0.85
ARRAY_SHARE = 0.5
LEAST_ARRAY = 2**30

# 200 episodes of 250 frames, of which 25 differ; the quick one has a twelfth of the frames.
FULL = Size(episodes=200, distinct=25, length=250)
QUICK = Size(episodes=40, distinct=4, length=100)


@dataclass(frozen=True)
class Effort:
    """How many samples are timed, how often, and how many of LeRobot's are not, while it warms up."""

    ours: int
    lerobot: int
    lerobot_warm_up: int
    repeats: int = 5


FULL_EFFORT = Effort(ours=20_000, lerobot=2_000, lerobot_warm_up=1_000)
QUICK_EFFORT = Effort(ours=2_000, lerobot=256, lerobot_warm_up=128, repeats=3)


def loader_rate(dataset: Any, workers: int, samples: int, warm_up: int = 0) -> float:
    """Samples per second of a ``DataLoader`` over ``dataset``, after ``warm_up`` samples and those ahead."""
    skipped = workers * PREFETCH + 1 + warm_up // BATCH
    count = skipped + (samples + BATCH - 1) // BATCH
    generator = torch.Generator().manual_seed(0)
    collate: Any = as_is if isinstance(dataset, FrameDataset) else None
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=torch.randint(len(dataset), (count * BATCH,), generator=generator).tolist(),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=collate,
    )
    batches = iter(loader)
    for _ in range(skipped):
        next(batches)
    began = time.perf_counter()
    got = sum(1 for _ in batches)
    return got * BATCH / (time.perf_counter() - began)


def worker_counts() -> list[int]:
    """The numbers of workers to try; this process alone comes last.

    LeRobot keeps its videos open, and a child that is forked from a process that has read some would
    read them at the same position of the same file, which fails.
    """
    return sorted({0, 1, len(os.sched_getaffinity(0))}, reverse=True)


def median(name: str, rates: Sequence[float]) -> float:
    """Their median, which is printed."""
    found = statistics.median(rates)
    print(f"{name}: {found:.0f} samples/s ({min(rates):.0f} to {max(rates):.0f} of {len(rates)})", flush=True)
    return found


def memcpy_rate(source: np.ndarray, samples: int) -> float:
    """Samples per second of copying random rows of an array in memory."""
    target = np.ones((BATCH, source.shape[1]), dtype=np.uint8)
    order = np.random.default_rng(0).integers(0, len(source), samples).tolist()
    began = time.perf_counter()
    for position, row in enumerate(order):
        np.copyto(target[position % BATCH], source[row])
    return samples / (time.perf_counter() - began)


def array_in_memory(total_bytes: int, sample_bytes: int) -> np.ndarray:
    """Rows of a sample's size, as many as there are frames or as fit beside those."""
    left = psutil.virtual_memory().available - total_bytes
    size = min(total_bytes, max(int(ARRAY_SHARE * left), LEAST_ARRAY))
    array = np.empty((size // sample_bytes, sample_bytes), dtype=np.uint8)
    array.fill(1)  # touches every page
    print(f"memcpy copies from an array of {array.nbytes / 2**30:.1f} GiB", flush=True)
    return array


def ours_and_memcpy(table: FrameTable, effort: Effort) -> tuple[float, float]:
    """Samples per second of our loader with its best number of workers, and of memcpy."""
    dataset = FrameDataset(table, chunk=CHUNK)
    sample_bytes = sum(value.nbytes for value in dataset[0].values() if isinstance(value, torch.Tensor))
    total = len(dataset) * sample_bytes
    print(f"{len(dataset)} frames, {sample_bytes} bytes a sample, {total / 2**30:.1f} GiB", flush=True)
    if total > CACHED_SHARE * psutil.virtual_memory().available:
        print("the system's cache cannot hold all frames here: our figures include reading the disk")
    source = array_in_memory(total, sample_bytes)
    go_through(table)
    ours: dict[int, list[float]] = {workers: [] for workers in worker_counts()}
    copying = []
    for _ in range(effort.repeats):
        copying.append(memcpy_rate(source, effort.ours))
        for workers, rates in ours.items():
            # A few batches first: the memory for them is fresh, or shared with workers that were forked.
            rates.append(loader_rate(dataset, workers, effort.ours // (4 if workers else 1), 4 * BATCH))
    best = max(median(f"ours, {workers} workers", rates) for workers, rates in ours.items())
    return best, median("memcpy", copying)


def go_through(table: FrameTable) -> None:
    """Reads every frame once, so that all are mapped and in the system's cache as far as they fit."""
    for rows in np.array_split(np.arange(len(table)), len(table) // BATCH + 1):
        table.images(rows)


def lerobot_dataset(data: LoadingData, backend: str) -> Any:
    """The frames as LeRobot reads them."""
    from lerobot.datasets import LeRobotDataset

    from pipeline.lerobot_files import REPO_ID

    deltas = {"action": [step / data.rate_hz for step in range(CHUNK)]}
    return LeRobotDataset(REPO_ID, root=data.dataset, delta_timestamps=deltas, video_backend=backend)


def fastest_decoder(data: LoadingData) -> str:
    """The faster of torchcodec and PyAV, of those that work here."""
    rates = {}
    for backend in ("torchcodec", "pyav"):
        try:
            rates[backend] = loader_rate(lerobot_dataset(data, backend), 1, BATCH)
            print(f"LeRobot's decoder {backend}: {rates[backend]:.0f} samples/s")
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            print(f"LeRobot's decoder {backend} does not work here: {str(error).splitlines()[0]}")
    return max(rates, key=rates.__getitem__)


def measure(data: LoadingData, effort: Effort) -> dict[str, Any]:
    """All figures."""
    table = FrameTable.load(FrameCache(data.cache, data.image_size), data.episode_ids)
    ours, copying = ours_and_memcpy(table, effort)
    decoder = fastest_decoder(data)
    lerobot = lerobot_dataset(data, decoder)
    theirs = 0.0
    for workers in worker_counts():
        rate = loader_rate(lerobot, workers, effort.lerobot, effort.lerobot_warm_up)
        theirs = max(theirs, median(f"LeRobot, {workers} workers", [rate]))
    return {
        "samples_per_s": round(ours),
        "lerobot_samples_per_s": round(theirs, 1),
        "ratio": round(ours / theirs, 1),
        "fraction_of_memcpy": round(ours / copying, 2),
        "memcpy_samples_per_s": round(copying),
        "lerobot_decoder": decoder,
        "frames": len(table),
    }


def main() -> None:
    """Makes the data, measures, prints the JSON object, removes the data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames and samples")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for 17 GiB of data")
    options = parser.parse_args()
    size, effort = (QUICK, QUICK_EFFORT) if options.quick else (FULL, FULL_EFFORT)
    torch.set_num_threads(1)  # the cores belong to the loaders' processes, ours and theirs
    free = shutil.disk_usage(options.folder).free
    if free < 1.2 * size.cache_bytes:
        raise SystemExit(f"{options.folder} has {free / 2**30:.1f} GiB free: name another with --folder")
    with tempfile.TemporaryDirectory(prefix="frame-loading-", dir=options.folder) as folder:
        began = time.perf_counter()
        data = make_data(Path(folder), size)
        print(f"data made in {time.perf_counter() - began:.0f} s", flush=True)
        print(json.dumps(measure(data, effort)))


if __name__ == "__main__":
    main()

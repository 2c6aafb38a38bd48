"""Values for every frame of a workspace: ``python -m tests.benchmarks.value_scoring [--quick]``.

Frames of two 84×84 cameras, an ensemble of two folds of two default networks; every frame is scored by the
two models of the fold that has not seen its episode. In one run, taking turns:

- *ours*: ``score_workspace`` as every command calls it, from the cache on the disk to published Zarr
  arrays: finding what is not scored yet, reading, both networks, means and spreads, publishing. The frames
  have been read before, so they are in the system's cache where they fit.
- *bare*: the same networks, batch size, precision and process on tensors that are ready in memory, frames
  of the same pictures; nothing is read, put together or kept.
- *naive*: the same networks fed by a torch ``DataLoader`` in order over the same episodes as a
  ``LeRobotDataset`` with its videos, the best of several numbers of worker processes, with the faster of
  the decoders that work here. Warm before it is timed.

On a CPU all use one process with one thread for the networks, since what is compared is what surrounds
them; ``--workers N`` times the pool on Ray besides, its start included. Ours is timed on many episodes and
on a tenth of them: ``growth_1x_to_10x`` is the time a frame takes of the many, relative to the few (below 1
where the start counts more for the few). The memory is the most that a fresh process held that did nothing
else. At the end the workspace has 1,000 scored episodes and gets one more: ``rescored_after_adding_one``.

``--device cuda --backbone 300m`` does the same with a vision-language network on a GPU, in bfloat16, on a
backbone of about 300 M random parameters that is made here, without the parts that do not depend on the
network. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.value_scoring_data import ScoringData, Size
from tests.benchmarks.value_scoring_rivals import Bare, naive_rate, say
from value_model.network import NetworkConfig, SmallNetworkConfig, VlmNetworkConfig
from workflows.scoring_pool import score_workspace
from workflows.value_ensemble import ValueEnsemble, load_ensemble, save_ensemble

FULL = Size(distinct=16, length=60, small=80, repeats=7, lerobot_frames=3000)
QUICK = Size(distinct=8, length=60, small=25, repeats=3, lerobot_frames=384, naive_workers=(4, 2))
# ``small`` is all there is here.
GPU = Size(distinct=16, length=60, small=200, repeats=7, lerobot_frames=1000)
EPISODES_BEFORE_ONE_MORE = 1000


def our_rate(data: ScoringData, ensemble: ValueEnsemble, ids: list[str], workers: int = 1) -> float:
    """Frames per second of scoring and publishing these episodes, none of which has a score."""
    data.forget_scores()
    began = time.perf_counter()
    result = score_workspace(data.workspace, ensemble, ids, workers=workers)
    seconds = time.perf_counter() - began
    assert (result.scored, result.reused, result.failed) == (len(ids), 0, {})
    return result.frames / seconds


def peak_mb(data: ScoringData, episodes: int) -> float:
    """The most memory (MB) that a process held which did nothing but score so many episodes."""
    data.forget_scores()
    words = [sys.executable, "-m", "tests.benchmarks.value_scoring", "--child", str(data.workspace.root)]
    done = subprocess.run([*words, str(episodes)], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def child(root: Path, episodes: int) -> None:
    """Scores a workspace's first episodes and prints the most memory that this process has held, in MB."""
    from pipeline.workspace import Workspace

    workspace = Workspace(root)
    ids = sorted(path.stem for path in workspace.episodes.glob("*/episode-*.h5"))[:episodes]
    result = score_workspace(workspace, load_ensemble(workspace), ids, workers=1)
    assert result.scored == episodes
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    print(int(line.split()[1]) / 1000)


def in_turns(rounds: int, *measured: Callable[[], float]) -> list[list[float]]:
    """The results of each function, called in turns, so that what disturbs one disturbs the others too."""
    results: list[list[float]] = [[] for _ in measured]
    for _ in range(rounds):
        for found, function in zip(results, measured, strict=True):
            found.append(function())
    return results


def median(name: str, values: Sequence[float]) -> float:
    """Their median, which is said."""
    found = statistics.median(values)
    say(f"{name}: {found:,.0f} ({min(values):,.0f} to {max(values):,.0f} of {len(values)})")
    return found


def network_rates(
    data: ScoringData, ensemble: ValueEnsemble, few: list[str], many: list[str], size: Size
) -> dict[str, Any]:
    """Ours on many and on few episodes, bare, and naive."""
    bare = Bare(data, ensemble)
    some = many[: 2 * len(many) // 3]
    bare.rate(4 * bare.frames)
    our_rate(data, ensemble, few)
    before, ours, after = in_turns(
        size.repeats,
        lambda: bare.rate(data.frames(some) // 4),
        lambda: our_rate(data, ensemble, some),
        lambda: bare.rate(data.frames(some) // 4),
    )
    # Of neighbours in time, which share what else the machine was doing.
    alone = [2 / (1 / a + 1 / b) for a, b in zip(before, after, strict=True)]
    fraction = statistics.median(a / b for a, b in zip(ours, alone, strict=True))
    rate = median("ours, frames/s", ours)
    once, tenfold = in_turns(
        max(2, size.repeats // 2),
        lambda: our_rate(data, ensemble, few),
        lambda: our_rate(data, ensemble, many),
    )
    growth = statistics.median(a / b for a, b in zip(once, tenfold, strict=True))
    naive = naive_rate(data, bare, data.lerobot_dataset(len(few)), size)
    return {
        "frames_per_s": round(rate),
        "bare_model_frames_per_s": round(median("bare, frames/s", alone)),
        "fraction_of_bare": round(fraction, 3),
        "naive_frames_per_s": round(naive),
        "ratio": round(rate / naive, 1),
        "growth_1x_to_10x": round(growth, 3),
    }


def measure(root: Path, size: Size, workers: int) -> dict[str, Any]:
    """All figures on a CPU."""
    data = ScoringData(root, size.distinct, size.length)
    few = data.add(size.small)
    many = few + data.add(9 * size.small)
    ensemble = data.ensemble(SmallNetworkConfig(image_size=data.cache.image_size), many)
    save_ensemble(data.workspace, ensemble)
    say(f"{size}: {data.frames(few)} and {data.frames(many)} frames")
    found = network_rates(data, ensemble, few, many, size)
    if workers > 1:
        found["pool_frames_per_s"] = round(our_rate(data, ensemble, many, workers))
        found["pool_workers"] = workers
    memory = {"1x": peak_mb(data, len(few)), "10x": peak_mb(data, len(many))}
    return {
        **found,
        "memory_mb": {name: round(value) for name, value in memory.items()},
        "rescored_after_adding_one": one_more(data, ensemble, many),
        "frames": {"1x": data.frames(few), "10x": data.frames(many)},
    }


def one_more(data: ScoringData, ensemble: ValueEnsemble, scored: list[str]) -> int:
    """How many of 1,000 scored episodes and a new one are scored."""
    ids = scored + data.add(max(0, EPISODES_BEFORE_ONE_MORE - len(scored)), short=True)
    score_workspace(data.workspace, ensemble, ids, workers=1)
    ids += data.add(1)
    began = time.perf_counter()
    result = score_workspace(data.workspace, ensemble, ids)
    say(f"one more: {result.scored} scored, {result.reused} reused in {time.perf_counter() - began:.2f} s")
    return result.scored


def measure_gpu(root: Path, size: Size, backbone: str) -> dict[str, Any]:
    """The figures that depend on the network, for a vision-language network on a GPU."""
    from tests.tiny_backbone import build_backbone

    data = ScoringData(root, size.distinct, size.length)
    network: NetworkConfig = SmallNetworkConfig(image_size=data.cache.image_size)
    if backbone != "none":
        folder = build_backbone(root / "backbone", size="300m")
        network = VlmNetworkConfig(backbone=str(folder), image_size=data.cache.image_size)
    ids = data.add(size.small)
    ensemble = data.ensemble(network, ids, device="cuda", precision="bfloat16")
    say(f"{size}: {data.frames(ids)} frames on {torch.cuda.get_device_name()}")
    torch.cuda.reset_peak_memory_stats()
    our_rate(data, ensemble, ids)
    peak = torch.cuda.max_memory_allocated() / 2**20
    found = network_rates(data, ensemble, ids[: len(ids) // 10], ids, size)
    return {**found, "peak_gpu_memory_mib": round(peak), "backbone": backbone, "precision": "bfloat16"}


def main() -> None:
    """Makes the data, measures, prints the JSON object, removes the data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames and repeats")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for 3 GB of data")
    parser.add_argument("--workers", type=int, default=1, help="time the pool with so many processes, too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", choices=("none", "300m"), default="none", help="with --device cuda")
    parser.add_argument("--child", nargs=2, metavar=("WORKSPACE", "EPISODES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        child(Path(options.child[0]), int(options.child[1]))
        return
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="value-scoring-", dir=options.folder) as folder:
        if options.device == "cpu":
            found = measure(Path(folder), size, options.workers)
        elif torch.cuda.is_available():
            gpu = replace(GPU, repeats=size.repeats, small=GPU.small // (4 if options.quick else 1))
            found = measure_gpu(Path(folder), gpu, options.backbone)
        else:
            raise SystemExit("there is no GPU here that torch can use: --device cuda measures nothing")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

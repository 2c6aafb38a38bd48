"""Scoring on two machines: ``python -m tests.benchmarks.cluster [--quick]``.

A real Ray cluster of two nodes is started on this machine, each with one core, and 1,000 episodes of two
84×84 cameras are scored by an ensemble of two folds of two default networks: by one worker, on one node, and
by two, one on each; in turns, several times, medians are told. A rate is frames over the seconds of the whole
call: starting the workers, reading, both networks, publishing. ``efficiency`` is the rate of two over twice
the rate of one; ``efficiency_without_start`` the same from the first published item on. Both nodes share this
machine, so that what it does besides, and its memory's bandwidth, count against two workers.

Every value and spread of two workers must be equal to those of one to the last bit. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.frame_scores import read_scores
from pipeline.stored_frames import StoredFrames, current_frames
from tests.benchmarks.value_scoring_data import ScoringData
from tests.workflows.two_nodes import environment, two_nodes
from value_model.network import SmallNetworkConfig
from workflows.cluster import ray_cluster
from workflows.scoring_actors import score_in_actors
from workflows.scoring_pool import scoring_run_of
from workflows.scoring_worker import ScoringJob
from workflows.value_ensemble import ValueEnsemble

EPISODES, LENGTH, REPEATS = 1000, 60, 3
QUICK_EPISODES, QUICK_REPEATS = 120, 1

Values = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Scored:
    """One scoring: its frames and seconds, those from the end of the first item on, and the values."""

    frames: int
    seconds: float
    later_frames: int
    later_seconds: float
    values: Values

    @property
    def rate(self) -> float:
        """Frames per second of the whole call."""
        return self.frames / self.seconds

    @property
    def later_rate(self) -> float:
        """Frames per second once the workers had started."""
        return self.later_frames / max(self.later_seconds, 1e-9)


def score(
    data: ScoringData, ensemble: ValueEnsemble, episodes: Sequence[StoredFrames], workers: int
) -> Scored:
    """Scores and publishes the episodes, none of which has a score, in so many actors."""
    data.forget_scores()
    run = scoring_run_of(ensemble)
    job = ScoringJob(data.cache.root.absolute(), run, tuple(m.absolute() for m in ensemble.members), ensemble)
    told: list[tuple[float, int]] = []

    def report(frames: StoredFrames, wrong: str | None) -> None:
        assert wrong is None, wrong
        told.append((time.perf_counter(), frames.length))

    began = time.perf_counter()
    score_in_actors(job, episodes, workers, report)
    seconds = time.perf_counter() - began
    total = sum(frames.length for frames in episodes)
    assert sum(length for _, length in told) == total
    # An item's episodes are reported together.
    later = [length for at, length in told if at - told[0][0] > 0.01]
    values = {}
    for frames in episodes:
        found = read_scores(data.cache, run, frames.episode_id)
        values[frames.episode_id] = [np.array(found[name]) for name in ("value", "value_spread")]
    return Scored(total, seconds, sum(later), told[-1][0] - told[0][0], values)


def equal(left: Values, right: Values) -> bool:
    """Whether both are equal to the last bit."""
    return left.keys() == right.keys() and all(
        a.tobytes() == b.tobytes() for name in left for a, b in zip(left[name], right[name], strict=True)
    )


def measure(root: Path, episodes: int, repeats: int) -> dict[str, object]:
    """Starts the cluster, scores, compares; the figures."""
    data = ScoringData(root, distinct=16, length=LENGTH)
    ids = data.add(episodes)
    ensemble = data.ensemble(SmallNetworkConfig(image_size=data.cache.image_size), ids)
    paths = {path.stem: path for path in data.workspace.episodes.glob("*/*.h5")}
    stored = [found for name in ids if (found := current_frames(data.cache, paths[name])) is not None]
    assert len(stored) == episodes
    runs: dict[int, list[Scored]] = {1: [], 2: []}
    with two_nodes() as cluster, ray_cluster(cluster.address, data.workspace):
        print(f"{episodes} episodes, {data.frames(ids)} frames, two nodes at {cluster.address}", flush=True)
        for _ in range(repeats):
            for workers, done in runs.items():
                done.append(score(data, ensemble, stored, workers))
                print(
                    f"{workers} workers: {done[-1].rate:,.0f} frames/s ({done[-1].seconds:.1f} s)",
                    flush=True,
                )
    bit_equal = all(equal(runs[1][0].values, one.values) for found in runs.values() for one in found)
    rate = {workers: statistics.median(one.rate for one in found) for workers, found in runs.items()}
    later = {workers: statistics.median(one.later_rate for one in found) for workers, found in runs.items()}
    whole, without_start = rate[2] / (2 * rate[1]), later[2] / (2 * later[1])
    print(f"efficiency of two workers: {whole:.2f}, {without_start:.2f} without their start")
    return {
        "frames_per_s_1": round(rate[1]),
        "frames_per_s_2": round(rate[2]),
        "efficiency": round(whole, 3),
        "efficiency_without_start": round(without_start, 3),
        "bit_equal": bit_equal,
        "episodes": episodes,
    }


def main() -> None:
    """Measures, prints the JSON object, removes the data and the cluster."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer episodes, once")
    options = parser.parse_args()
    os.environ.update(environment())
    size = (QUICK_EPISODES, QUICK_REPEATS) if options.quick else (EPISODES, REPEATS)
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        found = measure(Path(folder), *size)
    assert found["bit_equal"], "two workers gave other values than one"
    print(json.dumps(found))


if __name__ == "__main__":
    main()

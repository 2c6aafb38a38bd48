"""Is the value model any good? ``python -m tests.benchmarks.value_quality [--quick] [--out DIR]``.

A skilled and a sloppy person demonstrate in the simulator, a base policy trained on that is rolled out
alone; a scripted annotator labels everything through the label store. The value model is trained from
pixels as the loop trains it (cross-fitted, its default configuration), and every number is out of fold:

- *AUC at half*: the chance that a success is valued above a failure of the same task, at half of each
  one's own length, and (*same age*) at the frame that is half of the task's median success. The first is
  what is usually quoted; it flatters, since failures last longer and the clock alone tells them apart.
- *rank correlation*: Spearman's, of value and -time-to-go in each success, the mean over them: does the value
  rise as the task nears its end? *Pooled* ranks all frames of a task's successes together. People and
  policies of different speeds are in there, and how fast somebody is cannot be seen in one frame; *within one
  operator* lies between the two.
- *ECE*: the expected calibration error over ten parts of [-1, 0], and *error*: the mean of |value - return|.
  A clock that gives the mean return of each age has no ECE by construction, but errs.

The same for the baselines that the gate computes, and for *true state*: regression trees on what the
simulator knows (where the cubes are, what is held), out of the same folds. It sees what no camera blurs and
still cannot know who acts or what will happen next: what it misses, no value of a single frame has.

A third person drops the cube in the lift at a known frame, in scenes of their own. No model was trained on
any of that person's episodes; a drop counts as seen as told in :mod:`tests.benchmarks.value_quality_drops`.
The last line is one JSON object. ``--out`` keeps a picture.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from pipeline.episode import Outcome
from tests.benchmarks.value_quality_data import QualityData, Size, make_data, worker_pool
from tests.benchmarks.value_quality_drops import DropDetection, detect
from tests.benchmarks.value_quality_picture import draw
from tests.benchmarks.value_quality_true_state import tree_values, true_state
from value_model.calibration import ValueQuality, measure_quality
from value_model.comparators import BASELINES
from value_model.scoring import FoldCheckpoint, score
from value_model.training import train_fold
from value_model.training_config import ValueTrainingConfig

FULL = Size(skilled=80, sloppy=60, autonomous=100, clumsy=70, policy_steps=1000)
QUICK = Size(skilled=24, sloppy=24, autonomous=12, clumsy=16, policy_steps=100)
QUICK_STEPS = 250


def train(
    data: QualityData, config: ValueTrainingConfig, out: Path, pool: ProcessPoolExecutor
) -> tuple[list[FoldCheckpoint], float]:
    """The ensemble's checkpoints, and the seconds that its jobs took together."""
    jobs = [
        pool.submit(train_fold, data.table, data.outcomes, config, fold, member, out / f"{fold}-{member}")
        for fold in range(config.folds)
        for member in range(config.members)
    ]
    results = [job.result() for job in jobs]
    return [(r.fold, r.member, r.path) for r in results], sum(r.seconds for r in results)


def rank_within_operators(data: QualityData, values: np.ndarray) -> float:
    """Spearman's of value and -time-to-go over one operator's successes, the mean over operators."""
    table = data.table
    won = np.array([data.outcomes[e] == Outcome.SUCCESS for e in table.episode_ids])
    left = table.lengths[table.episode_index] - 1 - table.frame_index
    by_operator = []
    for person in dict.fromkeys(data.operators):
        chosen = (won & (np.array(data.operators) == person))[table.episode_index]
        if chosen.any():
            by_operator.append(float(spearmanr(values[chosen], -left[chosen]).statistic))
    return statistics.fmean(by_operator)


def rank_within_episodes(data: QualityData, values: np.ndarray) -> float:
    """Spearman's of value and -time-to-go in each success, the mean over them; 0 where it is constant."""
    ranks = []
    for i, episode_id in enumerate(data.table.episode_ids):
        found = values[data.table.frames_of(i)]
        if data.outcomes[episode_id] == Outcome.SUCCESS:
            constant = np.ptp(found) == 0
            ranks.append(0.0 if constant else float(spearmanr(found, np.arange(len(found))).statistic))
    return statistics.fmean(ranks)


def figures(data: QualityData, values: np.ndarray, quality: ValueQuality) -> dict[str, float | None]:
    """The numbers of a table row and of the JSON."""
    found = {
        "auc_half": quality.auc_by_part["50%"],
        "auc_half_same_age": quality.auc_same_age["50%"],
        "rank_correlation": rank_within_episodes(data, values),
        "rank_correlation_pooled": quality.rank_correlation,
        "ece": quality.expected_calibration_error,
        "error": quality.mean_absolute_error,
    }
    return {name: None if number is None else round(number, 3) for name, number in found.items()}


def print_rows(rows: dict[str, dict[str, float | None]]) -> None:
    """One line a method."""
    header = ("AUC at half", "same age", "rank corr.", "pooled", "ECE", "error")
    print("\n" + " " * 16 + "".join(f"{name:>13}" for name in header))
    for name, row in rows.items():
        cells = ["-" if number is None else f"{number:.3f}" for number in row.values()]
        print(f"{name:16}" + "".join(f"{cell:>13}" for cell in cells))


def print_drops(found: DropDetection) -> None:
    """What was seen of the dropped cubes."""
    print(
        f"\ndropped cubes: {found.seen:.0%} of {found.cases} seen within 1 s (a fall of more than "
        f"{found.noise:.3f}), {found.false_alarms:.0%} false alarms in {found.controls} lifts without a drop"
    )
    for gave_up, text in ((False, "picked up again"), (True, "left lying")):
        falls = found.falls[found.gave_up == gave_up]
        seen = np.mean(falls > found.noise) if len(falls) else np.nan
        if len(falls):
            print(f"  {text}: {seen:.0%} of {len(falls)}, median fall {np.median(falls):.3f}")


def measure(root: Path, size: Size, config: ValueTrainingConfig, out: Path | None) -> dict[str, Any]:
    """Makes the data, trains, scores, prints, and returns the figures."""
    began = time.perf_counter()
    with worker_pool() as pool:
        data = make_data(root, size, pool)
        won = sum(outcome == Outcome.SUCCESS for outcome in data.outcomes.values())
        episodes, frames = len(data.outcomes), len(data.table)
        print(f"{episodes} episodes, {won} successes, {frames} frames; {time.perf_counter() - began:.0f} s")
        state = pool.submit(true_state, data.table, data.scenes)
        models, training_s = train(data, config, root / "models", pool)
        baselines = {"true state": tree_values(data.table, data.outcomes, config, state.result())}
    values, planted_values = (score(table, models, config) for table in (data.table, data.planted))
    baselines |= {b.name: b.score(data.table, data.outcomes, config) for b in BASELINES}
    quality = measure_quality(data.table, values, data.outcomes, config.failure_penalty, baselines=baselines)
    rows = {"value model": figures(data, values, quality)}
    rows |= {name: figures(data, baselines[name], found) for name, found in quality.baselines.items()}
    print_rows(rows)
    within_operator = rank_within_operators(data, values)
    print(f"rank correlation of the value model within one operator: {within_operator:.3f}")
    drops = detect(data.planted, planted_values, data.drops, data.table, values, data.outcomes)
    print_drops(drops)
    if out is not None:
        print(f"picture: {draw(out, data, values, planted_values)}")
    return {
        "episodes": episodes,
        "successes": won,
        "frames": frames,
        **rows["value model"],
        "rank_correlation_within_operator": round(within_operator, 3),
        **{name.replace(" ", "_"): row for name, row in rows.items() if name != "value model"},
        "drop_detected": round(drops.seen, 3),
        "drop_cases": drops.cases,
        "drop_false_alarms": round(drops.false_alarms, 3),
        "training_s": round(training_s, 1),
        "total_s": round(time.perf_counter() - began),
    }


def main() -> None:
    """Measures in a temporary folder and prints the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer episodes and steps: shows that it runs")
    parser.add_argument("--out", type=Path, help="folder for the picture of three episodes")
    parser.add_argument("--seed", type=int, default=0, help="of folds, weights and batches")
    options = parser.parse_args()
    config = ValueTrainingConfig(seed=options.seed)
    if options.quick:
        config = ValueTrainingConfig(seed=options.seed, members=1, steps=QUICK_STEPS)
    with tempfile.TemporaryDirectory(prefix="value-quality-") as folder:
        found = measure(Path(folder), QUICK if options.quick else FULL, config, options.out)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

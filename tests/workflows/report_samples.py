"""A synthetic but plausible iteration for the report's tests: drawn scenes in real episode files."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.episode import ACTION_FIELD, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeEntry, EpisodeWriter, read_entry
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from tests.value_model.gate_samples import sound_case
from value_model.advantages import Reason
from value_model.calibration import ReliabilityBin, ValueQuality
from value_model.gate import GateReport
from workflows.comparison import Attempt, performance
from workflows.paired_comparison import paired_difference
from workflows.report import ReportData, StepOrigin
from workflows.report_films import Clip

RATE_HZ = 10.0
TASKS = ("pick up the red cube", "pick up the blue cube")
CUBES = {TASKS[0]: (200, 50, 45), TASKS[1]: (45, 90, 200)}


def scene(progress: float, task: str, size: int = 84) -> np.ndarray:
    """A drawn table camera frame: a gripper that comes down to a cube and lifts it."""
    image = np.full((size, size, 3), (226, 221, 211), np.uint8)
    image[: size // 4] = (122, 132, 142)
    lift = max(0.0, progress - 0.6) * size * 0.7
    cube = (int(size * 0.75 - lift), int(size * 0.55))
    tool = int(size * 0.2 + min(progress / 0.6, 1) * size * 0.42 - lift)
    column = int(size * (0.25 + 0.3 * min(progress / 0.5, 1)))
    image[cube[0] : cube[0] + 10, cube[1] - 5 : cube[1] + 5] = CUBES[task]
    image[:tool, column - 2 : column + 2] = (70, 74, 80)
    image[max(0, tool) : tool + 9, [column - 7, column - 6, column + 6, column + 7]] = (40, 42, 46)
    return image


def record(folder: Path, info: EpisodeInfo, sources: np.ndarray, reach: float) -> EpisodeEntry:
    """Writes a real episode file whose cube is lifted when ``reach`` is 1."""
    path = folder / f"{info.id}.h5"
    state = {f.name: np.zeros(f.shape, f.dtype) for f in STATE_FIELDS}
    with EpisodeWriter(path, info, flush_interval_s=60.0) as writer:
        for i, source in enumerate(sources):
            image = scene(reach * i / (len(sources) - 1), info.task)
            stamp = 10**9 + i * 10**8
            frame = Frame(
                state, {"table": image}, np.zeros(ACTION_FIELD.shape), Source(source), stamp, {"table": stamp}
            )
            writer.append(frame)
    return read_entry(path)


def episode_rows(entry: EpisodeEntry, outcome: str | None, sources: np.ndarray, seed: int) -> pd.DataFrame:
    """Values that follow the return with noise, and the marks that the rule of the loop makes of them."""
    rng = np.random.default_rng(seed)
    length = len(sources)
    left = np.arange(length)[::-1] / 80
    returns = -left if outcome == "success" else np.maximum(-1, -left - 0.6)
    value = np.clip(0.75 * returns - 0.12 + np.cumsum(rng.normal(0, 0.02, length)), -1, 0)
    advantage = returns - value + rng.normal(0.05, 0.04, length)
    corrected = sources == Source.INTERVENTION
    reason = np.where(advantage > 0.06, Reason.ABOVE_THRESHOLD, Reason.BELOW_THRESHOLD)
    reason = np.where(corrected, Reason.FORCED_POSITIVE_INTERVENTION, reason)
    if outcome is None:
        returns, advantage = np.full(length, np.nan), np.full(length, np.nan)
        reason = np.full(length, Reason.NO_OUTCOME)
    indicator = np.select(
        [reason == Reason.NO_OUTCOME, reason == Reason.BELOW_THRESHOLD], [NONE, NEGATIVE], POSITIVE
    )
    return pd.DataFrame(
        {
            "episode_id": entry.id,
            "task": entry.info.task,
            "operator": entry.info.operator,
            "outcome": outcome,
            "frame": np.arange(length),
            "source": sources.astype(np.int8),
            "value": value.astype(np.float32),
            "advantage": advantage.astype(np.float32),
            "return_": returns.astype(np.float32),
            "indicator": indicator.astype(np.int8),
            "reason": reason.astype(np.int8),
        }
    )


def attempts(rate: float, seconds: float, count: int = 200, seed: int = 0) -> list[Attempt]:
    """An evaluation on numbered starts; the hard starts are the same whatever the rate."""
    ease = np.random.default_rng(3).random(count) * 0.7 + np.random.default_rng(seed).random(count) * 0.3
    order = np.argsort(np.argsort(-ease))
    won = order < rate * count
    spent = np.where(won, seconds, 8.0) + np.random.default_rng(seed).random(count)
    return [
        Attempt(TASKS[i % 2], 1_000_000 + i, bool(won[i]), int(spent[i] * RATE_HZ), float(spent[i]))
        for i in range(count)
    ]


@cache
def gate_report() -> GateReport:
    """The gate's on sound values of two operators; it is of other episodes than the page's."""
    return sound_case().judge()


def make_data(folder: Path, episodes: int = 8, operator: str = "Ana", lift: float = 0.3) -> ReportData:
    """A whole iteration's report; ``lift`` is how much better RECAP is than the base."""
    entries, rows = [], []
    rng = np.random.default_rng(0)
    for i in range(episodes):
        kind = ("teleop", "policy", "corrected", "policy")[i % 4]
        length = int(rng.integers(30, 50))
        sources = np.full(length, Source.TELEOP if kind == "teleop" else Source.POLICY)
        if kind == "corrected":
            sources[length // 2 : length - 6] = Source.INTERVENTION
        outcome = None if i == episodes - 1 and episodes > 4 else "failure" if i % 4 == 3 else "success"
        who = operator if i % 8 < 4 else "Ben"
        info = EpisodeInfo(
            f"episode-{i:03d}",
            TASKS[(i // 4) % 2],
            who,
            "simulated_gen3",
            RATE_HZ,
            ("table",),
            "2026",
            "0.1.0",
        )
        entries.append(record(folder, info, sources, 0.55 if outcome == "failure" else 1.0))
        rows.append(episode_rows(entries[-1], outcome, sources, i))
    base, filtered = attempts(0.42, 6.0), attempts(0.42 + 0.6 * lift, 5.6, seed=1)
    recap, negative = attempts(0.42 + lift, 5.0, seed=2), attempts(0.3, 6.5, seed=3)
    steps = [
        StepOrigin("train base policy", "a1b2c3d4e5f60718", "steps/train-base/a1b2c3d4e5f60718", 184.2),
        StepOrigin("score values", "0f1e2d3c4b5a6978", "steps/score-values/0f1e2d3c4b5a6978", 9.31),
        StepOrigin("evaluate RECAP", "99aa88bb77cc66dd", "steps/evaluate-recap/99aa88bb77cc66dd", 71.0),
    ]
    bins = tuple(
        ReliabilityBin(-1 + b / 10, -0.9 + b / 10, 40 + 9 * b, -0.95 + b / 10, -0.9 + 0.09 * b)
        for b in range(10)
    )
    shares = {task: {"teleop": 0.41, "policy": 0.27, "intervention": 1.0} for task in TASKS}
    quality = ValueQuality(
        2400,
        60,
        0.81,
        dict.fromkeys(TASKS, 0.8),
        0.11,
        {"25%": 0.71, "50%": 0.84, "75%": 0.93},
        {"25%": 0.66, "50%": 0.79, "75%": 0.9},
        bins,
        shares,
        0.034,
        0.031,
        0.86,
        dict.fromkeys(TASKS, 0.86),
    )
    decay = [(s, float(1.4 * np.exp(-s / 300) + 0.3 + 0.04 * rng.normal())) for s in range(0, 1500, 10)]
    return ReportData(
        iteration=1,
        title="RECAP on the simulated Gen3",
        robot="simulated_gen3",
        tasks=TASKS,
        performances={
            "base": performance(base),
            "filtered BC": performance(filtered),
            "RECAP": performance(recap),
            "RECAP, asked for negative": performance(negative),
        },
        candidate="RECAP",
        reference="base",
        differences={
            "RECAP vs base": paired_difference(recap, base),
            "RECAP vs filtered BC": paired_difference(recap, filtered),
        },
        promoted=lift > 0,
        decision="Its successes per hour are above the champion's with the whole 95 % interval above zero.",
        frames=pd.concat(rows, ignore_index=True),
        thresholds=dict.fromkeys(TASKS, 0.06),
        value_quality=asdict(quality),
        training_curves={
            "base": decay,
            "filtered BC": [(s, v * 0.6 + 0.05) for s, v in decay[:100]],
            "RECAP": [(s, v * 0.55) for s, v in decay[:100]],
        },
        episodes=entries,
        origins={
            "performance": steps[2:],
            "advantages": steps[1:2],
            "values": steps[1:2],
            "training": steps[:1],
        },
        steps=steps,
        peak_memory_gib=3.4,
        wall_seconds=742.0,
        annotators={operator: 5, "Ben": 2},
        gate=gate_report(),
    )


def clips(count: int) -> tuple[list[Clip], list[Clip]]:
    """Both sides of a comparison film; the left one fails every second start, the right one none."""

    def clip(length: int, success: bool) -> Clip:
        reach = 1.0 if success else 0.5
        return Clip(np.stack([scene(reach * i / length, TASKS[0]) for i in range(length)]), success, TASKS[0])

    return [clip(24, i % 2 == 0) for i in range(count)], [clip(16, True) for _ in range(count)]

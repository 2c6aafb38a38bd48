"""Many annotators at one label store: ``python -m tests.benchmarks.labels``.

First 8 processes claim and label 2,000 episodes as fast as they can: ``labels_per_s`` over all of them,
``p50_ms`` and ``p99_ms`` of a whole turn (claim, then record, each durable when it returns), and whether each
claim was of another episode.

Then the same with part of the episodes labelled twice, while processes are killed with SIGKILL at random
moments and replaced. Each writes to a pipe what the store has acknowledged; every label read from the pipes
must be in the store afterwards, word for word: ``lost`` counts those that are not. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.labels import LabelStore, StaleLease
from pipeline.site_config import LabelsSection

PROCESSES = 8
TASK = "pick up the red cube"
TWICE = LabelsSection(double_share=0.1, gold_share=0.0)
_SPAWN = multiprocessing.get_context("spawn")


def annotate_timed(path: Path, name: str, start: Any, results: Any) -> None:
    """Claims and labels until nothing is left; puts (episode, fence, seconds) of every turn."""
    with LabelStore(path) as store:
        store.progress()
        start.wait()
        turns: list[tuple[str, int, float]] = []
        while True:
            began = time.perf_counter()
            lease = store.claim(name)
            if lease is None:
                break
            store.record(lease, "success" if len(turns) % 2 else "failure")
            turns.append((lease.episode_id, lease.fence, time.perf_counter() - began))
        results.put(turns)


def annotate_until_killed(path: Path, name: str, acknowledged: Connection) -> None:
    """Claims and labels; sends each label down the pipe once the store has taken it."""
    with LabelStore(path, rules=TWICE) as store:
        chance = random.Random(name)
        while (lease := store.claim(name, 3.0)) is not None:
            try:
                event = store.record(lease, chance.choice(("success", "failure")), f"{name} {lease.fence}")
            except StaleLease:
                continue
            acknowledged.send((event.event_id, event.episode_id, event.outcome, event.annotator, event.note))


def filled(folder: Path, episodes: int) -> Path:
    """A store that knows the episodes."""
    path = folder / "labels.sqlite"
    with LabelStore(path) as store:
        store.sync((f"episode-{i:05d}", TASK) for i in range(episodes))
    return path


def speed(episodes: int) -> dict[str, Any]:
    """The first part of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="labels-") as name:
        path = filled(Path(name), episodes)
        start, results = _SPAWN.Barrier(PROCESSES + 1), _SPAWN.Queue()
        workers = [
            _SPAWN.Process(target=annotate_timed, args=(path, f"annotator {i}", start, results))
            for i in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        start.wait()
        began = time.perf_counter()
        turns = [turn for _ in workers for turn in results.get(timeout=600)]
        elapsed = time.perf_counter() - began
        for worker in workers:
            worker.join()
        with LabelStore(path) as store:
            everything = store.progress().unlabelled == 0 and len(store.events()) == episodes
    claims = {episode for episode, _, _ in turns}
    durations = sorted(1000 * seconds for _, _, seconds in turns)
    return {
        "claims_unique": everything and len(claims) == len(turns) == episodes,
        "labels_per_s": round(len(turns) / elapsed, 1),
        "p50_ms": round(statistics.median(durations), 2),
        "p99_ms": round(durations[int(len(durations) * 0.99)], 2),
        "max_ms": round(durations[-1], 2),
    }


def survival(episodes: int, kills: int, seed: int) -> dict[str, Any]:
    """The second part: how many acknowledged labels are missing or different."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="labels-") as name:
        path = filled(Path(name), episodes)
        running: dict[Connection, BaseProcess] = {}
        heard: list[tuple[Any, ...]] = []
        started = killed = 0

        def start() -> None:
            nonlocal started
            receiving, sending = _SPAWN.Pipe(duplex=False)
            worker = _SPAWN.Process(target=annotate_until_killed, args=(path, f"a{started}", sending))
            worker.start()
            sending.close()
            running[receiving] = worker
            started += 1

        for _ in range(PROCESSES):
            start()
        next_kill = time.monotonic() + 1.0
        while running:
            for pipe in wait(list(running), timeout=0.05):
                assert isinstance(pipe, Connection)
                try:
                    heard.append(pipe.recv())
                except EOFError:  # it is done, or dead; a label cut short in the pipe was not acknowledged
                    running.pop(pipe).join()
                    if killed < kills and not _finished(path):
                        start()
            if heard and killed < kills and time.monotonic() > next_kill and running:
                victim = chance.choice(list(running.values()))
                if victim.pid is not None:
                    os.kill(victim.pid, signal.SIGKILL)
                killed += 1
                next_kill = time.monotonic() + chance.uniform(0.02, 0.3)
        return {**_compare(path, heard), "killed": killed}


def _finished(path: Path) -> bool:
    with LabelStore(path, rules=TWICE) as store:
        progress = store.progress()
    return progress.unlabelled + progress.awaiting_second == 0


def _compare(path: Path, heard: list[tuple[Any, ...]]) -> dict[str, Any]:
    with LabelStore(path, rules=TWICE) as store:
        stored = {
            (event.event_id, event.episode_id, event.outcome, event.annotator, event.note)
            for event in store.events()
        }
        by_whom = Counter((event.episode_id, event.annotator) for event in store.events())
        opinions = Counter(event.episode_id for event in store.events())
    return {
        "acknowledged": len(heard),
        "lost": len(set(heard) - stored),
        "nobody_twice": max(by_whom.values(), default=0) == 1 and max(opinions.values(), default=0) <= 2,
    }


def main() -> None:
    """Prints one line per part, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat instead of three, fewer kills")
    quick = parser.parse_args().quick
    episodes, kills = 2000, 6 if quick else 25
    repeats = [speed(episodes) for _ in range(1 if quick else 3)]
    for found in repeats:
        print(f"{PROCESSES} processes, {episodes} episodes: {found}")
    figures: dict[str, Any] = {
        name: statistics.median([found[name] for found in repeats]) for name in repeats[0]
    }
    figures["claims_unique"] = all(found["claims_unique"] for found in repeats)
    survived = survival(episodes, kills, seed=7)
    print(f"{survived['killed']} of them killed: {survived}")
    figures |= survived
    print(json.dumps({**figures, "processes": PROCESSES, "episodes": episodes, "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()

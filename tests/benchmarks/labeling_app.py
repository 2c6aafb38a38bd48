"""The labelling app on a large workspace: ``python -m tests.benchmarks.labeling_app``.

A workspace of 10,000 tiny episodes that has been listed once, as any command does. A server is started on it
and driven by a real browser. ``open_s`` is the median time from asking for the label page to the first
pictures of all cameras, of one person after the other; ``first_open_s`` that of the first page of a server
that has just started, in a browser that never saw the app (and loads its scripts first). ``next_s`` the
median, and ``next_p95_s`` the 95th percentile, of the time from a key press to the first pictures of the next
episode; ``memory_mb_start`` is the server's resident memory after a few episodes, and ``memory_mb_after_500``
after 500. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import psutil

from pipeline.episode import Source
from pipeline.episode_names import task_slug
from pipeline.workspace import Workspace
from tests.labeling_app.browser import Browser, chromium
from tests.labeling_app.serving import EPISODE, Server
from tests.tiny_episodes import EpisodeMaker

TASKS = ("pick up the red cube", "pick up the blue cube", "pick up the green cube")
WARM_UP = 20
OPENED = 5
READY = (
    "(() => { const all = [...document.querySelectorAll('video')];"
    " return all.length > 0 && all.every((v) => v.readyState >= 2); })()"
)


def large_workspace(root: Path, episodes: int) -> Workspace:
    """A workspace of so many episodes of half a second: copies of a real one, each with an id of its own."""
    workspace = Workspace(root)
    workspace.create()
    make = EpisodeMaker(workspace)
    templates = {}
    for task in TASKS:
        entry = make(task=task, sources=[Source.POLICY] * 6)
        templates[task] = entry.path.read_bytes()
        entry.path.unlink()
    for number in range(episodes):
        task = TASKS[number % len(TASKS)]
        id_ = f"rollout-{number:06d}"
        path = workspace.episodes / task_slug(task) / f"{id_}.h5"
        path.write_bytes(templates[task])
        with h5py.File(path, "r+", libver=("v108", "v108")) as file:
            file.attrs["id"] = id_
            file.attrs["created"] = (
                f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}+00:00"
            )
    return workspace


def wait_for(browser: Browser, script: str, within_s: float = 60.0) -> float:
    """Seconds until a JavaScript expression is true."""
    start = time.perf_counter()
    while not browser.run(script):
        waited = time.perf_counter() - start
        assert waited < within_s, f"not seen within {within_s} s: {script}\n{browser.text()}"
        time.sleep(0.01)
    return time.perf_counter() - start


def open_page(browser: Browser, server: Server, name: str) -> float:
    """Seconds from asking for the label page to the first pictures of all cameras."""
    browser.open("about:blank")
    start = time.perf_counter()
    browser.open(f"{server.address}/?name={name.replace(' ', '+')}")
    wait_for(browser, f"Boolean({EPISODE}) && {READY}")
    return time.perf_counter() - start


def label_one(browser: Browser) -> float:
    """Labels the episode on the page; seconds until the next one shows."""
    before = browser.run(EPISODE)
    start = time.perf_counter()
    browser.press("s")
    wait_for(browser, f"({EPISODE}) != {before!r} && {READY}")
    return time.perf_counter() - start


def measure(workspace: Workspace, labels: int, profile: Path) -> dict[str, float | int]:
    """Opens the app, labels so many episodes, and returns the figures."""
    with Server(workspace.root) as server, Browser(profile) as browser:
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        opened = [open_page(browser, server, "Ana")]
        # Another person each time: nothing of the page before can be shown again.
        opened += [open_page(browser, server, f"person {number}") for number in range(OPENED)]
        first_s, open_s = opened[0], statistics.median(opened[1:])
        times = [label_one(browser) for _ in range(WARM_UP)]
        memory_start = process.memory_info().rss / 2**20
        print(f"first page {first_s:.2f} s, others {open_s:.2f} s; {memory_start:.0f} MB", flush=True)
        while len(times) < labels:
            times.append(label_one(browser))
            if len(times) % 100 == 0:
                memory = process.memory_info().rss / 2**20
                print(
                    f"{len(times)} labels: median {statistics.median(times):.2f} s, {memory:.0f} MB",
                    flush=True,
                )
        return {
            "open_s": round(open_s, 3),
            "first_open_s": round(first_s, 3),
            "next_s": round(statistics.median(times), 3),
            "next_p95_s": round(statistics.quantiles(times, n=20)[-1], 3),
            "memory_mb_start": round(memory_start, 1),
            "memory_mb_after_500": round(process.memory_info().rss / 2**20, 1),
            "labels": len(times),
        }


def main() -> None:
    """Makes the workspace, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 episodes and 60 labels: under a minute")
    quick = parser.parse_args().quick
    if chromium() is None:
        parser.exit(0, "needs a browser: apt-get install chromium (Debian, Ubuntu)\n{}\n")
    episodes, labels = (1000, 60) if quick else (10_000, 500)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        workspace = large_workspace(Path(folder) / "workspace", episodes)
        print(f"{episodes} episodes made in {time.perf_counter() - start:.1f} s", flush=True)
        start = time.perf_counter()
        found = len(replace(workspace).list_episodes())
        print(
            f"{found} episodes listed for the first time in {time.perf_counter() - start:.1f} s", flush=True
        )
        figures = measure(workspace, labels, Path(folder) / "profile")
    print(json.dumps({"episodes": found, **figures}))


if __name__ == "__main__":
    main()

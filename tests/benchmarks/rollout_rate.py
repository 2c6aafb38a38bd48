"""Whether a rollout keeps its rate and never lacks an action: ``python -m tests.benchmarks.rollout_rate``.

The real command in a terminal of its own, on two cores: ``recap rollout`` at 20 Hz on the simulated Gen3, two
224-pixel cameras drawn, every frame recorded, the live view on the screen, a checkpoint of ``gen3_vla`` at
its defaults (made on the spot, untrained: speed does not depend on what it learned) planning in its thread.
Episodes of 60 s follow each other for ten minutes, so that files are finished while the next is recorded.

What is printed comes from the recorded episodes. *empty_queue* is for how many steps the policy had no action
when one was due, and the arm stood still. *Late* steps took longer than their period. *Latency* is from an
observation to the chunk planned from it, *age* from the observation to an action's execution, *least_left*
how many actions the old chunk still had when the next one came. *cpu_share* is of the two cores, used by the
command and its children alone.

``--quick`` runs 30 s. ``--policy`` is a checkpoint's folder, or ``transformer`` or ``smolvla`` (a tiny one)
for one made on the spot. ``--slow S`` puts the policy behind the door of ``recap policy serve`` and lets each
plan take S seconds more: what starving looks like. The last line is one JSON object; *ok* in it says whether
the policy always had an action and the rate was kept to within 1 %.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TASK = "pick up the red cube"
CORES = 2
EPISODE_S = 60.0
MADE_HERE = ("gen3_vla", "transformer", "smolvla")
_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def use_two_cores() -> None:
    """Pins this process and its children to the first two cores that it may use, where that is possible."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def checkpoint(kind: str, folder: Path) -> Path:
    """The folder that ``kind`` names, or an untrained checkpoint of that kind in ``folder``."""
    if kind not in MADE_HERE:
        return Path(kind)
    if kind == "smolvla":
        return _smolvla(folder)
    from tests.tiny_checkpoint import save_tiny_checkpoint

    return save_tiny_checkpoint(folder / kind, **({"backbone": kind} if kind == "transformer" else {}))


def _smolvla(folder: Path) -> Path:
    """SmolVLA's code around a backbone of fifty thousand weights, with chunks as long as SmolVLA's own."""
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
    from lerobot.utils.constants import ACTION, OBS_STATE

    from pipeline.policy.checkpoint import Checkpoint
    from pipeline.policy.configuration_gen3_vla import gen3_features
    from tests.tiny_checkpoint import HIGH, LOW
    from tests.tiny_smolvla import build_smolvlm, smolvla_options

    inputs, outputs = gen3_features(84)
    options = smolvla_options(build_smolvlm(folder / "vlm")) | {"chunk_size": 50, "n_action_steps": 50}
    size = inputs[OBS_STATE].shape[0]
    options["max_state_dim"] = max(size, options["max_state_dim"])
    config = make_policy_config(
        "smolvla", input_features=inputs, output_features=outputs, device="cpu", **options
    )
    middle, spread = (LOW + HIGH) / 2, (HIGH - LOW) / 6
    stats: dict[str, Any] = {
        ACTION: {"mean": middle, "std": spread},
        OBS_STATE: {"mean": np.zeros(size, np.float32), "std": np.ones(size, np.float32)},
    }
    policy = get_policy_class("smolvla")(config)
    Checkpoint(policy, *make_pre_post_processors(config, dataset_stats=stats)).save(folder / "smolvla")
    return folder / "smolvla"


@contextlib.contextmanager
def slowed(folder: Path, seconds: float) -> Iterator[str]:
    """The address of a server whose plans take ``seconds`` longer."""
    from pipeline.policy.served_runner import ServedRunner
    from pipeline.policy.server import PolicyServer

    class Slow(ServedRunner):
        def plan(self, *observations: Any) -> np.ndarray:
            time.sleep(seconds)
            return super().plan(*observations)

    with PolicyServer(Slow(folder, "cpu"), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.close()
            thread.join(10)


class Screen:
    """A terminal that somebody looks at: it takes what is written, so that the command never waits for it."""

    def __init__(self) -> None:
        """Opens it: 40 lines of 110 characters."""
        self._reading, self.fd = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
        self.text = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end was closed
            while data := os.read(self._reading, 65536):
                self.text = (self.text + data.decode(errors="replace"))[-20_000:]

    def close(self) -> list[str]:
        """The lines that were written last."""
        os.close(self.fd)
        self._thread.join(5)
        os.close(self._reading)
        lines = (_STYLE.sub("", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line][-12:]


def roll_out(workspace: Path, policy: str, seconds: float, rate_hz: float) -> tuple[float, list[str]]:
    """Runs the command; the share of the cores that it used while recording, and the screen's last lines."""
    import psutil

    from pipeline.workspace import Workspace

    Workspace(workspace).create()
    episodes = max(1, round(seconds / min(EPISODE_S, seconds / 2)))
    words = [
        "rollout",
        "--workspace",
        str(workspace),
        "--task",
        TASK,
        "--operator",
        "none",
        "--person",
        "ana",
    ]
    words += ["--policy", policy, "--rate", f"{rate_hz:g}", "--auto-start", "0"]
    words += ["--episodes", str(episodes), "--max-seconds", f"{seconds / episodes:g}"]
    screen = Screen()
    process = subprocess.Popen(
        [sys.executable, "-m", "workflows.cli", *words],
        stdin=screen.fd,
        stdout=screen.fd,
        stderr=screen.fd,
        env={**os.environ, "TERM": "xterm"},
    )
    began = used = wall = 0.0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(0.5)
        if not began and not any((workspace / "episodes").rglob("*.h5*")):
            continue
        with contextlib.suppress(psutil.Error):
            total = sum(sum(one.cpu_times()[:2]) for one in [watched, *watched.children(recursive=True)])
            if not began:
                began, at_first = time.monotonic(), total
            used, wall = total - at_first, time.monotonic() - began
    lines = screen.close()
    if process.returncode:
        raise SystemExit("\n".join([*lines, f"recap rollout ended with {process.returncode}"]))
    return used / max(wall, 1e-9) / CORES, lines


def measured(root: Path) -> dict[str, Any]:
    """What the episodes of a workspace tell."""
    from pipeline.episode import Source
    from pipeline.episode_file import EpisodeReader
    from pipeline.workspace import Workspace

    steps = late = starved = held = dropped = 0
    recorded_s = 0.0
    plans: list[dict[str, Any]] = []
    for entry in Workspace(root).list_episodes():
        with EpisodeReader(entry.path) as episode:
            extra, driven = episode.info.extra, episode.sources == Source.POLICY
            silent = driven & ~np.isfinite(episode.policy_actions).all(axis=1)
            still = ~episode.actions[silent][:, :6].any(axis=1)
            dropped += episode.dropped
        starved += extra.get("starved_steps", 0) - extra.get("replanning_steps", 0)
        held += int(still.sum())
        steps += extra["pace"]["steps"]
        late += extra["pace"]["overruns"]
        recorded_s += extra["pace"]["steps"] / extra["pace"]["rate_hz"]
        plans.append(extra["plans"])
    left = [plan["least_left"] for plan in plans if plan["least_left"] is not None]
    return {
        "episodes": len(plans),
        "periods": steps,
        "late_periods": late,
        "empty_queue": starved,
        "held_still": held,
        "dropped_frames": dropped,
        "achieved_hz": round(steps / recorded_s, 3),
        "plans": sum(plan["plans"] for plan in plans),
        "latency_ms_p50": round(float(np.median([plan["p50_latency_ms"] for plan in plans])), 1),
        "latency_ms_p99": round(max(plan["p99_latency_ms"] for plan in plans), 1),
        "latency_ms_max": round(max(plan["max_latency_ms"] for plan in plans), 1),
        "age_ms_p50": round(float(np.median([plan["p50_age_ms"] for plan in plans])), 1),
        "age_ms_p99": round(max(plan["p99_age_ms"] for plan in plans), 1),
        "least_left": min(left, default=None),
    }


def main() -> None:
    """Prints what the operator saw last, a line per figure, then the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="30 s")
    parser.add_argument("--policy", default="gen3_vla", help=f"a folder, or {', '.join(MADE_HERE)}")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=20.0, help="control steps a second")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that every plan takes longer")
    options = parser.parse_args()
    seconds = 30.0 if options.quick else options.minutes * 60
    use_two_cores()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = checkpoint(options.policy, folder)
        policy = stack.enter_context(slowed(made, options.slow)) if options.slow else str(made)
        load = os.getloadavg()[0]
        share, lines = roll_out(folder / "workspace", policy, seconds, options.rate)
        figures = {"policy": options.policy, "rate_hz": options.rate, "slow_s": options.slow}
        figures |= measured(folder / "workspace")
    figures["wanted_periods"] = round(seconds * options.rate)
    figures["ok"] = figures["empty_queue"] == 0 and figures["achieved_hz"] > 0.99 * options.rate
    figures |= {"cpu_share": round(share, 3), "load_before": round(load, 2)}
    figures["load_after"] = round(os.getloadavg()[0], 2)
    print("the operator's screen, at the end:", *(f"  {line}" for line in lines), sep="\n")
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

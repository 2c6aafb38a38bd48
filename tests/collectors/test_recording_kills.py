"""SIGKILL at any moment of a session: what was finished stays, the rest is recovered but for a second."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import h5py
import pytest

from pipeline.episode_attributes import read_info
from pipeline.episode_file import EpisodeReader
from pipeline.workspace import Workspace

KILLS = 100
TOGETHER = 20  # they sleep most of the time: twenty steps a second of two tiny images
NANOSECONDS = 1_000_000_000


class Kill(NamedTuple):
    """When a recorder was killed, how late the machine was with that, and how many episodes it had begun."""

    at_ns: int
    late_ns: int
    begun: int


Killed = tuple[Workspace, dict[int, Kill]]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A workspace after 100 kills, and what is known of each recorder by its number."""
    workspace = Workspace(tmp_path_factory.mktemp("killed")).create()
    arguments = [str(workspace.root), str(KILLS), str(TOGETHER), "0"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.collectors.killed_recorder", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    return workspace, {number: Kill(*facts) for number, *facts in rows}


def test_a_hundred_kills_lose_no_finished_episode_and_a_second_at_most(
    killed: Killed,
) -> None:
    workspace, recorders = killed
    assert len(recorders) == KILLS
    finished = {entry.id: entry for entry in workspace.list_episodes()}
    recovered = [recovery.episode for recovery in workspace.recover()]
    lost_ns: dict[int, int] = {}
    stalled_ns = max(kill.late_ns for kill in recorders.values())
    for path in filter(None, recovered):
        with EpisodeReader(path) as episode:
            assert episode.info.truncated
            number, times_ns = episode.info.extra["recorder"], episode.timestamps_ns
        lost_ns[number] = recorders[number].at_ns - int(times_ns[-1])
        stalled_ns = max([stalled_ns, *(int(gap) for gap in times_ns[1:] - times_ns[:-1])])
    # Closed in the background, an episode may be cut off with its frames in the queue as the next begins.
    unwritten: Counter[int] = Counter()
    for part in workspace.quarantine.glob("*.part"):
        lost = lost_with(part, recorders)
        unwritten.update(lost.keys())
        lost_ns |= lost
    # A machine that was too busy to run anything for a while is forgiven that while.
    too_much = {number: lost for number, lost in lost_ns.items() if lost > NANOSECONDS + stalled_ns}
    assert not too_much, f"the machine stood still for up to {stalled_ns} ns"
    fatal = [finding for finding in workspace.check() if finding.severity == "fatal"]
    assert not fatal
    assert len(finished) > KILLS / 10 and len([path for path in recovered if path]) > KILLS / 10
    kept = Counter(entry.info.extra["recorder"] for entry in workspace.list_episodes())
    for number, kill in recorders.items():
        assert kept[number] + unwritten[number] >= kill.begun - 1, "all but the open one are there"
    longest_s = max(lost_ns.values()) / NANOSECONDS
    print(f"{len(finished)} finished, {len(recovered)} open, at most {longest_s:.2f} s lost")


def lost_with(part: Path, recorders: dict[int, Kill]) -> dict[int, int]:
    """How long a recording went on (ns) of which no frame had reached the disk."""
    try:
        with h5py.File(part, "r", locking=False) as file:
            info = read_info(file, part)
    except OSError:
        assert part.stat().st_size < 4096, "killed while the file was made"
        return {}
    number = info.extra["recorder"]
    began_ns = int(datetime.fromisoformat(info.created).timestamp() * NANOSECONDS)
    return {number: recorders[number].at_ns - began_ns}

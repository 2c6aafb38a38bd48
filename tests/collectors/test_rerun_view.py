"""What goes to Rerun, by recording into a file and looking at it with Rerun's own command."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from collectors.rerun_view import RerunView
from collectors.telemetry import Phase, Snapshot, TelemetryFeed
from pipeline.episode import ACTION_NAMES, STATE_FIELDS, STATE_NAMES, Source
from pipeline.errors import InputError

OBSERVATION = dict.fromkeys(STATE_NAMES, 0.5) | {
    "table": np.full((480, 640, 3), 90, np.uint8),
    "wrist": np.full((48, 64, 3), 90, np.uint8),
}
ACTION = dict.fromkeys(ACTION_NAMES, 0.1)


def logged(file: Path) -> tuple[Counter[str], str]:
    """How many rows each entity has in a recording, static ones apart, and all that Rerun prints of it."""
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(file)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows: Counter[str] = Counter()
    for count, entity, columns in re.findall(r"with (\d+) rows \(.*?\) - (\S+) - (.*)", printed):
        if "SeriesLines" not in columns:
            rows[entity] += int(count)
    return rows, printed


def test_images_numbers_and_events_are_logged(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    file = tmp_path / "session.rrd"
    with RerunView(file) as view:
        for step in range(4):
            driver = Source.POLICY if step < 2 else Source.INTERVENTION
            view.update(Snapshot(Phase.RUNNING, "pick up", driver=driver, limits=("held at z = 0.02 m",)))
            view.images({**OBSERVATION, **ACTION})
            deadline = time.monotonic() + 20
            while not view._waiting.empty():  # so that nothing is dropped in this test
                assert time.monotonic() < deadline
                time.sleep(0.005)
    rows, printed = logged(file)
    for entity in ("driver", "rate_hz", "action", "cameras/table", "cameras/wrist"):
        assert rows[f"/{entity}"] == 4, entity
    for field in STATE_FIELDS:
        assert rows[f"/state/{field.name}"] == 4
    assert rows["/events"] == 3  # the driver twice, the limit once
    assert "EncodedImage" in printed
    assert file.stat().st_size < 200_000  # small images, compressed


def test_a_slow_viewer_makes_it_skip_and_never_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rerun")
    go_on = threading.Event()
    with RerunView(tmp_path / "session.rrd") as view:
        log_observation = view._log_observation

        def slowly(observation: object) -> None:
            assert go_on.wait(60)
            log_observation(OBSERVATION)

        monkeypatch.setattr(view, "_log_observation", slowly)
        with TelemetryFeed(view, updates_per_s=200) as feed:
            longest = 0.0
            for _ in range(300):
                began = time.monotonic()
                feed.put(Snapshot(Phase.RUNNING, "pick up"), OBSERVATION)
                view.images(OBSERVATION)
                longest = max(longest, time.monotonic() - began)
        assert longest < 1.0
        go_on.set()
    rows, _ = logged(tmp_path / "session.rrd")
    assert 1 <= rows["/cameras/table"] < 100


def test_without_rerun_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(InputError, match=r"--view needs Rerun.*pip install 'kinova-recap\[viz\]'"):
        RerunView().__enter__()


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    with pytest.raises(InputError, match="cannot be opened"):
        RerunView(tmp_path / "no" / "such" / "folder" / "session.rrd").__enter__()

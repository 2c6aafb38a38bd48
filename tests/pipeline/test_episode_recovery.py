"""What a crash leaves behind: recovered as far as it reached the disk, otherwise kept for a person."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.episode_file import EpisodeReader, read_entry, recover
from pipeline.episode_layout import LIBVER, LOCKING
from pipeline.errors import InputError
from tests.pipeline.episodes import make_frame, make_frames, make_info, write_episode


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_full_disk_raises_at_append_and_what_was_written_is_recovered(tmp_path: Path) -> None:
    process = run_python(
        """
        import resource, sys, time
        from pathlib import Path
        from pipeline.episode_file import EpisodeWriter
        from pipeline.errors import Failure
        from tests.pipeline.episodes import make_frames, make_info
        writer = EpisodeWriter(Path(sys.argv[1]), make_info(), flush_interval_s=0.0, queue_size=4)
        frames = make_frames(50)
        for frame in frames:
            writer.append(frame)
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))
        sent = 50
        try:
            while True:
                writer.append(frames[sent % 50])
                sent += 1
        except Failure as error:
            print("append:", "could not write" in str(error))
        try:
            writer.close()
        except Failure as error:
            print("close:", "could not write" in str(error))
        """,
        tmp_path / "e0001.h5",
    )
    output, _ = process.communicate(timeout=60)
    assert output.split("\n")[:2] == ["append: True", "close: True"]
    path = recover(tmp_path / "e0001.h5.part")
    assert path is not None
    entry = read_entry(path)
    assert entry.info.truncated
    assert entry.length >= 50


RECORD = """
import sys, time
from pathlib import Path
from pipeline.episode_file import EpisodeWriter
from tests.pipeline.episodes import make_frame, make_info
import numpy as np
writer = EpisodeWriter(Path(sys.argv[1]), make_info(), flush_interval_s=float(sys.argv[2]))
rng = np.random.default_rng(0)
print("started", flush=True)
i = 0
while True:
    writer.append(make_frame(i, rng))
    i += 1
    if i % 10 == 0:
        print(time.monotonic(), i, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def test_a_kill_loses_at_most_what_was_not_flushed(tmp_path: Path) -> None:
    part, final = tmp_path / "e0001.h5.part", tmp_path / "e0001.h5"
    process = run_python(RECORD, final, 1.0, 0.002)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(2.5)
    assert recover(part) is None, "a recording that goes on must be left alone"
    assert part.exists()
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    output, _ = process.communicate(timeout=30)
    marks = [(float(t), int(n)) for t, n in (line.split() for line in output.splitlines() if " " in line)]
    assert not final.exists()

    assert recover(part) == final
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["e0001.h5"]
    with EpisodeReader(final) as episode:
        assert episode.info == replace(make_info(), truncated=True)
        # One flush interval, and half a second for the thread to encode and write on a busy machine.
        safe = max((n for t, n in marks if t < killed - 1.5), default=0)
        assert safe > 0
        assert len(episode) >= safe
        assert episode.computed_fingerprint() == episode.fingerprint
        rng = np.random.default_rng(0)
        for i in range(len(episode)):
            frame = make_frame(i, rng)
            np.testing.assert_array_equal(episode.actions[i], frame.action)
            assert episode.image("wrist", i).shape == (24, 24, 3)


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_any_moment_leaves_a_readable_recording(tmp_path: Path, seed: int) -> None:
    final = tmp_path / "e0001.h5"
    process = run_python(RECORD, final, 0.0, 0.0)  # flushes all the time: the kill falls into a flush
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.15 + float(np.random.default_rng(seed).uniform(0, 0.3)))
    process.kill()
    process.communicate(timeout=30)
    assert recover(tmp_path / "e0001.h5.part") == final
    with EpisodeReader(final) as episode:
        rng = np.random.default_rng(0)
        assert len(episode) > 0
        for i in range(len(episode)):
            np.testing.assert_array_equal(episode.actions[i], make_frame(i, rng).action)
        assert episode.images("table").shape[0] == len(episode)


def left_over(tmp_path: Path, length: int = 5) -> Path:
    """A ``.part`` as a killed recorder leaves it."""
    path = write_episode(tmp_path / "e0001.h5", make_frames(length), make_info())
    return path.rename(tmp_path / "e0001.h5.part")


def test_rows_that_did_not_reach_the_disk_whole_are_cut_off(tmp_path: Path) -> None:
    part = left_over(tmp_path)
    with h5py.File(part, "r+") as file:
        for name in ("timestamp_ns", "action", "observation/images/wrist"):
            file[name].resize(7, axis=0)  # grown, but never filled
        jpeg = file["observation/images/wrist"][3]
        file["observation/images/wrist"][3] = jpeg[: len(jpeg) // 2]
    before = part.read_bytes()
    path = recover(part)
    assert path is not None
    assert read_entry(path).length == 3 and "cut_from" in read_entry(path).info.extra
    assert (tmp_path / "quarantine" / part.name).read_bytes() == before, "what was cut off is kept"


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_cannot_be_read_goes_to_quarantine_whole(tmp_path: Path, content: bytes) -> None:
    part = tmp_path / "e0001.h5.part"
    for _ in range(2):
        part.write_bytes(content)
        assert recover(part, tmp_path / "quarantine") is None
        assert not part.exists()
    kept = sorted(p for p in (tmp_path / "quarantine").iterdir() if p.suffix != ".txt")
    assert [p.name for p in kept] == ["e0001.h5.part", "e0001.h5.part.2"]
    assert all(p.read_bytes() == content for p in kept)
    note = (tmp_path / "quarantine" / "e0001.h5.part.2.txt").read_text()
    assert f"from: {part}\n" in note and "when: 20" in note
    assert note.count(str(part)) == 1 and "why: it cannot be read: " in note


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_recording_is_recovered_or_quarantined_never_lost(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("e")
    part = left_over(folder)
    content = bytearray(part.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(len(content), start + 300)))
    cut = data.draw(st.booleans())
    damaged = bytes(content[:start]) if cut else bytes(content[:start] + bytes(end - start) + content[end:])
    part.write_bytes(damaged)
    recovered = recover(part, folder / "quarantine", timeout_s=5)  # some damage makes HDF5 loop for ever
    kept = folder / "quarantine" / part.name
    assert (
        sorted(path.name for path in folder.iterdir() if path.is_file())
        == ["e0001.h5"][: recovered is not None]
    )
    if recovered is None or read_entry(recovered).length < 5:
        assert kept.read_bytes() == damaged
    if recovered is not None:
        assert 0 < read_entry(recovered).length <= 5


def test_recovery_never_replaces_a_finished_episode(tmp_path: Path) -> None:
    part = left_over(tmp_path)
    path = write_episode(tmp_path / "other.h5", make_frames(2, seed=9), make_info())
    path = path.rename(tmp_path / "e0001.h5")
    before = path.read_bytes()
    assert recover(part) is None
    assert path.read_bytes() == before
    assert (tmp_path / "quarantine" / part.name).exists()
    with pytest.raises(InputError, match="no unfinished recording"):
        recover(path)


def test_a_whole_recording_needs_no_note(tmp_path: Path) -> None:
    path = recover(left_over(tmp_path))
    assert path is not None and read_entry(path).info.extra == {}


def test_what_a_killed_recovery_still_writes_is_in_nobodys_way(tmp_path: Path) -> None:
    """Its child may live on for a moment, and hold its file's lock."""
    part = tmp_path / "e0001.h5.part"
    write_episode(tmp_path / "e0001.h5", make_frames(5), make_info()).rename(part)
    nobody = 2**22 - 1  # above every process number
    orphaned = tmp_path / f"e0001.h5.{nobody}.salvage"
    with h5py.File(orphaned, "w", libver=LIBVER, locking=LOCKING) as still_written:
        final = recover(part)
        still_written.attrs["late"] = True
    assert final is not None and read_entry(final).length == 5
    assert [path.name for path in tmp_path.iterdir()] == ["e0001.h5"]

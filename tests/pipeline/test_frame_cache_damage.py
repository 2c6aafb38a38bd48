"""Building the frame cache from bad files, on a full disk, from long episodes: one clear line or success."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import frame_cache
from pipeline.episode import Frame
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache
from pipeline.frame_codec import decode
from tests.pipeline.episodes import make_frame, make_frames, make_info, write_episode


def names(folder: Path) -> list[str]:
    """The names in a folder, hidden ones too, sorted."""
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache", image_size=24)


def test_damaged_entries_are_not_served_but_made_again(cache: FrameCache, tmp_path: Path) -> None:
    path = write_episode(tmp_path / "e1.h5", make_frames(3), make_info("e1"))
    cache.build(path)
    images = cache.open("e1").images.copy()
    os.truncate(cache.open("e1").image_file, 100)
    assert not cache.has("e1")
    with pytest.raises(InputError, match="not in the frame cache"):
        cache.open("e1")
    assert cache.build(path)
    assert (cache.open("e1").images == images).all()
    (cache.root / "frames-24" / "episodes" / "e1.json").write_text("{")
    assert not cache.has("e1") and not cache.build(path)
    (cache.folder("e1") / "state" / "zarr.json").unlink()
    with pytest.raises(InputError, match="not in the frame cache"):
        cache.open("e1")


def test_a_file_of_another_name_takes_no_episodes_place(cache: FrameCache, tmp_path: Path) -> None:
    cache.build(write_episode(tmp_path / "e1.h5", make_frames(3, seed=1), make_info("e1")))
    before = cache.open("e1").images.copy()
    other = write_episode(tmp_path / "e2.h5", make_frames(3, seed=2), make_info("e1"))
    with pytest.raises(InputError, match=r"e2\.h5 holds the episode 'e1'"):
        cache.build(other)
    assert (cache.open("e1").images == before).all()


def test_a_full_disk_is_said_in_one_line(cache: FrameCache, tmp_path: Path) -> None:
    path = write_episode(tmp_path / "e1.h5", make_frames(3), make_info("e1"))
    # A limit on the size of a file stands in for a disk that is full: both fail in the same write.
    script = f"""
        import errno, resource, signal, pathlib, sys
        import pipeline.frame_cache as frame_cache
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        errno.EDQUOT = errno.EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        frame_cache.FrameCache(pathlib.Path({str(cache.root)!r}), 24).build(pathlib.Path({str(path)!r}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert "Failure: the disk of" in done.stderr and "recap cache trim" in done.stderr
    assert not cache.has("e1") and names(cache.root / "frames-24" / "content") == []
    cache.build(path)
    assert cache.open("e1").length == 3


def test_memory_does_not_grow_with_an_episode(tmp_path: Path) -> None:
    """Peak memory of building, in a process of its own, for a short episode and one ten times as long."""
    peaks = []
    for length in (100, 1000):
        path = write_episode(tmp_path / f"e{length}.h5", repeated_frames(length), make_info(f"e{length}"))
        script = f"""
            import pathlib, resource
            import zarr
            from pipeline.frame_cache import FrameCache
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            FrameCache(pathlib.Path({str(tmp_path / "c")!r}), 128).build(pathlib.Path({str(path)!r}))
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) / 1024)
    # 1,000 frames of two cameras are 94 MiB; a block of 64 rows is 6.
    assert peaks[1] < peaks[0] + 20, peaks


def test_many_are_built_in_children_and_a_bad_one_costs_only_itself(
    cache: FrameCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_cache, "_LEAST_TIME_S", 2.0)
    paths = [
        write_episode(tmp_path / f"e{i}.h5", make_frames(3, seed=i), make_info(f"e{i}")) for i in range(3)
    ]
    os.mkfifo(tmp_path / "hangs.h5")  # opening it waits for ever
    (tmp_path / "empty.h5").touch()
    seen: list[tuple[int, int]] = []
    every = [paths[0], tmp_path / "hangs.h5", tmp_path / "empty.h5", *paths[1:]]
    with pytest.raises(InputError, match=r"2 of 5 .*hangs\.h5.*did not end.*recap episodes check --repair"):
        cache.build_many(every, workers=2, progress=lambda *said: seen.append(said))
    assert seen == [(done, 5) for done in range(1, 6)]
    assert all(cache.has(f"e{i}") for i in range(3))
    # Nothing is started where everything is current.
    monkeypatch.setitem(sys.modules, "pipeline.guarded_reading", None)
    assert cache.build_many(paths) == 0
    with pytest.raises(InputError, match="no episode file"):
        monkeypatch.delitem(sys.modules, "pipeline.guarded_reading")
        cache.build_many([*paths, tmp_path / "gone.h5"])


def test_a_flipped_bit_in_an_image_that_still_decodes_never_gets_in(
    cache: FrameCache, tmp_path: Path
) -> None:
    path = write_episode(tmp_path / "e1.h5", make_frames(3), make_info("e1"))
    with EpisodeReader(path) as reader:
        stored = reader.jpegs("wrist")[1]
        before = reader.image("wrist", 1)
    content = bytearray(path.read_bytes())
    content[content.find(stored.tobytes()) + decodable_flip(stored)] ^= 1
    path.write_bytes(content)
    with EpisodeReader(path) as reader:
        assert (reader.image("wrist", 1) != before).any()  # no error, only other pixels
    with pytest.raises(InputError, match=r"e1\.h5 is damaged: its frames are not those that were recorded"):
        cache.build(path)
    assert not cache.has("e1") and names(cache.root / "frames-24" / "content") == []


def decodable_flip(jpeg: np.ndarray) -> int:
    """A byte of a JPEG whose lowest bit can be flipped and still leave a picture, another one."""
    for place in range(len(jpeg) - 3, 0, -1):
        flipped = jpeg.copy()
        flipped[place] ^= 1
        image = decode(flipped)
        if image is not None and (image != decode(jpeg)).any():
            return place
    raise AssertionError("every flipped bit is noticed by the decoder")


def repeated_frames(length: int) -> Iterator[Frame]:
    """Frames that differ in their times only: quick to make."""
    rng = np.random.default_rng(0)
    frame = make_frame(0, rng)
    for i in range(length):
        yield replace(frame, timestamp_ns=frame.timestamp_ns + i)

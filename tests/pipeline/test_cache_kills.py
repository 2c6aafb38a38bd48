"""SIGKILL at any moment, to several builders and trimmers of one cache at once: nothing half is ever seen."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import zarr

from pipeline.cache_budget import take_inventory, trim
from pipeline.episode_file import EpisodeReader
from pipeline.frame_cache import FrameCache
from tests.pipeline.episodes import make_frames, make_info, write_episode

SIZE = 32
LENGTH = 30
ROUNDS = 3
PROCESSES = 3

# Builds, opens and evicts for ever, as fast as it can.
WORK = """
    import random, sys
    from pathlib import Path
    import zarr
    from pipeline.cache_budget import trim
    from pipeline.frame_cache import FrameCache

    cache, rng = FrameCache(Path(sys.argv[1]), int(sys.argv[2])), random.Random(int(sys.argv[3]))
    paths = [Path(path) for path in sys.argv[4:]]
    print("ready", flush=True)
    while True:
        rng.shuffle(paths)
        for path in paths:
            with cache.held():
                cache.build(path)
                episode = cache.open(path.stem)
            trim(cache.root, rng.choice([0, 200_000, 10**9]))
            assert len(episode.images) == episode.length and episode.images[-1].any()  # also if evicted
"""


def start(root: Path, seed: int, paths: list[Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORK), str(root), str(SIZE), str(seed), *map(str, paths)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def assert_all_visible_is_whole(root: Path, expected: dict[str, np.ndarray]) -> None:
    """Whatever stands under a final name has all of its arrays, read by plain zarr."""
    cache = FrameCache(root, SIZE)
    for folder in (root / f"frames-{SIZE}" / "content").glob("[!.]*"):
        group = zarr.open_group(folder, mode="r")
        assert {name for name, _ in group.arrays()} == {"images", "state", "action", "source"}
        for name, array in group.arrays():
            files = [path for path in (folder / name / "c").rglob("*") if path.is_file()]
            assert [path.stat().st_size for path in files] == [array.nbytes]
    for episode_id, images in expected.items():
        if cache.has(episode_id):
            assert (cache.open(episode_id).images == images).all()


def test_killed_builders_and_trimmers_leave_nothing_half_built(tmp_path: Path) -> None:
    paths = [
        write_episode(tmp_path / f"e{i}.h5", make_frames(LENGTH, seed=i), make_info(f"e{i}"))
        for i in range(6)
    ]
    root = tmp_path / "cache"
    reference = FrameCache(tmp_path / "reference", SIZE)
    for path in paths:
        reference.build(path)
    expected = {path.stem: reference.open(path.stem).images for path in paths}
    rng = random.Random(0)
    for number in range(ROUNDS):
        workers = [start(root, number * PROCESSES + i, paths) for i in range(PROCESSES)]
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        for worker in rng.sample(workers, PROCESSES):
            time.sleep(rng.uniform(0.02, 0.25))
            assert worker.poll() is None, worker.communicate()
            worker.kill()
            worker.communicate()
        assert_all_visible_is_whole(root, expected)
    cache = FrameCache(root, SIZE)
    cache.build_many(paths)
    for path in paths:
        assert (cache.open(path.stem).images == expected[path.stem]).all()
        with EpisodeReader(path) as reader:
            assert (cache.open(path.stem).action == reader.actions).all()
    assert not trim(root, 10**12).busy
    assert take_inventory(root).leftovers == []
    assert not list(root.rglob(".*"))

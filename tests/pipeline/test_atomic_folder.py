"""Folders appear whole or not at all, whoever is killed and whoever builds at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.atomic_folder import building, remove_all_leftovers

BUILD_AND_HANG = """
    import sys, time
    from pathlib import Path
    from pipeline.atomic_folder import building
    with building(Path(sys.argv[1])) as aside:
        (aside / "half").write_text("half")
        print("half", flush=True)
        time.sleep(60)
"""


def start_builder(final: Path) -> subprocess.Popen[str]:
    """A process that is now in the middle of building ``final``."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILD_AND_HANG), str(final)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def build(final: Path, text: str, replace: bool = False) -> None:
    with building(final, replace=replace) as aside:
        (aside / "file").write_text(text)


def test_nothing_is_visible_before_the_end_and_everything_after(tmp_path: Path) -> None:
    final = tmp_path / "a" / "final"
    with building(final) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "file").write_text("x")
        assert not final.exists()
    assert names(final.parent) == ["final"]
    assert (final / "deep" / "file").read_text() == "x"


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), building(tmp_path / "final") as aside:
        (aside / "file").write_text("x")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_the_block_may_make_the_folder_itself_and_put_things_beside_it(tmp_path: Path) -> None:
    with building(tmp_path / "final") as aside:
        aside.rmdir()
        aside.with_name("scratch").mkdir()
        aside.mkdir()
        (aside / "file").write_text("x")
        # A builder at work stays locked whatever it does to its folder.
        build(tmp_path / "final", "other")
        assert (aside / "file").read_text() == "x"
    assert names(tmp_path) == ["final"]
    assert (tmp_path / "final" / "file").read_text() == "other"


def test_an_existing_folder_is_kept_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    final = tmp_path / "final"
    build(final, "first")
    build(final, "second")
    assert (final / "file").read_text() == "first"
    build(final, "third", replace=True)
    assert (final / "file").read_text() == "third"
    assert names(tmp_path) == ["final"]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.write_text("mine")
    with pytest.raises(NotADirectoryError):
        build(final, "x", replace=True)
    assert final.read_text() == "mine"
    assert names(tmp_path) == ["final"]


def test_a_killed_builder_leaves_nothing_visible_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    final = tmp_path / "final"
    process = start_builder(final)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not final.exists()
    assert len(names(tmp_path)) == 1  # the leftover
    build(final, "whole")
    assert names(tmp_path) == ["final"]
    assert names(final) == ["file"]


def test_a_living_builder_is_left_alone(tmp_path: Path) -> None:
    final = tmp_path / "final"
    process = start_builder(final)
    try:
        build(final, "whole")
        (leftover,) = [p for p in tmp_path.iterdir() if p != final]
        assert (leftover / "final" / "half").read_text() == "half"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("replace", [False, True])
def test_many_builders_at_once_are_harmless(tmp_path: Path, replace: bool) -> None:
    final = tmp_path / "final"
    with ThreadPoolExecutor(8) as pool:
        for job in [pool.submit(build, final, f"{i % 10}" * 1000, replace) for i in range(40)]:
            job.result()
    text = (final / "file").read_text()
    assert len(text) == 1000 and len(set(text)) == 1
    assert names(tmp_path) == ["final"]


def test_what_killed_builders_left_in_a_store_is_removed_and_the_living_go_on(tmp_path: Path) -> None:
    living = start_builder(tmp_path / "living")
    dead = start_builder(tmp_path / "dead")
    dead.kill()
    dead.wait()
    build(tmp_path / "whole", "x")
    (tmp_path / ".somebody-elses").mkdir()
    assert len(names(tmp_path)) == 4
    remove_all_leftovers(tmp_path)
    assert [name for name in names(tmp_path) if name.startswith(".living.building-")]
    assert not [name for name in names(tmp_path) if name.startswith(".dead.building-")]
    assert {".somebody-elses", "whole"} < set(names(tmp_path))
    living.kill()
    living.wait()

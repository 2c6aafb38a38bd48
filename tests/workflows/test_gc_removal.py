"""How ``recap gc`` removes: kills in the middle, what cannot be removed, other disks, another command."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.workflows.gc_lab import (
    HELD,
    contents,
    copy_of,
    make_five_turns,
    needed_when_keeping_one,
    published,
    recap,
)
from tests.workflows.sample_lab import SampleLab
from workflows.driver_lock import driver_lock
from workflows.gc_plan import WHY, plan_gc
from workflows.progress import LineDisplay
from workflows.steps import StepRunner

ROOT = Path(__file__).parents[2]
OTHER_DISK = Path("/dev/shm")
KINDS = {kind.split()[0] for kind in WHY}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SampleLab:
    """Five turns, made once."""
    return make_five_turns(tmp_path_factory.mktemp("gc") / "lab")


@pytest.fixture
def lab(original: SampleLab, tmp_path: Path) -> SampleLab:
    """A copy of its own."""
    return copy_of(original, tmp_path / "lab")


def test_it_is_refused_while_another_command_works(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    before = published(lab)
    with driver_lock(lab.workspace.root):
        assert recap(capsys, lab, "gc")[0] == 0
        status, _, error = recap(capsys, lab, "gc", "--yes")
    assert status == 2 and "another recap command" in error and published(lab) == before


@pytest.mark.parametrize(
    ("where", "calls"),
    [("Path.rename", 0), ("Path.rename", 3), ("Path.unlink", 2), ("os.unlink", 4), ("os.rmdir", 1)],
)
def test_a_kill_in_the_middle_leaves_a_workspace_that_works(
    lab: SampleLab, capsys: pytest.CaptureFixture[str], where: str, calls: int
) -> None:
    """SIGKILL at the n-th move, removed link, deleted file or folder; then the same command again."""
    script = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from workflows.cli import load_command, main
        load_command("gc")
        original, left = {where}, [{calls}]
        def counted(*given, **named):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return original(*given, **named)
        {where} = counted
        main(["gc", "--keep", "1", "--yes", "--workspace", sys.argv[1]])
    """)
    held = contents(lab, *HELD)
    killed = subprocess.run(
        [sys.executable, "-c", script, str(lab.workspace.root)], capture_output=True, cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert contents(lab, *HELD) == held
    assert not any(lab.store.verify(found) for found in lab.store.published()), "half a step is there"
    assert needed_when_keeping_one(lab) <= published(lab)
    assert recap(capsys, lab, "status")[0] == 0
    assert recap(capsys, lab, "gc", "--keep", "1", "--yes")[0] == 0
    assert published(lab) == needed_when_keeping_one(lab)
    assert not list(lab.workspace.root.rglob(".trash"))


def test_a_driver_empties_the_trash_of_a_killed_gc(lab: SampleLab) -> None:
    folders = [lab.workspace.steps / "train_base", lab.workspace.steps / ".resume"]
    folders = [folder / ".trash" for folder in (*folders, lab.workspace.cache / "scores")]
    for trash in folders:
        shutil.copytree(lab.store.path(lab.base), trash / "some")
    found = [one.path for one in plan_gc(lab.workspace).garbage if one.kind == "trash"]
    assert sorted(found) == sorted(folders)
    with StepRunner(lab.workspace, LineDisplay(io.StringIO())):
        assert not any(trash.exists() for trash in folders)


def test_it_goes_on_and_accounts_for_what_cannot_be_removed(
    lab: SampleLab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_gc(lab.workspace, keep=1)
    stuck = next(one.path for one in plan.garbage if one.path.parent.name == "train_value")
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path == stuck:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    status, out, error = recap(capsys, lab, "gc", "--keep", "1", "--yes")
    assert status == 1 and f"not removed: {stuck}: Device or resource busy" in out and "1 files" in error
    left = {("train_value", stuck.name)}
    assert published(lab) == needed_when_keeping_one(lab) | left


@pytest.mark.skipif(not OTHER_DISK.is_dir(), reason="needs a second file system")
def test_a_part_of_steps_on_another_disk_is_freed_too(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    members = lab.workspace.steps / "train_value"
    with tempfile.TemporaryDirectory(dir=OTHER_DISK) as other:
        if Path(other).stat().st_dev == members.stat().st_dev:
            pytest.skip("needs a second file system")
        shutil.move(members, Path(other) / "train_value")
        members.symlink_to(Path(other) / "train_value")
        assert recap(capsys, lab, "gc", "--keep", "1", "--yes")[0] == 0
        assert published(lab) == needed_when_keeping_one(lab)
        kept = {one.key for turn in lab.turns[3:] for one in turn.members}
        assert {path.name for path in (Path(other) / "train_value").iterdir()} == kept


def table_of(out: str) -> dict[str, list[str]]:
    """The rows of what is to go, by their first word."""
    rows = (line.split() for line in out.splitlines() if not line.startswith("  "))
    return {words[0]: words for words in rows if len(words) > 3 and words[0] in KINDS}


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_said_beforehand_is_what_is_said_to_be_removed(
    lab: SampleLab, capsys: pytest.CaptureFixture[str], killed: bool
) -> None:
    """Also of what a killed 'recap gc' left half done."""
    large = next(lab.workspace.steps.glob("*/.*.partial")) / "large.bin"
    large.write_bytes(bytes(3 * 2**20))
    if killed:
        trash = lab.workspace.steps / "train_value" / ".trash"
        trash.mkdir()
        lab.store.path(lab.turns[0].members[0]).rename(trash / "moved")
        (trash / "moved" / "large.bin").write_bytes(bytes(2 * 2**20))
    planned = recap(capsys, lab, "gc", "--keep", "1")[1]
    done = recap(capsys, lab, "gc", "--keep", "1", "--yes")[1]
    assert table_of(planned) == table_of(done)
    assert table_of(done)["unfinished"][:4] == ["unfinished", "steps", "1", "3.0"]
    size = "5.0 MiB" if killed else "3.0 MiB"
    assert f"this would free {size}" in planned and f"removed; {size} freed" in done

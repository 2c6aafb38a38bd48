"""``recap gc`` on a workspace as the loop leaves it: what goes, what stays, and kills in the middle."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from tests.workflows.sample_lab import SampleLab, frozen, make_lab, step
from workflows.cli import main
from workflows.disk_usage import freed_by_removing, usage_of
from workflows.driver_lock import driver_lock
from workflows.gc_plan import plan_gc
from workflows.ledger import Ledger
from workflows.lineage import lineage
from workflows.progress import LineDisplay
from workflows.step_recipe import Step
from workflows.steps import StepRunner

ROOT = Path(__file__).parents[2]
OTHER_DISK = Path("/dev/shm")
HELD = ("episodes", "snapshots", "labels.sqlite", "runs.sqlite", "reports", "cache/videos")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SampleLab:
    """Five turns, of which the third was not promoted, and what killed processes left."""
    lab = make_lab(tmp_path_factory.mktemp("gc") / "lab")
    for promoted in (True, True, False, True):
        lab.turn(promoted=promoted)
    left = lab.workspace.steps / "fine_tune_recap" / f".{'0' * 32}.{'1' * 12}.partial"
    left.mkdir()
    (left / "half.bin").write_bytes(bytes(700))
    resume = lab.workspace.steps / ".resume" / "0123456789abcdef.safetensors"
    resume.parent.mkdir()
    resume.write_bytes(bytes(900))
    # All of that happened a while ago; the ledger tells time in seconds.
    for path in [resume, resume.parent, *(lab.workspace.cache / "scores").iterdir()]:
        os.utime(path, (time.time() - 9999, time.time() - 9999))
    time.sleep(1.1)
    lab.turn(promoted=True)
    return lab


@pytest.fixture
def lab(original: SampleLab, tmp_path: Path) -> SampleLab:
    """A copy of the original, hard links and times included."""
    root = tmp_path / "lab"
    subprocess.run(["cp", "-a", str(original.workspace.root), str(root)], check=True)
    return SampleLab(type(original.workspace)(root), original.base, [*original.turns])


def recap(capsys: pytest.CaptureFixture[str], lab: SampleLab, *words: str) -> tuple[int, str, str]:
    status = main([*words, "--workspace", str(lab.workspace.root)])
    said = capsys.readouterr()
    return status, said.out, said.err


def contents(lab: SampleLab, *below: str) -> dict[str, str]:
    """Every file and link (of the lock only that it is there) with what it holds."""
    root = lab.workspace.root
    found = {}
    for place in [root / name for name in below or (".",)]:
        for path in [place, *place.rglob("*")]:
            if path.is_symlink():
                found[str(path.relative_to(root))] = str(path.readlink())
            elif path.is_file():
                found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def bytes_on_disk(lab: SampleLab) -> int:
    """Every inode once."""
    files = [
        path.lstat() for path in lab.workspace.root.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    return sum({status.st_ino: status.st_size for status in files}.values())


def published(lab: SampleLab) -> set[tuple[str, str]]:
    return {(found.name, found.key) for found in lab.store.published()}


def addresses(*steps: Step) -> set[tuple[str, str]]:
    return {(one.name, one.key) for one in steps}


def needed_when_keeping_one(lab: SampleLab) -> set[tuple[str, str]]:
    """Of champion 5 and champion 4 before it all that was computed; the base; what tells the history."""
    _, _, _, fourth, fifth = lab.turns
    telling = [one for turn in lab.turns for one in (turn.evaluation, turn.report)]
    return addresses(lab.base, *fourth.all(), *fifth.all(), *telling)


def test_without_yes_it_says_what_it_would_do_and_changes_nothing(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(lab)
    for words in ((), ("--dry-run",)):
        status, out, _ = recap(capsys, lab, "gc", *words)
        assert status == 0 and contents(lab) == before
        assert "nothing was removed: add --yes to do it" in out
        assert re.search(r"\nunfinished steps +1 ", out) and re.search(r"\ntraining left-overs +1 ", out)
        assert "kept: what iteration 5, iteration 4, iteration 2, base came from" in out
    status, _, error = recap(capsys, lab, "gc", "--dry-run", "--yes")
    assert status == 2 and "contradict" in error


def test_what_no_kept_champion_needs_goes_and_the_bytes_are_right(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    held, before = contents(lab, *HELD), bytes_on_disk(lab)
    plan = plan_gc(lab.workspace, keep=1)
    promised = freed_by_removing(one.path for one in plan.garbage)
    status, out, _ = recap(capsys, lab, "gc", "--keep", "1", "--yes")
    assert status == 0 and out.endswith("freed\n")
    assert published(lab) == needed_when_keeping_one(lab)
    assert contents(lab, *HELD) == held
    assert before - bytes_on_disk(lab) == sum(promised.values()) > 0
    # The shared video, 4,000 bytes under ten names, is in nobody's sum.
    assert sum(promised.values()) < plan.bytes - 4000
    assert not any(lab.store.verify(found) for found in lab.store.published())
    champion = lab.turns[-1].candidate
    assert all(found.result for found in lineage(lab.workspace, champion).steps.values())
    assert sorted(path.name for path in lab.workspace.datasets.iterdir()) == ["iteration-4", "iteration-5"]
    assert all(path.exists() for path in lab.workspace.reports.iterdir())
    runs = {path.name for path in (lab.workspace.cache / "scores").iterdir()}
    assert runs == {turn.advantages.key[:16] for turn in lab.turns[3:]}
    assert not list((lab.workspace.steps / ".resume").iterdir())
    assert "there is nothing to remove" in recap(capsys, lab, "gc", "--keep", "1", "--yes")[1]


def test_freed_champions_cannot_be_gone_back_to_and_kept_ones_can(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recap(capsys, lab, "gc", "--keep", "1", "--yes")[0] == 0
    status, _, error = recap(capsys, lab, "rollback", "--to", "1", "--yes")
    assert status == 2 and "iteration 1 is gone" in error
    assert recap(capsys, lab, "rollback", "--yes")[0] == 0
    # The champion of iteration 4 now comes first; iteration 5, the last, stays as what was it before.
    kept = published(lab)
    assert recap(capsys, lab, "gc", "--keep", "1", "--yes")[0] == 0
    assert published(lab) == kept


def test_value_models_in_use_and_work_of_an_interrupted_turn_stay(lab: SampleLab) -> None:
    members = lab.turns[0].members
    paths = [f"steps/{one.name}/{one.key}/checkpoint" for one in members]
    (lab.workspace.root / "value-model.json").write_text(json.dumps({"members": paths}))
    snapshot = frozen(lab.workspace)
    begun = step("train_value", 77, snapshot=snapshot)
    lab.publish(begun)
    going = {one.path for one in plan_gc(lab.workspace, keep=0).garbage}
    assert not going & {lab.store.path(one) for one in (*members, begun)}
    assert lab.store.path(lab.turns[0].advantages) in going


def name_a_run(out: Path, *, run: str, advantages: Path) -> dict[str, str]:
    """Stands for scoring: says under which name the scores are."""
    (out / "values.bin").write_bytes(bytes(100))
    return {"run": run}


def test_what_the_gate_said_stays_and_scores_of_replaced_value_models_go(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    first = lab.turn(promoted=True)
    judged = step("judge_values", 1, advantages=first.advantages)
    lab.publish(judged)
    for age, name in enumerate(("in-use", "named", "replaced")):
        folder = lab.workspace.cache / "scores" / f"values-{name}" / "demo-0"
        folder.mkdir(parents=True)
        (folder / "value").write_bytes(bytes(300))
        for path in (folder, folder.parent):
            os.utime(path, (time.time() - 9000 - 100 * age,) * 2)
    resume = lab.workspace.steps / ".resume" / "train_value-0123"
    resume.mkdir(parents=True)
    (resume / "state.safetensors").write_bytes(bytes(900))
    for path in (resume / "state.safetensors", resume):
        os.utime(path, (time.time() - 9000,) * 2)
    time.sleep(1.1)
    lab.turn(promoted=True)
    last = lab.turn(promoted=True)
    scored = Step("score_values", name_a_run, {"run": "values-named"}, {"advantages": last.advantages})
    lab.publish(scored)
    going = {one.path for one in plan_gc(lab.workspace, keep=0).garbage}
    scores = lab.workspace.cache / "scores"
    assert lab.store.path(first.advantages) in going and scores / first.advantages.key[:16] in going
    assert lab.store.path(judged) not in going
    assert {path for path in going if path.name.startswith("values-")} == {scores / "values-replaced"}
    assert resume in going


def test_before_the_first_iteration_nothing_goes(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    lab.publish(step("train_value", 1, base=lab.base))
    assert plan_gc(lab.workspace, keep=0).garbage == ()


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


def test_a_champion_that_is_gone_for_the_moment_stops_it_and_one_before_costs_nothing(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    aside = lab.workspace.root / "aside"
    _, second, _, fourth, fifth = lab.turns
    shutil.move(lab.store.path(fifth.candidate), aside)
    before = published(lab)
    status, _, error = recap(capsys, lab, "gc", "--yes")
    assert status == 2 and str(lab.store.path(fifth.candidate)) in error and "put the folder back" in error
    assert error.count("\n") == 1 and published(lab) == before
    assert f"problem: {error.removeprefix('recap: error: ')}" in recap(capsys, lab, "status")[1]
    shutil.move(aside, lab.store.path(fifth.candidate))
    shutil.move(lab.store.path(fourth.candidate), aside)
    status, out, _ = recap(capsys, lab, "gc", "--keep", "1", "--yes")
    # One that cannot be gone back to does not count, and what it came from waits for it.
    assert status == 0 and "kept: what iteration 5, iteration 2, base came from" in out
    shutil.move(aside, lab.store.path(fourth.candidate))
    assert published(lab) == needed_when_keeping_one(lab) | addresses(*second.all())
    assert recap(capsys, lab, "gc", "--keep", "1", "--yes")[0] == 0
    assert published(lab) == needed_when_keeping_one(lab)


def test_after_a_rollback_what_was_rejected_is_not_counted_as_one_to_go_back_to(lab: SampleLab) -> None:
    ledger = Ledger(lab.workspace)
    ledger.roll_back(ledger.champions()[2], "4 and 5 drop cubes")
    lab.turn(promoted=True)
    assert [c.iteration for c in plan_gc(lab.workspace, keep=2).champions] == [6, 2, 1, 0]


def test_links_and_copies_that_a_person_made_stay(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    third, fourth = lab.turns[2:4]
    folder = lab.workspace.datasets
    (folder / "for-paper").symlink_to(lab.store.path(third.view))
    (folder / "dangling").symlink_to("../steps/conditioned_dataset/gone")
    (folder / "loop").symlink_to("loop")
    (folder / "iteration-9").symlink_to("iteration-9")
    copies = [
        lab.store.path(fourth.candidate).with_name(f"{fourth.candidate.key}-before-cleaning"),
        lab.workspace.steps / "fine_tune_recap-backup" / third.candidate.key,
    ]
    for copy in copies:
        shutil.copytree(lab.store.path(fourth.candidate), copy)
    assert recap(capsys, lab, "gc", "--keep", "1", "--yes")[0] == 0
    assert published(lab) >= needed_when_keeping_one(lab) | addresses(third.dataset, third.view)
    # That of iteration 3 leads to where the person's does.
    names = {"for-paper", "dangling", "loop", *(f"iteration-{n}" for n in (3, 4, 5, 9))}
    assert {path.name for path in folder.iterdir()} == names
    assert all(copy.is_dir() for copy in copies)


def test_a_value_model_that_cannot_be_read_stops_it(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    (lab.workspace.root / "value-model.json").write_text("{")
    status, _, error = recap(capsys, lab, "gc", "--yes")
    assert status == 2 and "value-model.json cannot be read" in error


def test_usage_is_bounded_and_says_so(lab: SampleLab) -> None:
    whole = usage_of(lab.workspace.steps)
    assert whole.complete and whole.bytes == sum(
        {
            p.stat().st_ino: p.stat().st_size
            for p in lab.workspace.steps.rglob("*")
            if p.is_file() and not p.is_symlink()
        }.values()
    )
    part = usage_of(lab.workspace.steps, at_most=10)
    assert (part.files, part.complete) == (10, False) and str(part).startswith("over ")
    assert usage_of(lab.workspace.root / "none").bytes == 0


def test_the_lab_is_as_the_loop_leaves_it(lab: SampleLab) -> None:
    ledger = Ledger(lab.workspace)
    assert [c.iteration for c in ledger.champions()] == [0, 1, 2, 4, 5]
    assert [i.n for i in ledger.iterations()] == [1, 2, 3, 4, 5]

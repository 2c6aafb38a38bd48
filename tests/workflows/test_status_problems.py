"""``recap status``, ``gc``, ``rollout`` where parts of a workspace are lost or damaged, or a disk is full."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.workflows.faults_lab import fill, small_disk
from tests.workflows.sample_lab import SampleLab, make_lab
from workflows.cli import main
from workflows.completion_log import ListedStep
from workflows.lineage import step_named
from workflows.workspace_disk import DiskState, disk_state


@pytest.fixture
def lab(tmp_path: Path) -> SampleLab:
    """One turn that promoted."""
    lab = make_lab(tmp_path / "lab")
    lab.turn(promoted=True)
    return lab


def recap(capsys: pytest.CaptureFixture[str], lab: SampleLab, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([*words, "--workspace", str(lab.workspace.root)])
    said = capsys.readouterr()
    return status, said.out, said.err


def problems(capsys: pytest.CaptureFixture[str], lab: SampleLab) -> list[str]:
    lines = recap(capsys, lab, "status")[1].splitlines()
    return [line.removeprefix("problem: ") for line in lines if line.startswith("problem: ")]


def test_nothing_is_wrong_with_a_whole_one(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(capsys, lab) == []
    assert "last turn: iteration 1, " in recap(capsys, lab, "status")[1]


@pytest.mark.parametrize("empty", [False, True])
def test_a_lost_ledger_is_named_once(lab: SampleLab, capsys: pytest.CaptureFixture[str], empty: bool) -> None:
    if empty:
        lab.workspace.ledger_path.write_bytes(b"")
    else:
        lab.workspace.ledger_path.unlink()
    [said] = problems(capsys, lab)
    assert "runs.sqlite is missing or empty, but there were turns of the loop" in said
    assert "the pages of 1 iterations in reports/" in said and "'recap rollback --rebuild'" in said
    for words in (("gc", "--yes"), ("rollback",), ("status", "--lineage")):
        status, _, err = recap(capsys, lab, *words)
        assert status == 2 and said in err
    assert not lab.workspace.ledger_path.exists() or empty
    assert len(lab.store.published("train_base")) == 1


def test_a_new_workspace_with_a_base_policy_is_no_lost_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = make_lab(tmp_path / "lab")
    lab.workspace.ledger_path.unlink()  # as killed between the base policy and its place in the ledger
    assert problems(capsys, lab) == []


def test_an_old_copy_of_the_ledger_is_noticed(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    old = lab.workspace.root / "old.sqlite"
    shutil.copy(lab.workspace.ledger_path, old)
    lab.turn(promoted=False)
    shutil.copy(old, lab.workspace.ledger_path)
    assert problems(capsys, lab) == []  # one more page is that of an interrupted turn
    (lab.workspace.reports / "iteration-3.html").symlink_to("nowhere")
    [said] = problems(capsys, lab)
    assert "ends at iteration 1" in said and "the page of iteration 3" in said


def test_lost_labels_and_episodes_are_named(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    episode = next(lab.workspace.episodes.rglob("demo-0.h5"))
    aside = episode.rename(lab.workspace.root / "aside.h5")
    [said] = problems(capsys, lab)
    assert said.startswith("episode demo-0 is gone from ")
    aside.rename(episode)
    lab.workspace.labels_path.unlink()
    [said] = problems(capsys, lab)
    assert "labels.sqlite is missing or empty" in said and "recap label import " in said
    assert "waiting for people: not known" in recap(capsys, lab, "status")[1]
    # The advice works.
    words = said.partition("'recap ")[2].partition("'")[0].split()
    assert recap(capsys, lab, *words)[0] == 0
    assert problems(capsys, lab) == []


def test_a_truncated_file_is_named_with_what_to_do(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lab.workspace.root / "value-model.json"
    path.write_text('{"members": ["st')
    [said] = problems(capsys, lab)
    assert said.startswith(f"{path} is damaged (") and "put it back from a copy" in said
    assert said in recap(capsys, lab, "gc")[2]


@pytest.mark.parametrize("damage", ["gone", "changed", "short", "folder"])
def test_the_champions_checkpoint_is_looked_at(
    lab: SampleLab, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = lab.store.path(lab.turns[0].candidate) / "file.bin"
    size = path.stat().st_size
    if damage == "gone":
        path.unlink()
    elif damage == "folder":
        shutil.rmtree(path.parent)
    else:
        path.write_bytes(b"\xff" * (size if damage == "changed" else size - 1))
    [said] = problems(capsys, lab)
    assert str(path.parent) in said and "recap rollback" in said
    status, _, err = recap(capsys, lab, "rollout")
    assert status == 2 and said in err


def test_short_keys_will_do(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    candidate = lab.turns[0].candidate
    for text in (
        candidate.key[:8],
        f"fine_tune_recap/{candidate.key[:3]}",
        f"fine_tune_recap/{candidate.key}",
    ):
        assert step_named(lab.workspace, text).key == candidate.key
    assert recap(capsys, lab, "status", "--lineage", "--of", candidate.key[:8])[0] == 0
    status, _, err = recap(capsys, lab, "status", "--lineage", "--of", "train_value/")
    assert status == 2 and "may be any of 2 steps (train_value/" in err
    assert recap(capsys, lab, "status", "--lineage", "--of", "zzz")[0] == 2


def test_everything_is_told_on_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", "20m") as disk:
        lab = make_lab(disk / "lab")
        lab.turn(promoted=True)
        recap(capsys, lab, "schedule", "add", "nightly", "@daily")
        before = json.loads(recap(capsys, lab, "status", "--json")[1])
        filler = fill(disk)
        status, out, _ = recap(capsys, lab, "status", "--json")
        full = json.loads(out)
        assert status == 0 and full["problems"] == [] and full["free"]["free_bytes"] == 0
        for name in ("counts", "waiting", "champion", "iterations"):
            assert full[name] == before[name]
        for words in (("gc",), ("schedule", "list"), ("schedule", "history"), ("episodes", "list")):
            assert recap(capsys, lab, *words)[0] == 0, words
        status, _, err = recap(capsys, lab, "label", "set", "demo-0", "failure", "--annotator", "ben")
        assert status == 1 and "has no room left on its disk, nothing was stored" in err
        filler.unlink()
        assert recap(capsys, lab, "label", "set", "demo-0", "failure", "--annotator", "ben")[0] == 0


def test_how_long_the_disk_lasts(lab: SampleLab) -> None:
    now = datetime.now(UTC)
    for path in lab.workspace.episodes.rglob("*.h5"):
        os.utime(path, (now.timestamp() - 40 * 86_400,) * 2)
    came = [(1, 700_000_000), (13, 700_000_000), (20, 10**12)]
    listed = [
        ListedStep("a", str(days), size, (now - timedelta(days=days)).isoformat()) for days, size in came
    ]
    state = disk_state(lab.workspace, listed, now)
    assert state.daily == pytest.approx(1e8)
    assert (
        DiskState({}, 4 * 10**9, 1e8)
        .words()
        .endswith("lasts about 40 days at the present rate (95.4 MiB a day)")
    )
    assert DiskState({}, 10**8, 1e8).words().startswith("95.4 MiB free, which lasts 24 hours")
    assert DiskState({}, 10**15, 1.0).days_left == 10**15
    assert disk_state(lab.workspace, listed[:0], now - timedelta(days=39.5)).daily is None

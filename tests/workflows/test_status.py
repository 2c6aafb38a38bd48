"""``recap status`` on a workspace as the loop leaves it."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.file_lock import locked
from pipeline.labels import LabelStore
from tests.workflows.sample_lab import SampleLab, add_episode, make_lab
from workflows.cli import main
from workflows.driver_lock import driver_lock
from workflows.schedule_conditions import measure, parse_condition
from workflows.step_recipe import StepAddress

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab(tmp_path: Path) -> SampleLab:
    """One turn that promoted, one that did not, a while ago."""
    lab = make_lab(tmp_path / "lab")
    lab.turn(promoted=True)
    lab.turn(promoted=False)
    return lab


def recap(capsys: pytest.CaptureFixture[str], lab: SampleLab, *words: str) -> str:
    assert main([*words, "--workspace", str(lab.workspace.root)]) == 0
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], lab: SampleLab) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(recap(capsys, lab, "status", "--json"))
    return read


def test_the_picture_comes_first(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    lines = recap(capsys, lab, "status").splitlines()
    assert lines[0].startswith("champion: iteration 1, since 20") and lines[0].endswith("promoted: faster")
    assert "(just now)" in lines[0] and str(lab.store.path(lab.turns[0].candidate)) in lines[1]
    assert "came from 5 steps" in lines[2]
    assert "new since the last iteration: 0 episodes, 0 labels" in lines
    assert "waiting for people: nothing" in lines
    assert "to record: rollouts of the champion: there is none yet" in lines
    assert next(line for line in lines if line.startswith("next: ")).startswith("next: recap rollout")
    assert lines.index("4 episodes, 0.00 hours, 0 unlabelled") > 5
    disk = next(line for line in lines if line.startswith("disk: episodes "))
    assert re.search(r"steps \d+ KiB", disk) and "0.0 MiB" not in disk and lines.index(disk) >= len(lines) - 2


def test_episodes_and_labels_after_the_frozen_ones_are_new_and_wait(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    champion = lab.turns[0].candidate
    add_episode(lab.workspace, "new-0", policy_checkpoint=f"{champion.name}/{champion.key}")
    add_episode(lab.workspace, "new-1", task="open the drawer")
    with LabelStore(lab.workspace.labels_path) as store:
        store.sync((entry.id, entry.info.task) for entry in lab.workspace.list_episodes())
        store.set("new-1", "success", "ana")
    seen = document(capsys, lab)
    assert seen["new_since_last_iteration"] == {"episodes": 2, "labels": 1}
    assert seen["waiting"] == {"unlabelled": 1, "second_opinion": 0, "disputed": 0, "known": True}
    assert seen["to_record"] == ["'open the drawer' has no failure: a value model learns from both"]
    out = recap(capsys, lab, "status")
    assert "waiting for people: 1 episode to label" in out and "(1 episode to label)" in out


def test_what_is_new_is_what_the_conditions_of_schedules_count(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    with LabelStore(lab.workspace.labels_path) as store:
        store.set("demo-0", "success", "ana")  # as it was
    for path in lab.workspace.episodes.rglob("*.h5"):
        os.utime(path, (time.time() + 9, time.time() + 9))
    assert document(capsys, lab)["new_since_last_iteration"] == {"episodes": 0, "labels": 0}
    with LabelStore(lab.workspace.labels_path) as store:
        store.set("demo-0", "failure", "ana")
    seen = document(capsys, lab)["new_since_last_iteration"]
    condition = parse_condition("new_episodes>=1 or new_labelled_episodes>=1")
    counted = measure(lab.workspace, condition, datetime.now(UTC))
    assert (
        seen
        == {"episodes": 0, "labels": 1}
        == {
            "episodes": counted["new_episodes"],
            "labels": counted["new_labelled_episodes"],
        }
    )


def test_work_that_a_process_does_now_is_not_left_behind_and_a_stale_lock_is_no_work(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    (lab.workspace.root / ".driver.lock").write_text(json.dumps({"driver": os.getppid()}))
    partial = lab.workspace.steps / "advantages" / f".{'0' * 32}.{'1' * 12}.partial"
    partial.mkdir()
    (partial / "large.bin").write_bytes(bytes(3 * 2**20))
    with locked(lab.store.lock_path(StepAddress("advantages", "0" * 32))):
        seen = document(capsys, lab)
    assert seen["busy"] is None
    assert seen["removable_bytes"] < 2**20 < document(capsys, lab)["removable_bytes"]


def damage_manifest(lab: SampleLab) -> Path:
    path = lab.store.path(lab.turns[0].members[0]) / "manifest.json"
    path.write_text('{"name": "tr')
    return path


def damage_ledger(lab: SampleLab) -> Path:
    lab.workspace.ledger_path.write_bytes(b"garbage" * 1000)
    return lab.workspace.ledger_path


def damage_labels(lab: SampleLab) -> Path:
    lab.workspace.labels_path.write_bytes(b"garbage" * 1000)
    return lab.workspace.labels_path


@pytest.mark.parametrize("damage", [damage_manifest, damage_ledger, damage_labels])
def test_what_is_damaged_is_named_and_the_rest_shown(
    lab: SampleLab, capsys: pytest.CaptureFixture[str], damage: Callable[[SampleLab], Path]
) -> None:
    path = damage(lab)
    out = recap(capsys, lab, "status")
    (problem,) = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert str(path) in problem and "4 episodes, 0.00 hours" in out
    assert "next: mend what is said above" in out
    assert document(capsys, lab)["problems"] == [problem.removeprefix("problem: ")]
    for words in (("gc", "--yes"), ("status", "--lineage")):
        if damage is not damage_labels:
            assert main([*words, "--workspace", str(lab.workspace.root)]) == 2
            assert str(path) in capsys.readouterr().err


def test_second_opinions_follow_the_rules_of_the_site(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.workspace.config_path.write_text("[labels]\ndouble_share = 1.0\n")
    assert document(capsys, lab)["waiting"]["second_opinion"] == 4
    assert "4 for a second opinion" in recap(capsys, lab, "status")


def test_what_gc_would_free_the_value_model_and_who_works_are_said(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [f"steps/train_value/{member.key}/checkpoint" for member in lab.turns[0].members]
    model = {"members": members, "snapshot": "abcdef0123456789" * 4, "training": {}}
    (lab.workspace.root / "value-model.json").write_text(json.dumps(model))
    partial = lab.workspace.steps / "advantages" / f".{'0' * 32}.{'1' * 12}.partial"
    partial.mkdir()
    (partial / "large.bin").write_bytes(bytes(3 * 2**20))
    with driver_lock(lab.workspace.root):
        out = recap(capsys, lab, "status")
    assert f"at work: process {os.getpid()} " in out and f"next: wait for process {os.getpid()}\n" in out
    assert "value model: 2 networks, trained 20" in out and "labels abcdef01" in out
    assert "'recap gc' would free up to 3.0 MiB" in out
    assert "at work" not in recap(capsys, lab, "status")


def test_a_value_model_is_as_old_as_its_training_and_not_as_its_files(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = "2026-01-02T03:04:05+00:00"
    for member in lab.turns[0].members:
        manifest = lab.store.path(member) / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "finished": finished}))
    members = [f"steps/train_value/{member.key}/checkpoint" for member in lab.turns[0].members]
    model = {"members": members, "snapshot": "abcdef0123456789" * 4, "training": {}}
    (lab.workspace.root / "value-model.json").write_text(json.dumps(model))  # just now, as after a copy
    seen = document(capsys, lab)["value_model"]
    assert seen == {"members": 2, "labels": "abcdef0123456789" * 4, "trained": finished}
    line = next(one for one in recap(capsys, lab, "status").splitlines() if one.startswith("value model"))
    assert "trained 2026-01-0" in line and "just now" not in line
    # Models whose steps are not here: nobody knows.
    model["members"] = ["elsewhere/checkpoint", f"steps/train_value/{'0' * 32}/checkpoint"]
    (lab.workspace.root / "value-model.json").write_text(json.dumps(model))
    assert document(capsys, lab)["value_model"]["trained"] is None
    assert "value model: 2 networks, labels abcdef01" in recap(capsys, lab, "status")


def test_a_rollback_is_seen(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    recap(capsys, lab, "rollback", "--yes", "--reason", "it drops the cube")
    out = recap(capsys, lab, "status")
    assert out.startswith("champion: base, rolled back to ")
    assert "rolled back from iteration 1: it drops the cube" in out


def test_only_the_last_iterations_are_listed(lab: SampleLab, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(4):
        lab.turn(promoted=False)
    out = recap(capsys, lab, "status")
    assert "(1 iteration before these" in out and "\niteration 5, " in out and "\niteration 1, " not in out
    # The last one is the last turn, and told once.
    assert "last turn: iteration 6, " in out and out.count("iteration 6, ") == 1


def test_a_turn_that_its_values_stopped_is_the_last_one(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    page = lab.store.path(lab.turns[0].report) / "report.html"
    page.write_text("values")
    lab.workspace.reports.mkdir(exist_ok=True)
    (lab.workspace.reports / "values-2.html").symlink_to(page)
    assert document(capsys, lab)["refused_turn"] is None  # turn 2 went on later
    (lab.workspace.reports / "values-3.html").symlink_to(page)
    finished = json.loads((page.parent / "manifest.json").read_text())["finished"]
    assert document(capsys, lab)["refused_turn"] == {"n": 3, "page": "values-3.html", "recorded": finished}
    out = recap(capsys, lab, "status")
    last = next(line for line in out.splitlines() if line.startswith("last turn: "))
    assert re.fullmatch(
        r"last turn: turn 3 stopped, 20\S+ \S+ \(.*\): its values cannot be trusted, "
        r"see reports/values-3\.html",
        last,
    )
    assert (
        "\niteration 2, " in out and "next: mend what reports/values-3.html says, then recap improve" in out
    )


def test_the_rule_of_a_decision_is_left_to_its_report(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    decision = {"rule": "Promoted where it makes more", "looks": [{"starts": 10}]}
    summary = {
        "promoted": False,
        "reason": "kept",
        "report": "reports/iteration-2.html",
        "decision": decision,
    }
    with sqlite3.connect(lab.workspace.ledger_path) as database:
        database.execute("UPDATE iterations SET summary = ? WHERE n = 2", (json.dumps(summary),))
    out = recap(capsys, lab, "status")
    assert "decided after 10 starts; by what rule: see reports/iteration-2.html\n" in out
    assert "Promoted where" not in out


def test_the_json_is_complete_and_the_lineage_a_tree(
    lab: SampleLab, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = document(capsys, lab)
    assert seen["champion"]["key"] == lab.turns[0].candidate.key and seen["episodes"] == 4
    assert [iteration["n"] for iteration in seen["iterations"]] == [1, 2]
    files = [
        path.lstat() for path in lab.workspace.steps.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    # The shared video has a name in each dataset, and counts once.
    assert seen["disk"]["steps"]["bytes"] == sum({one.st_ino: one.st_size for one in files}.values())
    tree = recap(capsys, lab, "status", "--lineage")
    assert tree.startswith("fine_tune_recap/") and "2 × train_value" in tree
    assert "in all: 5 steps, 3 episodes, 3 labels in 2 snapshots" in tree
    read = json.loads(recap(capsys, lab, "status", "--lineage", "--json"))
    assert len(read["steps"]) == 5 and read["episodes"] == ["demo-0", "demo-1", "rollout-1"]
    other = lab.turns[1].report
    assert recap(capsys, lab, "status", "--lineage", "--of", f"report/{other.key}").startswith("report/")


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--of", "report/1"), "belongs to --lineage"), (("--lineage", "--of", "report/1"), "no step report/1")],
)
def test_what_cannot_be_shown_is_said(
    lab: SampleLab, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert main(["status", *words, "--workspace", str(lab.workspace.root)]) == 2
    assert message in capsys.readouterr().err


def test_it_changes_nothing_and_loads_nothing_heavy(lab: SampleLab) -> None:
    place = str(lab.workspace.root)
    script = (
        f"import sys; from workflows.cli import main; status = main(['status', '--workspace', {place!r}]); "
        "print([name for name in ('ray', 'torch', 'pandas') if name in sys.modules]); "
        "sys.exit(status)"
    )
    before = {path: path.lstat().st_mtime_ns for path in lab.workspace.root.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.endswith("\n[]\n")
    after = {path: path.lstat().st_mtime_ns for path in lab.workspace.root.rglob("*") if path.is_file()}
    # SQLite's own files and the index of episodes come and go.
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed <= {"episodes.sqlite", "labels.sqlite-wal", "labels.sqlite-shm", "labels.sqlite"}

"""``recap gc`` on a workspace as the loop leaves it: what goes and what stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.workflows.gc_lab import (
    HELD,
    addresses,
    bytes_on_disk,
    contents,
    copy_of,
    make_five_turns,
    needed_when_keeping_one,
    published,
    recap,
)
from tests.workflows.sample_lab import SampleLab, frozen, make_lab, step
from workflows.disk_usage import freed_by_removing, usage_of
from workflows.gc_plan import plan_gc
from workflows.ledger import Ledger
from workflows.lineage import lineage
from workflows.step_recipe import Step


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SampleLab:
    """Five turns, made once."""
    return make_five_turns(tmp_path_factory.mktemp("gc") / "lab")


@pytest.fixture
def lab(original: SampleLab, tmp_path: Path) -> SampleLab:
    """A copy of its own."""
    return copy_of(original, tmp_path / "lab")


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
    (lab.workspace.root / "value-model.json").write_text(json.dumps({"members": paths, "snapshot": "0"}))
    snapshot = frozen(lab.workspace)
    begun = step("train_value", 77, snapshot=snapshot)
    lab.publish(begun)
    going = {one.path for one in plan_gc(lab.workspace, keep=0).garbage}
    assert not going & {lab.store.path(one) for one in (*members, begun)}
    assert lab.store.path(lab.turns[0].advantages) in going


def test_an_iteration_that_is_noted_anew_is_no_later_than_work_after_it(lab: SampleLab) -> None:
    ledger = Ledger(lab.workspace)
    last = ledger.iterations()[-1]
    begun = step("train_value", 77, snapshot=frozen(lab.workspace))
    lab.publish(begun)
    time.sleep(1.1)  # the ledger tells whole seconds
    ledger.record_iteration(last.n, last.candidate, {**last.summary, "reason": "in other words"})
    assert lab.store.path(begun) not in {one.path for one in plan_gc(lab.workspace, keep=0).garbage}


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
    assert status == 2 and "value-model.json is damaged" in error and error.count("\n") == 1
    assert "put it back from a copy" in error


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

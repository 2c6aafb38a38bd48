"""``recap rollback``, on real ledgers and published steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.workspace import Workspace
from tests.workflows import sample_steps
from workflows.cli import main
from workflows.driver_lock import driver_lock
from workflows.ledger import Champion, Ledger
from workflows.rollback import standing
from workflows.step_recipe import Step
from workflows.step_store import StepStore


def silent(done: int, total: int, message: str = "") -> None:
    """Shows nothing."""


def checkpoint(n: int) -> Step:
    return Step("train", sample_steps.write_noise, {"size": 8}, seed=n)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """Base, iteration 1 promoted, iteration 2 kept out, iteration 3 promoted."""
    workspace = Workspace(tmp_path / "lab").create()
    store, ledger = StepStore(workspace.steps), Ledger(workspace)
    for n in range(4):
        store.execute(store.call(checkpoint(n)), silent)
    ledger.set_base("train", checkpoint(0).key, "trained on every demonstration")
    for n, promoted in ((1, True), (2, False), (3, True)):
        reason = "promoted: faster" if promoted else "kept champion: not better beyond chance"
        ledger.record_iteration(n, checkpoint(n).key, {"promoted": promoted, "reason": reason})
        if promoted:
            ledger.promote("train", checkpoint(n).key, n, reason)
    return workspace


def recap(capsys: pytest.CaptureFixture[str], lab: Workspace, *words: str) -> tuple[int, str, str]:
    status = main([*words, "--workspace", str(lab.root)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_it_says_what_it_would_do_and_does_it_only_when_told(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lab.ledger_path.read_bytes()
    status, out, _ = recap(capsys, lab, "rollback")
    assert status == 0 and lab.ledger_path.read_bytes() == before
    assert "champion now   iteration 3" in out and "would become   iteration 1" in out
    assert out.endswith("nothing was changed: add --yes to do it\n")
    status, out, _ = recap(capsys, lab, "rollback", "--yes", "--reason", "it drops the cube")
    assert status == 0 and out.endswith("done: iteration 1 is the champion\n")
    champion = Ledger(lab).champion()
    assert champion is not None and champion.path == lab.steps / "train" / checkpoint(1).key
    assert champion.reason == "rolled back from iteration 3: it drops the cube"
    assert "champion: iteration 1, rolled back to " in recap(capsys, lab, "status")[1]


def test_the_page_over_all_iterations_says_it_at_once_and_never_stops_it(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    page = lab.reports / "index.html"
    assert recap(capsys, lab, "rollback")[0] == 0 and not page.exists()
    assert recap(capsys, lab, "rollback", "--yes", "--reason", "it drops the cube")[0] == 0
    assert "it drops the cube" in page.read_text()
    page.unlink()
    page.mkdir()  # cannot be written
    status, out, err = recap(capsys, lab, "rollback", "--to", "3", "--yes")
    assert status == 0 and out.endswith("done: iteration 3 is the champion\n")
    assert "the page over all iterations is as it was" in err and "recap report --all" in err


def test_back_twice_goes_further_back_and_forward_by_number(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, origin in (((), "iteration 1"), ((), "base"), (("--to", "3"), "iteration 3")):
        assert recap(capsys, lab, "rollback", "--yes", *words)[0] == 0
        champion = Ledger(lab).champion()
        assert champion is not None and champion.origin == origin
    assert recap(capsys, lab, "rollback", "--to", "base", "--yes")[0] == 0
    assert [c.origin for c in Ledger(lab).champions()] == [
        "base",
        "iteration 1",
        "iteration 3",
        "iteration 1",
        "base",
        "iteration 3",
        "base",
    ]
    status, _, error = recap(capsys, lab, "rollback", "--yes")
    assert status == 2 and "base is the first champion" in error


def test_back_never_leads_to_what_a_person_rejected(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Iteration 3 is rejected, 4 promoted over 1: back from there is 1, also when 4 is seated again."""
    assert recap(capsys, lab, "rollback", "--to", "1", "--yes")[0] == 0
    ledger = Ledger(lab)
    assert [c.origin for c in standing(ledger.champions())] == ["iteration 1", "base"]
    StepStore(lab.steps).execute(StepStore(lab.steps).call(checkpoint(4)), silent)
    ledger.record_iteration(4, checkpoint(4).key, {"promoted": True})
    ledger.promote("train", checkpoint(4).key, 4, "promoted: faster")
    for words in ((), ("--to", "4"), ()):
        assert recap(capsys, lab, "rollback", "--yes", *words)[0] == 0
    now = ledger.champion()
    assert now is not None and now.origin == "iteration 1"
    assert [c.origin for c in standing(ledger.champions())] == ["iteration 1", "base"]


@given(moves=st.lists(st.integers(0, 9), max_size=20))
def test_the_default_is_never_what_was_rolled_back_from_and_not_seated_since(moves: list[int]) -> None:
    """Against the definition, on any history: 0 promotes anew, another number rolls back to one of old."""
    history = [Champion("train", "0", Path(), 0, "", "", "promotion", 0)]
    rejected: set[int] = set()
    for move in moves:
        was = sorted({c.iteration for c in history})
        if move == 0:
            n = len(was)
            history.append(Champion("train", str(n), Path(), n, "", "", "promotion", n))
        elif (to := was[move % len(was)]) != history[-1].iteration:
            now = history[-1].iteration
            # Who goes on to a newer one, such as back again, rejects nothing.
            rejected = (rejected | ({now} if to < now else set())) - {to}
            history.append(Champion("train", str(to), Path(), to, "", "", "rollback", 9))
        stack = [c.iteration for c in standing(history)]
        assert stack[0] == history[-1].iteration and not rejected & set(stack[1:])
        assert stack == sorted(set(stack), reverse=True) and stack[-1] == 0


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("2", "iteration 2 never was champion (kept champion: not better beyond chance)"),
        ("7", "there is no iteration 7: there are base, iteration 1\n"),
        ("3", "iteration 3 is the champion already"),
        ("first", "not 'first'"),
    ],
)
def test_what_never_was_champion_cannot_be_again(
    lab: Workspace, capsys: pytest.CaptureFixture[str], to: str, message: str
) -> None:
    status, out, error = recap(capsys, lab, "rollback", "--to", to, "--yes")
    assert (status, out) == (2, "") and message in error and error.count("\n") == 1
    assert len(Ledger(lab).champions()) == 3


def test_a_checkpoint_that_is_gone_or_damaged_is_named_and_refused(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(lab.steps / "train" / checkpoint(1).key)
    status, _, error = recap(capsys, lab, "rollback", "--yes")
    assert status == 2 and "iteration 1 is gone" in error and checkpoint(1).key in error
    assert error.endswith("; there is base\n")
    (lab.steps / "train" / checkpoint(0).key / "first.npy").write_bytes(b"other")
    status, _, error = recap(capsys, lab, "rollback", "--to", "base", "--yes")
    assert status == 2 and "base is damaged" in error and "first.npy" in error
    assert error.endswith("; no other champion is left\n")
    assert len(Ledger(lab).champions()) == 3


def test_it_waits_for_nobody_who_works_in_the_workspace(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with driver_lock(lab.root):
        assert recap(capsys, lab, "rollback")[0] == 0
        status, _, error = recap(capsys, lab, "rollback", "--yes")
        assert status == 2 and "another recap command" in error
    assert len(Ledger(lab).champions()) == 3


def test_without_a_champion_there_is_nothing_to_go_back_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = recap(capsys, Workspace(tmp_path).create(), "rollback")
    assert status == 2 and "no champion" in error

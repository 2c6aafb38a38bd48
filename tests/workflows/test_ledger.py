"""The driver's ledger: nothing is written twice, nothing is lost, history only grows."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.step_store import StepResult


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with three published steps, ``fine_tune/a`` to ``c``."""
    for key in "abc":
        (tmp_path / "steps" / "fine_tune" / key).mkdir(parents=True)
    return Workspace(tmp_path)


def test_reading_a_ledger_that_was_never_written_creates_nothing(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "none"))
    assert ledger.champion() is None
    assert ledger.iterations() == ledger.champions() == ledger.steps(1) == []
    assert ledger.iteration_of("a") == 1
    assert not (tmp_path / "none").exists()


def test_the_same_turns_again_change_no_byte(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    result = StepResult(
        "fine_tune", "b", workspace.steps / "fine_tune" / "b", {"seconds": 2.5, "result": None}
    )

    def turns() -> None:
        ledger.set_base("fine_tune", "a", "demonstrations")
        for candidate in "bc":
            n = ledger.iteration_of(candidate)
            ledger.record_iteration(n, candidate, {"promoted": True})
            ledger.record_steps(n, [result])
            ledger.promote("fine_tune", candidate, n, "faster")

    turns()
    before = workspace.ledger_path.read_bytes()
    turns()
    assert workspace.ledger_path.read_bytes() == before
    assert [(c.iteration, c.key) for c in ledger.champions()] == [(0, "a"), (1, "b"), (2, "c")]
    assert [(i.n, i.candidate, i.summary) for i in ledger.iterations()] == [
        (1, "b", {"promoted": True}),
        (2, "c", {"promoted": True}),
    ]
    assert ledger.steps(1) == [("fine_tune", "b", 2.5)]
    champion = ledger.champion()
    assert champion is not None and champion.path == workspace.steps / "fine_tune" / "c"


def test_a_new_base_does_not_unseat_a_champion(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    assert ledger.set_base("fine_tune", "a", "demonstrations")
    assert ledger.promote("fine_tune", "b", 1, "faster")
    assert not ledger.set_base("fine_tune", "c", "more demonstrations")
    champion = ledger.champion()
    assert champion is not None and champion.key == "b"


def test_a_summary_may_be_noted_anew_but_not_under_another_number(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    ledger.record_iteration(1, "a", {"p": 0.1})
    ledger.record_iteration(1, "a", {"p": 0.2})
    assert [i.summary for i in ledger.iterations()] == [{"p": 0.2}]
    for n, candidate in ((1, "b"), (2, "a")):
        with pytest.raises(Failure, match="iteration 1 has"):
            ledger.record_iteration(n, candidate, {})


def test_when_an_iteration_was_first_noted_stays(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    ledger.record_iteration(1, "a", {"p": 0.1})
    with closing(sqlite3.connect(workspace.ledger_path)) as database:
        database.execute("UPDATE iterations SET recorded = '2026-01-01T00:00:00+00:00'")
        database.commit()
    ledger.record_iteration(1, "a", {"p": 0.2})
    (noted,) = ledger.iterations()
    assert (noted.summary, noted.recorded) == ({"p": 0.2}, "2026-01-01T00:00:00+00:00")


def test_only_what_is_published_can_be_promoted(workspace: Workspace) -> None:
    with pytest.raises(Failure, match="cannot promote fine_tune"):
        Ledger(workspace).promote("fine_tune", "missing", 1, "")
    assert not workspace.ledger_path.exists()


@pytest.mark.parametrize("change", ["DELETE FROM champions", "UPDATE champions SET reason = 'other'"])
def test_the_database_refuses_to_rewrite_history(workspace: Workspace, change: str) -> None:
    Ledger(workspace).set_base("fine_tune", "a", "demonstrations")
    refused = pytest.raises(sqlite3.IntegrityError, match="append-only")
    with closing(sqlite3.connect(workspace.ledger_path)) as database, refused:
        database.execute(change)


def test_a_rollback_holds_until_the_next_promotion_and_repeating_a_turn_does_not_undo_it(
    workspace: Workspace,
) -> None:
    ledger = Ledger(workspace)
    ledger.set_base("fine_tune", "a", "demonstrations")
    for n, key in ((1, "b"), (2, "c")):
        ledger.record_iteration(n, key, {"promoted": True})
        ledger.promote("fine_tune", key, n, "faster")
    ledger.roll_back(ledger.champions()[1], "it drops the cube")
    back = ledger.champion()
    assert back is not None
    assert (back.key, back.kind, back.since, back.iteration) == ("b", "rollback", 2, 1)
    assert (back.origin, back.reason) == ("iteration 1", "it drops the cube")
    assert not ledger.promote("fine_tune", "c", 2, "faster")
    assert ledger.champion() == back
    # Who was to be beaten in each iteration: the last entry that stands before it.
    assert [[c.key for c in ledger.champions() if c.since < n][-1] for n in (1, 2, 3)] == ["a", "b", "b"]
    with pytest.raises(Failure, match="champion already"):
        ledger.roll_back(back, "again")
    ledger.roll_back(ledger.champions()[2], "it was the gripper")
    ledger.roll_back(ledger.champions()[0], "no")
    assert [(c.key, c.origin) for c in ledger.champions()][-2:] == [("c", "iteration 2"), ("a", "base")]
    (workspace.steps / "fine_tune" / "b").rmdir()
    with pytest.raises(Failure, match="cannot go back to fine_tune"):
        ledger.roll_back(back, "gone")


def test_a_ledger_from_before_rollbacks_is_read_and_taken_over(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.ledger_path)) as database:
        database.executescript("""
            CREATE TABLE iterations (
                n INTEGER PRIMARY KEY, candidate TEXT NOT NULL UNIQUE, recorded TEXT NOT NULL,
                summary TEXT NOT NULL
            );
            CREATE TABLE champions (
                id INTEGER PRIMARY KEY, iteration INTEGER NOT NULL, step TEXT NOT NULL, key TEXT NOT NULL,
                reason TEXT NOT NULL, promoted TEXT NOT NULL, UNIQUE (iteration, step, key)
            );
            CREATE TRIGGER champions_are_not_changed BEFORE UPDATE ON champions
            BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;
            CREATE TRIGGER champions_are_not_removed BEFORE DELETE ON champions
            BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;
            INSERT INTO iterations VALUES (1, 'b', '2026-01-01T00:00:00+00:00', '{}');
            INSERT INTO champions VALUES (1, 0, 'fine_tune', 'a', 'base', '2026-01-01T00:00:00+00:00');
            INSERT INTO champions VALUES (2, 1, 'fine_tune', 'b', 'faster', '2026-01-02T00:00:00+00:00');
        """)
    ledger = Ledger(workspace)
    before = ledger.champions()
    assert [(c.key, c.kind, c.since) for c in before] == [("a", "promotion", 0), ("b", "promotion", 1)]
    assert not ledger.promote("fine_tune", "b", 1, "faster")
    assert ledger.champions() == before
    ledger.roll_back(before[0], "too fast")
    assert [c.key for c in ledger.champions()] == ["a", "b", "a"]
    with closing(sqlite3.connect(workspace.ledger_path)) as database:
        for change in ("DELETE FROM champions", "UPDATE champions SET reason = 'other'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(change)
        assert database.execute(
            "SELECT COUNT(*) FROM sqlite_master WHERE name LIKE '%before%'"
        ).fetchone() == (0,)


@settings(max_examples=10, deadline=None)
@given(keys=st.lists(st.sampled_from("abc"), max_size=8))
def test_the_champion_is_the_last_new_promotion(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
) -> None:
    workspace = Workspace(tmp_path_factory.mktemp("ledger"))
    ledger = Ledger(workspace)
    for iteration, key in enumerate(keys):
        (workspace.steps / "fine_tune" / key).mkdir(parents=True, exist_ok=True)
        assert ledger.promote("fine_tune", key, iteration, "")
        assert not ledger.promote("fine_tune", key, iteration, "")
    champion = ledger.champion()
    assert (champion.key if champion else None) == (keys[-1] if keys else None)


def test_a_driver_killed_while_writing_leaves_a_ledger_that_opens(workspace: Workspace) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from pipeline.workspace import Workspace
        from workflows.ledger import Ledger
        ledger = Ledger(Workspace(Path(sys.argv[1])))
        for n in range(1, 100_000):
            ledger.record_iteration(n, f"candidate {n}", {"n": n})
            print(n, flush=True)
    """)
    driver = subprocess.Popen(
        [sys.executable, "-c", script, str(workspace.root)], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    said = [driver.stdout.readline() for _ in range(5)]
    os.kill(driver.pid, signal.SIGKILL)
    rest, _ = driver.communicate()
    finished = int("".join([*said, rest]).split()[-1])
    iterations = Ledger(workspace).iterations()
    assert [i.n for i in iterations] == list(range(1, len(iterations) + 1))
    assert len(iterations) - finished in (0, 1)


def test_the_meter_counts_child_processes() -> None:
    """In a small process of its own: what a large one shares with others comes and goes with them."""
    megabytes = 300
    script = textwrap.dedent(f"""
        import subprocess, sys
        from workflows.memory_meter import MemoryMeter, tree_bytes
        child = "b = bytearray(b'x') * ({megabytes} << 20); print(1, flush=True); input()"
        before = tree_bytes()
        with MemoryMeter(interval_s=0.05) as meter:
            holder = subprocess.Popen([sys.executable, "-c", child], stdin=-1, stdout=-1)
            holder.stdout.readline()
            meter.sample()
            holder.communicate(b"done")
        print(meter.peak_bytes - before, tree_bytes() - before)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    peak, afterwards = map(int, done.stdout.split())
    # What this process shared before with nobody it shares with whoever starts meanwhile, so it seems less.
    assert 0.6 * megabytes * 2**20 < peak < 1.5 * megabytes * 2**20
    assert afterwards < 0.1 * megabytes * 2**20


class SmallDisk(sqlite3.Connection):
    """A connection whose database may not grow: what SQLite does then is what it does on a full disk."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        (pages,) = self.execute("PRAGMA page_count").fetchone()
        self.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_is_said_and_nothing_is_noted(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(workspace)
    ledger.record_iteration(1, "a", {})
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=SmallDisk))
    with pytest.raises(Failure, match=r"runs\.sqlite has no room left on its disk, nothing .* free some"):
        ledger.record_iteration(2, "b", {"long": "x" * 9000})
    assert [iteration.n for iteration in ledger.iterations()] == [1]


@pytest.mark.parametrize("damage", [b"garbage" * 1000, None])
def test_a_damaged_ledger_is_named_with_what_to_do(workspace: Workspace, damage: bytes | None) -> None:
    ledger = Ledger(workspace)
    ledger.set_base("fine_tune", "a", "demonstrations")
    # Garbage, or the file cut short, as after a copy that was broken off.
    whole = workspace.ledger_path.read_bytes()
    workspace.ledger_path.write_bytes(damage or whole[: len(whole) // 2])
    for use in (ledger.champions, lambda: ledger.set_base("fine_tune", "b", "again")):
        with pytest.raises(InputError, match=r"runs\.sqlite is damaged \(.*put a copy of it in its place"):
            use()

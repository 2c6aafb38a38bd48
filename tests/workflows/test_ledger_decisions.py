"""What was decided is noted once, whole, and stands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.errors import Failure
from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.step_store import StepResult


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with three published steps, ``fine_tune/a`` to ``c``."""
    for key in "abc":
        (tmp_path / "steps" / "fine_tune" / key).mkdir(parents=True)
    return Workspace(tmp_path)


def step_result(workspace: Workspace, key: str) -> StepResult:
    """The published step of that key."""
    return StepResult("fine_tune", key, workspace.steps / "fine_tune" / key, {"seconds": 1.0, "result": None})


def test_the_first_decision_about_a_candidate_stands(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    ledger.set_base("fine_tune", "a", "demonstrations")
    b, c = step_result(workspace, "b"), step_result(workspace, "c")
    ledger.decide(1, b, {"promoted": False, "reason": "kept"}, [b])
    ledger.decide(2, c, {"promoted": True, "reason": "faster"}, [c])
    before = workspace.ledger_path.read_bytes()
    # Asked again with more starts, another bound or other code: it never met the champion of iteration 2.
    ledger.decide(1, b, {"promoted": True, "reason": "faster after all"}, [b, c])
    ledger.decide(2, c, {"promoted": False, "reason": "not after all"}, [b, c])
    assert workspace.ledger_path.read_bytes() == before
    assert [(one.iteration, one.key) for one in ledger.champions()] == [(0, "a"), (2, "c")]
    with pytest.raises(Failure, match="iteration 1 has"):
        ledger.decide(3, b, {"promoted": True, "reason": ""}, [])
    with pytest.raises(Failure, match="cannot promote fine_tune"):
        ledger.decide(3, step_result(workspace, "missing"), {"promoted": True, "reason": ""}, [])
    assert workspace.ledger_path.read_bytes() == before


def test_a_driver_killed_while_deciding_leaves_all_of_it_or_nothing(workspace: Workspace) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from pipeline.workspace import Workspace
        from workflows.ledger import Ledger
        from workflows.step_store import StepResult
        workspace = Workspace(Path(sys.argv[1]))
        ledger = Ledger(workspace)
        for n in range(1, 100_000):
            path = workspace.steps / "fine_tune" / str(n)
            path.mkdir()
            made = StepResult("fine_tune", str(n), path, {"seconds": 1.0, "result": None})
            ledger.decide(n, made, {"promoted": True, "reason": "faster"}, [made])
            print(n, flush=True)
    """)
    driver = subprocess.Popen(
        [sys.executable, "-c", script, str(workspace.root)], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    for _ in range(5):
        driver.stdout.readline()
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    ledger = Ledger(workspace)
    numbers = [one.n for one in ledger.iterations()]
    assert len(numbers) >= 5 and [one.iteration for one in ledger.champions()] == numbers
    assert all(ledger.steps(n) == [("fine_tune", str(n), 1.0)] for n in numbers)

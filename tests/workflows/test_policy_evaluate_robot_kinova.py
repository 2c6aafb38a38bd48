"""``recap policy evaluate --robot`` on the Kinova: its driver process and its wire, on a simulated arm."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import pytest
from PIL import Image

from pipeline.workspace import Workspace
from tests.collectors.kinova_arms import stand_in_arm
from tests.kortex_stand_in.simulated_arm import SimulatedArm
from tests.tiny_checkpoint import save_tiny_checkpoint
from tests.workflows.test_policy_evaluate_robot import (
    ENTER,
    LAST,
    Script,
    Terminal,
    attempt,
    keyboard,
    run,
)
from workflows.ledger import Ledger
from workflows.policy_evaluation_plan import read_plan
from workflows.policy_evaluation_runs import runs_of

__all__ = ["keyboard", "stand_in_arm"]  # fixtures

KEY = "0123456789abcdef"


@pytest.fixture
def lab(tmp_path: Path, arm: SimulatedArm) -> Workspace:
    """With that arm, two cameras, and a champion in ``steps/train_policy``."""
    lab = Workspace(tmp_path / "lab").create()
    lab.config_path.write_text(
        f'[robot]\ntype = "kinova_gen3"\n[robot.options]\nip = "{arm.address}"\n'
        f"tcp_port = {arm.tcp_port}\nudp_port = {arm.udp_port}\nstop_after_s = 4.0\n"
        + "".join(
            f'[cameras.{name}]\ntype = "simulated_camera"\noptions = {{ width = 96, height = 96 }}\n'
            for name in ("table", "wrist")
        )
        + '[operator]\ntype = "keyboard"\n'
    )
    save_tiny_checkpoint(lab.steps / "train_policy" / KEY / "checkpoint")
    Ledger(lab).promote("train_policy", KEY, 1, "promoted: faster")
    return lab


def test_faults_and_ctrl_c_in_mid_motion_leave_the_arm_still_and_the_evaluation_whole(
    monkeypatch: pytest.MonkeyPatch, keyboard: Terminal, lab: Workspace, arm: SimulatedArm, tmp_path: Path
) -> None:
    """A fault in the first attempt, Ctrl-C in the third; then the same command goes on to table and film."""
    film = tmp_path / "film.gif"
    champion = lab.steps / "train_policy" / KEY
    new = save_tiny_checkpoint(tmp_path / "new", width=24)
    words = [str(champion), str(new), "--name", "pair", "--starts", "2", "--film", str(film)]

    def once_it_moves(disturb: object) -> None:
        assert callable(disturb) and arm.wait_until_moving()
        disturb()

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    begun: Script = [
        (ENTER, b"\r"),
        ("running:", lambda: once_it_moves(arm.raise_fault)),
        ("how did it end?", b"\r"),
        ("clear its fault first", b"f"),
        ("failure", b"c"),
        ("takes commands again", b"\r"),
        ("running:", b"s"),
        (ENTER, b"\r"),
        ("running:", lambda: once_it_moves(interrupt)),
    ]
    status, said = run(monkeypatch, keyboard, lab, begun, *words)
    assert status == 130 and arm.wait_until_still() and arm.session_count == 0
    assert "2 of 4 attempts done; figures come when all are" in said and "champion" not in said
    assert f"--film {film}" in said, "what is to be typed next has all that was wanted"
    (lab.steps / "another" / "fedcba9876543210").mkdir(parents=True)
    Ledger(lab).promote("another", "fedcba9876543210", 2, "promoted: faster")
    rest = [*attempt(b"s"), *attempt(b"f"), LAST]
    status, said = run(monkeypatch, keyboard, lab, rest, "--name", "pair", "--film", str(film))
    assert status == 0 and "2 of 4 attempts to go" in said and "start 2 of 2, first of two, again" in said
    plan = read_plan(lab, "pair")
    assert plan is not None
    runs = runs_of(lab, plan)
    assert [run.outcome for run in runs] == ["failure", "success", "exclude", "success", "failure"]
    assert [run.attempt for run in runs] == [plan.attempts[i] for i in (0, 1, 2, 2, 3)]
    assert "in fault" in str(runs[0].entry.info.extra["ended"])
    assert "A champion of then (gen3_vla train_policy/01234567): asked for positive" in said
    for number, name in enumerate(("A champion of then (gen3_vla train_policy/01234567)", "B gen3_vla new")):
        successes = sum(run.outcome == "success" for run in runs if run.attempt.policy == number)
        assert re.search(rf"^{re.escape(name)} +2 +{50 * successes} %", said, re.MULTILINE)
    assert "judged by ana (4)" in said
    with Image.open(film) as picture:
        assert getattr(picture, "n_frames", 1) > 1
    assert arm.wait_until_still() and arm.session_count == 0

"""``recap policy evaluate --robot``: a person at a real keyboard judges two policies on the simulated arm."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.collectors.terminal import Terminal, open_terminal
from tests.pipeline.policy_serving import Weighing, serving
from tests.tiny_checkpoint import save_tiny_checkpoint
from workflows.cli import main
from workflows.comparison import wilson_interval
from workflows.policy_evaluation_plan import read_plan
from workflows.policy_evaluation_runs import runs_of
from workflows.recorded_evaluation import recorded_policies

TASK = "pick up the red cube"
PATIENCE_S = 60.0
ENTER = "then ENTER"
DONE = "all attempts are done"
UP = b"\x1b[A"  # the arrow: forward
Script = list[tuple[str, bytes | Callable[[], object]]]
LAST: tuple[str, bytes] = (DONE, b"\r")


class Screen(io.StringIO):
    """What a program prints, for a person who reads on from where they were."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__()
        self.read_so_far = 0

    def wait_for(self, words: str) -> bool:
        """Reads on up to ``words``; whether they came."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = self.getvalue().find(words, self.read_so_far)
            if found >= 0:
                self.read_so_far = found + len(words)
                return True
            time.sleep(0.01)
        return False


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for terminal in open_terminal():
        with os.fdopen(os.dup(terminal.fd)) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            yield terminal


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return save_tiny_checkpoint(folder / "old"), save_tiny_checkpoint(folder / "new", width=24)


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    lab = Workspace(tmp_path / "lab").create()
    lab.config_path.write_text('[robot]\ntype = "simulated_gen3"\noptions = { image_size = 32 }\n')
    return lab


def evaluate(lab: Workspace, *words: str) -> int:
    return main(["policy", "evaluate", "--workspace", str(lab.root), "--robot", *words])


def run(
    monkeypatch: pytest.MonkeyPatch, keyboard: Terminal, lab: Workspace, script: Script, *words: str
) -> tuple[int, str]:
    """The command in this process, with a person who acts by the script: what they wait for, key or deed."""
    screen, answered = Screen(), threading.Event()

    def person() -> None:
        for awaited, key in script:
            if not screen.wait_for(awaited):
                break
            time.sleep(0.15)
            if callable(key):
                key()
            else:
                keyboard.type(key)
        else:
            answered.set()

    monkeypatch.setattr(sys, "stdout", screen)
    thread = threading.Thread(target=person)
    thread.start()
    status = evaluate(lab, *words, "--rate", "20", "--person", "ana", "--task", TASK)
    thread.join(PATIENCE_S)
    assert answered.is_set(), screen.getvalue()
    return status, screen.getvalue()


def attempt(key: bytes) -> Script:
    return [(ENTER, b"\r"), ("running:", key)]


def test_two_policies_are_judged_blindly_and_compared(
    monkeypatch: pytest.MonkeyPatch,
    keyboard: Terminal,
    lab: Workspace,
    checkpoints: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = map(str, checkpoints)
    words = [old, new, "--name", "pairs", "--starts", "2", "--max-seconds", "60", "--operator", "none"]
    script = [*attempt(b"s"), *attempt(b"d"), *attempt(b"f"), (ENTER, b"q")]
    status, said = run(monkeypatch, keyboard, lab, script, *words)
    assert status == 0
    assert f"start 1 of 2, first of two: {TASK}; lay out the scene as for start 1, then ENTER" in said
    assert f"start 1 of 2, second of two: {TASK}; put everything back as it was, then ENTER" in said
    assert f"start 1 of 2, second of two, again: {TASK}; put everything back as it was, then ENTER" in said
    assert "gen3_vla" not in said and "per hour" not in said, "the person is blind, also in between"
    assert "2 of 4 attempts done; figures come when all are" in said
    go_on = "recap policy evaluate --robot --name pairs --operator none --person ana --rate 20 --workspace"
    assert f"2 attempts left, go on with: {go_on}" in said
    assert "NOBODY CAN TAKE OVER (SPACE stops the arm)" in said
    # Space is the emergency stop: the person says afterwards how it ended, and nothing goes on before.
    stopped = [(ENTER, b"\r"), ("running:", b" "), ("how did it end?", b"c\r"), ("how did it end?", b"f")]
    film = tmp_path / "film.gif"
    status, said = run(
        monkeypatch, keyboard, lab, [*stopped, *attempt(b"s"), LAST], "--name", "pairs", "--film", str(film)
    )
    assert status == 0
    plan = read_plan(lab, "pairs")
    assert plan is not None
    runs = runs_of(lab, plan)
    assert [run.outcome for run in runs] == ["success", "exclude", "failure", "failure", "success"]
    assert [run.attempt for run in runs] == [plan.attempts[i] for i in (0, 1, 1, 2, 3)]
    assert {run.annotator for run in runs} == {"ana"} and {run.entry.info.operator for run in runs} == {"ana"}
    for one in runs:
        facts = one.entry.info.extra["evaluation"]
        policy = plan.policies[one.attempt.policy]
        assert one.entry.info.policy_checkpoint == policy.recorded == (old, new)[one.attempt.policy]
        assert (facts["start"], facts["sha256"]) == (one.attempt.start, policy.digest)
    with LabelStore(lab.labels_path) as store:
        assert {label.outcome for label in store.current().values()} == {"success", "failure", "exclude"}
    assert "1 emergency stop\n" in said
    assert "judged by ana (4)" in said and "left, go on with" not in said and "against" in said
    with Image.open(film) as picture:
        assert getattr(picture, "n_frames", 1) > 1
    monkeypatch.undo()
    assert evaluate(lab, old, "--name", "pairs") == 2
    assert "--name pairs is an evaluation with 2 policies, not 1" in capsys.readouterr().err
    assert evaluate(lab, "--name", "pairs", "--starts", "3") == 2
    assert "starts 2, not 3: go on with it, or choose another name" in capsys.readouterr().err


def test_an_evaluation_whose_last_attempt_was_stopped_is_finished_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
    keyboard: Terminal,
    lab: Workspace,
    checkpoints: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    film = tmp_path / "film.gif"
    words = [*map(str, checkpoints), "--name", "stopped", "--starts", "1", "--film", str(film)]
    stopped: Script = [(ENTER, b"\r"), ("running:", b" "), ("how did it end?", b"f")]
    status, said = run(monkeypatch, keyboard, lab, [*attempt(b"s"), *stopped, (DONE, b"q")], *words)
    assert status == 0 and film.exists() and ", 1 start\n" in said
    assert "what you say is kept under the name ana\n" in said
    assert "put it right in the labelling app" in said and "left, go on with" not in said


def test_figures_are_those_of_the_recorded_evaluation(
    monkeypatch: pytest.MonkeyPatch,
    keyboard: Terminal,
    lab: Workspace,
    checkpoints: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Time runs out in the first attempt; a held key takes over in the second; the last word counts."""
    words = [str(checkpoints[0]), "--name", "one", "--starts", "2", "--max-seconds", "2"]
    script: Script = [
        (ENTER, b"\r"),
        ("time was up: failure", b"\r"),
        ("running:", UP),
        ("YOU have taken over", b"s"),
        LAST,
    ]
    status, said = run(monkeypatch, keyboard, lab, script, *words, "--operator", "keyboard")
    assert status == 0 and "A gen3_vla old" in said and "judged by ana (1), the clock (1)\n" in said
    assert ", 2 starts\n" in said
    (whole,) = recorded_policies(lab)
    assert [(one.success, one.interventions) for one in whole.attempts] == [(False, 0), (True, 1)]
    monkeypatch.undo()
    assert evaluate(lab, "--name", "one", "--json") == 0, "nothing is left: the arm is not even looked for"
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    figures = whole.as_json()["figures"]
    assert {name: found["policies"][0][name] for name in figures} == figures
    assert found["policies"][0]["success_rate"]["high"] == wilson_interval(1, 2).high
    assert found["left"] == 0 and found["difference"] is None and found["judged_by"] == {"ana": 1}
    assert found["judged_by_clock"] == 1
    plan = read_plan(lab, "one")
    assert plan is not None
    first = runs_of(lab, plan)[0]
    with LabelStore(lab.labels_path) as store:
        store.set(first.entry.id, "failure", "ana")  # she has looked, and says the same
    assert evaluate(lab, "--name", "one", "--json") == 0
    again: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (again["judged_by"], again["judged_by_clock"]) == ({"ana": 2}, 0)


def test_a_policy_on_another_machine_is_evaluated_as_one_here(
    monkeypatch: pytest.MonkeyPatch, keyboard: Terminal, lab: Workspace
) -> None:
    with serving(Weighing("far-away")) as server:
        words = [server.url, "--name", "served", "--starts", "1"]
        status, said = run(monkeypatch, keyboard, lab, [*attempt(b"s"), LAST], *words)
    assert status == 0 and "A far-away: asked for what its server asks it for" in said
    plan = read_plan(lab, "served")
    assert plan is not None and plan.max_seconds == 60
    (run_,) = runs_of(lab, plan)
    assert run_.outcome == "success" and run_.entry.info.policy_checkpoint == "far-away"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "neither champion, base nor a checkpoint's folder"),
        ([], "there is no champion yet"),
        (["{old}", "--starts", "0"], "'--starts'"),
        (["{old}", "--task", "stack the plates"], "unknown task"),
        (["{old}", "--name", "../x"], "letters, digits"),
        (["{old}", "--film", "x.gif"], "--film needs two"),
        (["{old}", "{old}"], "are the same checkpoint"),
        (["{old}", "{new}", "--film", "x.mp4"], "name a file that ends in .gif"),
        (["{old}", "--operator", "gampad"], "did you mean"),
        (["{old}", "--rate", "0"], "rate"),
        (["{old}", "--operator", "none"], "nobody could say what came of it"),
        (["{empty}"], "empty"),
        (["{old}", "--person", ""], "--person is empty"),
        (["{old}", "--marks"], "--marks is for --from-episodes"),
    ],
)
def test_what_cannot_be_run_is_one_line_before_the_arm_moves(
    lab: Workspace,
    checkpoints: tuple[Path, Path],
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    given = [word.format(old=checkpoints[0], new=checkpoints[1], empty=tmp_path / "empty") for word in words]
    assert evaluate(lab, *given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert lab.list_episodes() == [] and not list(lab.root.glob("evaluations/*.json"))


def test_an_unknown_robot_is_refused(
    lab: Workspace, checkpoints: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lab.config_path.write_text('[robot]\ntype = "kinova_gen4"\n')
    assert evaluate(lab, str(checkpoints[0]), "--operator", "none", "--task", TASK) == 2
    assert "unknown type 'kinova_gen4'" in capsys.readouterr().err


def test_options_of_the_robot_need_the_robot(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "evaluate", "--workspace", str(lab.root), "--name", "x"]) == 2
    assert "--name is for --robot" in capsys.readouterr().err

"""Options for a person at the arm are refused where the hands are scripted, which would not heed them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from workflows.cli import main

TASK = "pick up the red cube"
PERSON = "{} is for a person at the arm: leave it out, or choose --operator keyboard"


@pytest.mark.parametrize("command", ["record", "rollout"])
@pytest.mark.parametrize(
    "words", [["--person", "ana"], ["--max-seconds", "300"], ["--auto-start", "0"], ["--view"]]
)
def test_scripted_hands_take_no_options_of_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, words: list[str]
) -> None:
    lab = Workspace(tmp_path).create()
    assert main([command, "--workspace", str(lab.root), "--task", TASK, *words]) == 2
    said = capsys.readouterr().err
    assert PERSON.format(words[0]) in said and said.count("\n") == 1
    assert lab.list_episodes() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ask", "negative"], "--ask negative: the scripted supervisor takes none; add --operator none"),
        (["--no-supervised", "--operator", "none"], "--no-supervised is for the scripted supervisor"),
    ],
)
def test_a_rollout_takes_no_option_that_would_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    Workspace(tmp_path).create()
    assert main(["rollout", "--workspace", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1

"""``recap label set`` and the marks of an earlier label: kept, replaced, and told."""

from __future__ import annotations

import pytest

from pipeline.labels import Mark
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from tests.workflows.test_label_command import Recap
from workflows.cli import main


@pytest.fixture
def recap(workspace: Workspace, make_episode: EpisodeMaker, capsys: pytest.CaptureFixture[str]) -> Recap:
    """Runs ``recap label …`` in a workspace of one episode of 12 frames."""
    make_episode()
    return Recap(workspace, capsys)


def test_a_later_label_keeps_the_annotators_own_marks_unless_told_otherwise(
    recap: Recap, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["set", "episode-000", "success", "--annotator", "ana"]
    reach = ["--mark", "segment:0-5:reach", "--mark", "success:11"]
    recap(*words, *reach)
    status, said, _ = recap(*words, "--note", "hi")
    assert (status, said.splitlines()[0]) == (0, "episode-000: success by ana, keeps 2 marks")
    assert said.splitlines()[1:] == ["  segment:0-5:reach", "  success:11"]
    kept = [Mark("segment", 0, 5, "reach"), Mark("success", 11, 11)]
    with recap.store() as store:
        assert store.marks("episode-000") == kept and store.current()["episode-000"].note == "hi"
    assert main(["episodes", "show", "episode-000", "--workspace", str(recap.lab.root)]) == 0
    assert capsys.readouterr().out.count("segment:0-5:reach") == 2, "of both labels"
    assert "replaces 2 marks" in recap(*words, "--mark", "failure:3")[1]
    assert "replaces 1 mark\n" in recap(*words, "--no-marks")[1]
    with recap.store() as store:
        assert store.marks("episode-000") == []
    recap.refuses("give one of them", *words, "--no-marks", "--mark", "failure:3")
    recap(*words, *reach)
    other = recap(*words[:-1], "bo")[1]
    assert other == "episode-000: success by bo, replaces 2 marks of ana\n"


def test_segments_of_other_names_that_overlap_are_one_warning(recap: Recap) -> None:
    words = ["set", "episode-000", "success", "--annotator", "ana", "--mark", "segment:0-5:reach"]
    status, _, error = recap(*words, "--mark", "segment:4-8:grasp", "--mark", "segment:3-9:lift")
    assert status == 0 and error.count("\n") == 1 and "overlap" in error
    assert recap(*words, "--mark", "segment:4-8:reach", "--mark", "segment:8-9:lift")[2] == ""

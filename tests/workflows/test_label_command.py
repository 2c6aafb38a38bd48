"""``recap label`` from the shell: what is stored, written and read again, and every mistake in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.label_snapshot import freeze
from pipeline.labels import LabelStore, Mark
from pipeline.site_config import LabelsSection
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from workflows.cli import main

RULES = "[labels]\ndouble_share = 1.0\ngold_share = 0.0\nreviewers = ['rita']\n"


@pytest.fixture
def lab(workspace: Workspace, make_episode: EpisodeMaker) -> Workspace:
    """Four episodes of 12 frames, two tasks, every one to be labelled twice."""
    for task in ("pick up the red cube",) * 3 + ("open the drawer",):
        make_episode(task=task)
    workspace.config_path.write_text(RULES)
    return workspace


@pytest.fixture
def recap(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> Recap:
    """Runs ``recap label …`` in the workspace; returns status, output and error."""
    return Recap(lab, capsys)


class Recap:
    """See the fixture."""

    def __init__(self, lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        self.lab = lab
        self.capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        """Runs the command."""
        status = main(["label", *(str(word) for word in words), "--workspace", str(self.lab.root)])
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    def refuses(self, message: str, *words: object) -> str:
        """Runs a command that must end with status 2 and one line; returns its output."""
        status, out, error = self(*words)
        assert (status, error.count("\n")) == (2, 1), error
        assert message in error
        return out

    def store(self) -> LabelStore:
        """The workspace's store."""
        return LabelStore(self.lab.labels_path, rules=LabelsSection(1.0, 0.0, ("rita",)))


def dispute(recap: Recap, episode: str = "episode-000") -> None:
    """Two annotators differ on it."""
    recap("set", "episode-003", "success", "--annotator", "ana")  # so that the store knows the episodes
    recap("undo", "--annotator", "ana")
    with recap.store() as store:
        for name, outcome in (("ana", "success"), ("bo", "failure")):
            lease = store.claim_episode(episode, name)
            assert lease is not None
            store.record(lease, outcome)


def test_setting_quality_and_marks_and_undoing(recap: Recap) -> None:
    words = ["set", "episode-000", "success", "--annotator", "ana", "--quality", "clumsy"]
    marks = ["--mark", "success:11", "--mark", "segment:0-5:reach: the cube"]
    assert recap(*words, *marks) == (
        0,
        "episode-000: success by ana\n  segment:0-5:reach: the cube\n  success:11\n",
        "",
    )
    with recap.store() as store:
        assert store.marks("episode-000") == [
            Mark("segment", 0, 5, "reach: the cube"),
            Mark("success", 11, 11),
        ]
        assert store.current()["episode-000"].quality == "clumsy"
    recap.refuses("lies beyond episode-000, which has 12 frames, 0 to 11\n", *words, "--mark", "success:12")
    recap.refuses(
        "the mark segment:5-13:lift lies beyond episode-000, which has 12 frames, 0 to 11; a segment may end "
        "at 12, the first frame after it",
        *words,
        *("--mark", "segment:5-13:lift"),
    )
    recap.refuses("'win:3' is no mark", *words, "--mark", "win:3")
    recap.refuses("'success:x' is no mark", *words, "--mark", "success:x")
    recap.refuses("a quality is one of", *words[:-1], "superb")
    recap.refuses("there is no episode 'nope'", "set", "nope", "success", "--annotator", "ana")
    recap.refuses("an outcome is one of", "set", "episode-000", "good", "--annotator", "ana")
    assert recap("undo", "--annotator", "ana")[1] == "episode-000: unlabelled again\n"
    recap.refuses("ana has given no label", "undo", "--annotator", "ana")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_exported_can_be_imported_elsewhere_and_twice_changes_nothing(
    recap: Recap, tmp_path: Path, suffix: str
) -> None:
    note = 'she said "no",\nthen; yes – да'
    recap("set", "episode-000", "success", "--annotator", "ana", "--note", note, "--mark", "failure:3")
    recap("set", "episode-003", "exclude", "--annotator", "bo", "--quality", "unsafe")
    file = tmp_path / f"labels.{suffix}"
    assert recap("export", "--out", file) == (0, f"2 labels in {file}\n", "")
    with recap.store() as store:
        before = store.current()
    for leftover in recap.lab.root.glob("labels.sqlite*"):
        leftover.unlink()
    assert recap("import", file, "--dry-run")[1].startswith("2 labels would be imported (0 replace others)")
    with recap.store() as store:
        assert store.current() == {}
    assert recap("import", file)[1] == "2 labels imported (0 replace others), 0 were there, 0 bad lines\n"
    with recap.store() as store:
        after = store.current()
        assert {i: (x.outcome, x.annotator, x.note, x.quality, x.marks) for i, x in after.items()} == {
            i: (x.outcome, x.annotator, x.note, x.quality, x.marks) for i, x in before.items()
        }
    assert recap("import", file)[1] == "0 labels imported (0 replace others), 2 were there, 0 bad lines\n"
    recap("set", "episode-000", "failure", "--annotator", "cy")
    assert "0 labels imported" in recap("import", file)[1], "what was replaced since stays replaced"
    with recap.store() as store:
        assert store.current()["episode-000"].annotator == "cy"


def test_the_history_holds_all_that_was_said(recap: Recap, tmp_path: Path) -> None:
    recap("set", "episode-000", "success", "--annotator", "ana")
    recap("set", "episode-000", "failure", "--annotator", "bo", "--mark", "failure:2")
    recap("undo", "--annotator", "bo")
    recap("export", "--out", tmp_path / "h.csv", "--history")
    recap("export", "--out", tmp_path / "h.parquet", "--history")
    with (tmp_path / "h.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["event_id"], r["outcome"], r["undoes"], r["undone"], r["holds"]) for r in rows] == [
        ("1", "success", "", "false", "true"),
        ("2", "failure", "", "true", "false"),
        ("3", "success", "2", "false", "false"),
    ]
    assert rows[1]["marks"] == '[{"kind": "failure", "start_frame": 2, "end_frame": 2, "text": ""}]'
    table = pq.read_table(tmp_path / "h.parquet").to_pylist()
    assert [list(row) for row in table] == [list(rows[0])] * 3
    assert table[1]["marks"] == [{"kind": "failure", "start_frame": 2, "end_frame": 2, "text": ""}]
    assert [row["holds"] for row in table] == [True, False, False]
    assert {row["task"] for row in table} == {"pick up the red cube"}


def test_places_that_cannot_be_written_are_named(recap: Recap, tmp_path: Path) -> None:
    recap.refuses("must end in .csv or .parquet", "export", "--out", tmp_path / "labels.xlsx")
    (tmp_path / "folder.csv").mkdir()
    recap.refuses("it is a folder", "export", "--out", tmp_path / "folder.csv")
    recap.refuses("the workspace's own folder", "export", "--out", recap.lab.episodes / "labels.csv")
    (tmp_path / "file").write_text("")
    recap.refuses("it is a file", "export", "--out", tmp_path / "file" / "labels.csv")


def test_bad_lines_are_named_and_nothing_is_imported(recap: Recap, tmp_path: Path) -> None:
    dispute(recap, "episode-002")
    file = tmp_path / "mine.csv"
    file.write_text(
        "\ufeffepisode_id,outcome,annotator,quality,marks,note\n"
        'episode-000,success,ana,,,"two\nlines"\n'
        "episode-001,great,ana,,,\n"
        "episode-999,success,ana,,,\n"
        "episode-002,success,ana,,,fine\n"
        "episode-003,success,,,,\n"
        "episode-003,success,ana,so-so,,\n"
        "episode-003,success,ana,,not json,\n"
        'episode-003,success,ana,,"[{""kind"": ""success"", ""start_frame"": 40, ""end_frame"": 40}]",\n'
    )
    out = recap.refuses("nothing imported: 7 of 8 lines", "import", file)
    lines = out.splitlines()
    for line, (where, words) in zip(
        lines,
        [
            (4, "an outcome is one of"),
            (5, "no episode 'episode-999'"),
            (6, "is disputed"),
            (7, "does not say who labelled"),
            (8, "a quality is one of"),
            (9, "marks are a JSON list"),
            (10, "beyond the 12 frames"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{file}, line {where}: ") and words in line
    with recap.store() as store:
        assert store.current() == {}
    assert recap("import", file, "--partial")[1].endswith(
        "1 labels imported (0 replace others), 0 were there, 7 bad lines\n"
    )
    with recap.store() as store:
        assert store.current()["episode-000"].note == "two\nlines"


def test_rows_that_nobody_labelled_are_no_bad_lines(recap: Recap, tmp_path: Path) -> None:
    """As in frozen labels, whose rows are all episodes."""
    recap("set", "episode-000", "success", "--annotator", "ana")
    with recap.store() as store:
        frozen = freeze(store, recap.lab.list_episodes(), tmp_path)
    for leftover in recap.lab.root.glob("labels.sqlite*"):
        leftover.unlink()
    status, out, _ = recap("import", frozen.path)
    others = len(frozen.rows) - 1
    assert others > 1 and status == 0
    assert out == (
        f"{others} unlabelled: nothing to import\n"
        "1 labels imported (0 replace others), 0 were there, 0 bad lines\n"
    )
    with recap.store() as store:
        assert list(store.current()) == ["episode-000"]
    # Who labelled, and not what, is a line that somebody has to look at.
    file = tmp_path / "mine.csv"
    file.write_text("episode_id,outcome,annotator\nepisode-001,,ana\n")
    assert "line 2: an outcome is one of" in recap.refuses("1 of 1 lines", "import", file)


def test_files_that_are_no_labels(recap: Recap, tmp_path: Path) -> None:
    recap.refuses("must end in .csv or .parquet", "import", tmp_path / "labels.json")
    recap.refuses("cannot read", "import", tmp_path / "none.csv")
    recap.refuses("cannot read", "import", tmp_path / "none.parquet")
    (tmp_path / "a.csv").write_text("episode,outcome\n1,success\n")
    recap.refuses("lacks the column 'episode_id'", "import", tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    recap.refuses("cannot read", "import", tmp_path / "b.csv")
    (tmp_path / "empty.csv").write_text("")
    recap.refuses("lacks the column", "import", tmp_path / "empty.csv")
    (tmp_path / "twice.csv").write_text("episode_id,outcome\nepisode-000,success\nepisode-000,failure\n")
    out = recap.refuses("2 of 2 lines", "import", tmp_path / "twice.csv", "--annotator", "ana")
    assert out.count("is named 2 times") == 2
    pq.write_table(pa.table({"episode_id": [1], "outcome": ["success"]}), tmp_path / "c.parquet")
    assert "row 1: episode_id must be text" in recap.refuses("1 of 1", "import", tmp_path / "c.parquet")


def test_other_commands_say_that_an_episode_is_disputed(
    lab: Workspace, recap: Recap, capsys: pytest.CaptureFixture[str]
) -> None:
    dispute(recap, "episode-002")
    place = ["--workspace", str(lab.root)]
    assert main(["episodes", "list", "--outcome", "disputed", *place]) == 0
    assert "episode-002" in capsys.readouterr().out
    assert main(["status", *place]) == 0
    out = capsys.readouterr().out
    assert "1 disputed: a reviewer decides" in out and "3 unlabelled" in out
    assert main(["episodes", "check", *place]) == 0
    assert "episode-002: annotators differ" in capsys.readouterr().out.replace("  ", " ")


def test_disputes_and_their_adjudication(recap: Recap) -> None:
    assert recap("disputes") == (0, "0 disputed episodes\n", "")
    dispute(recap)
    _, out, _ = recap("disputes")
    assert "ana: success; bo: failure" in out and out.endswith("1 disputed episode\n")
    recap.refuses("ana is no reviewer", "adjudicate", "episode-000", "success", "--reviewer", "ana")
    recap.refuses("disputed: only a reviewer", "set", "episode-000", "success", "--annotator", "ana")
    recap.refuses("not disputed but unlabelled", "adjudicate", "episode-001", "success", "--reviewer", "rita")
    words = ("adjudicate", "episode-000", "failure", "--reviewer", "rita", "--note", "beside the box")
    assert recap(*words) == (0, "episode-000: failure, adjudicated by rita\n", "")
    assert recap("disputes")[1] == "0 disputed episodes\n"
    assert recap("undo", "--annotator", "rita")[1] == "episode-000: disputed again\n"


def test_agreement_as_a_table_and_as_json(recap: Recap) -> None:
    assert "no episode was labelled by two people yet" in recap("agreement")[1]
    dispute(recap)
    with recap.store() as store:
        for name in ("ana", "bo"):
            lease = store.claim_episode("episode-003", name)
            assert lease is not None
            store.record(lease, "success")
    _, out, _ = recap("agreement")
    lines = [line.split() for line in out.splitlines() if line]
    assert ["all", "2", "1", "50%", "0.00"] in lines
    assert ["ana", "bo", "2", "1", "50%", "0.00"] in lines
    assert ["open", "the", "drawer", "1", "1", "100%", "-"] in lines
    found = json.loads(recap("agreement", "--json")[1])
    assert (found["n"], found["agreed"], found["pairs"][0]["kappa"]) == (2, 1, 0.0)


def test_gold_is_set_listed_and_taken_back(recap: Recap) -> None:
    assert recap("gold")[1] == "0 gold episodes\n"
    recap.refuses("who is", "gold", "episode-001", "success")
    recap.refuses("no reviewer", "gold", "episode-001", "success", "--reviewer", "ana")
    assert recap("gold", "episode-001", "success", "--reviewer", "rita")[1].endswith("gold by rita\n")
    assert "episode-001  success" in recap("gold")[1]
    with recap.store() as store:
        lease = store.claim_episode("episode-001", "ana")
        assert lease is not None
        store.record(lease, "success")
    assert ["ana", "1", "1", "100%"] in [line.split() for line in recap("agreement")[1].splitlines()]
    assert recap("undo", "--annotator", "rita")[1] == "episode-001: unlabelled again\n"
    assert recap("gold")[1] == "0 gold episodes\n"

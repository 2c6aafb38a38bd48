"""The command line, through its real entry point."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet

from pipeline.episode import Source
from pipeline.errors import Failure
from pipeline.labels import LabelStore
from pipeline.site_config import DefaultsSection
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from tests.workflows.sample_lab import frozen, step
from workflows.cli import COMMANDS, load_command, main
from workflows.commands.doctor import checks
from workflows.commands.doctor_check import Check
from workflows.commands.live_options import without_echo
from workflows.ledger import Ledger
from workflows.step_store import StepStore

HEAVY = ("ray", "torch", "lerobot", "streamlit", "mujoco", "pandas", "pyarrow", "matplotlib")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three episodes: a demonstration, a rollout, a corrected rollout of another task."""
    workspace = Workspace(tmp_path / "lab").create()
    make = EpisodeMaker(workspace)
    make()
    make(sources=[Source.POLICY] * 8)
    make(task="pick up the blue cube", sources=[Source.POLICY] * 4 + [Source.INTERVENTION] * 4)
    return workspace


def recap(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one command."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("words", [["--help"], ["episodes", "list"], ["status"], ["label", "--help"]])
def test_light_commands_load_no_heavy_library(workspace: Workspace, words: list[str]) -> None:
    script = (
        "import sys; from workflows.cli import main; status = main(sys.argv[1:]); "
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules]); sys.exit(status)"
    )
    option = [] if "--help" in words else ["--workspace", str(workspace.root)]
    done = subprocess.run(
        [sys.executable, "-c", script, *words, *option], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("loaded []\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_reads_or_writes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = recap(capsys, name, "--help")
    assert status == 0
    command = load_command(name)
    pages = [out]
    for subcommand in getattr(command, "commands", {}):
        pages.append(recap(capsys, name, subcommand, "--help")[1])
    for page in pages[1:] or pages:
        assert re.search(r"read|writ|append", page, re.IGNORECASE) and "--workspace DIR" in page


def test_episodes_are_listed_filtered_and_shown(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    root = workspace.root
    recap(capsys, "label", "set", "episode-001", "failure", "--annotator", "ana", "--workspace", root)
    status, out, _ = recap(capsys, "episodes", "list", "--workspace", root)
    assert status == 0 and out.endswith("3 episodes\n")
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines[1:4]] == ["episode-000", "episode-001", "episode-002"]
    assert "failure" in lines[2] and "unlabelled" in lines[1]
    _, out, _ = recap(capsys, "episodes", "list", "--task", "pick up the blue cube", "--workspace", root)
    assert out.endswith("1 episode\n") and "episode-002" in out
    _, out, _ = recap(capsys, "episodes", "list", "--outcome", "failure", "--workspace", root)
    assert "episode-001" in out and "episode-000" not in out
    _, out, _ = recap(capsys, "episodes", "show", "episode-002", "--workspace", root)
    assert "0 teleop, 4 policy, 4 intervention" in out
    _, out, _ = recap(capsys, "episodes", "show", "episode-001", "--workspace", root)
    assert "failure by ana" in out


def test_the_list_shows_what_the_operator_said_and_what_was_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = EpisodeMaker(Workspace(tmp_path / "lab").create())
    for mark, cut in (("success", False), ("failure", True), (None, True), (None, False)):
        make(operator_mark=mark, truncated=cut, sources=[Source.TELEOP] * 2)
    _, out, _ = recap(capsys, "episodes", "list", "--workspace", tmp_path / "lab")
    header, *rows = out.splitlines()[:5]
    column = slice(header.index(" mark ") + 1, header.index("frames"))
    assert [row[column].strip() for row in rows] == ["success", "failure, cut short", "cut short", "-"]
    _, out, _ = recap(capsys, "episodes", "list", "--format", "csv", "--workspace", tmp_path / "lab")
    found = [(row["mark"], row["truncated"]) for row in csv.DictReader(out.splitlines())]
    assert found == [("success", "False"), ("failure", "True"), ("", "True"), ("", "False")]


def test_what_was_taken_back_is_shown_as_such(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--annotator", "ana", "--workspace", workspace.root)
    for words in (["set", "episode-001", "success"], ["set", "episode-001", "failure"], ["undo"], ["undo"]):
        assert recap(capsys, "label", *words, *place)[0] == 0
    _, out, _ = recap(capsys, "episodes", "show", "episode-001", "--workspace", workspace.root)
    at = r"at 20\S+"
    patterns = [
        rf"label: +success by ana {at} \(taken back\)",
        rf"label: +failure by ana {at} \(taken back\)",
        rf"undo: +by ana {at}; success holds again",
        rf"undo: +by ana {at}; no outcome holds again",
    ]
    lines = [line for line in out.splitlines() if " by ana " in line]
    assert len(lines) == 4
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines, strict=True)), lines


def listed(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> list[str]:
    """The ids that ``recap episodes list`` with these options prints as CSV."""
    status, out, _ = recap(capsys, "episodes", "list", "--format", "csv", *words, "--workspace", root)
    assert status == 0
    return [row["episode"] for row in csv.DictReader(out.splitlines())]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--driver", "person"], "0"),
        (["--driver", "policy"], "1"),
        (["--driver", "corrected"], "2"),
        (["--newest"], "210"),
        (["--newest", "--limit", "1"], "2"),
        (["--oldest", "--limit", "2"], "01"),
        (["--operator", "nadia", "--robot", "simulated_gen3"], "012"),
        (["--operator", "ana"], ""),
        (["--robot", "kinova_gen3"], ""),
        (["--policy", "of-a-test"], "12"),
        (["--min-seconds", "1"], "0"),
        (["--since", "2025-01-01T00:00:01"], "12"),
        (["--until", "2025-01-01T02:00:01+02:00"], "01"),
        (["--since", "2025-01-01", "--until", "2025-01-01"], "012"),
        (["--until", "2024-12-31"], ""),
        (["--outcome", "unlabelled", "--task", "pick up the red cube"], "01"),
    ],
)
def test_the_list_has_filters(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert listed(capsys, workspace.root, *words) == [f"episode-00{number}" for number in expected]


def test_the_list_as_json_has_everything(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = recap(capsys, "episodes", "list", "--format", "json", "--workspace", workspace.root)
    first, _, third = json.loads(out)
    entry = workspace.find("episode-000")
    assert (first["fingerprint"], first["file"], first["frames"]) == (entry.fingerprint, str(entry.path), 12)
    assert first["policy"] is None and third["policy"] == "checkpoint-of-a-test"
    assert third["recorded"] == "2025-01-01T00:00:02+00:00" and third["driver"] == "corrected"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "juggle"], "tasks 'pick up the blue cube', 'pick up the red cube'"),
        (["--operator", "x", "--robot", "y"], "operators 'nadia'; robots 'simulated_gen3'"),
        (["--since", "2030-01-01"], "recordings of 2025-01-01"),
        (["--min-seconds", "100"], "0.8 to 1.2 seconds"),
    ],
)
def test_a_list_without_a_match_says_what_there_is(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    status, out, _ = recap(capsys, "episodes", "list", *words, "--workspace", workspace.root)
    assert (status, out) == (0, f"0 episodes\nto choose from: {said}\n")


def test_the_list_notes_files_that_share_an_id(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    first = workspace.find("episode-000").path
    first.with_name("copy.h5").write_bytes(first.read_bytes())
    _, out, _ = recap(capsys, "episodes", "list", "--workspace", workspace.root)
    note = "note: 2 files share an id, 'episode-000': see 'recap episodes check'\n"
    assert out.endswith(f"4 episodes\n{note}")


def test_check_fails_on_a_damaged_episode_until_it_is_repaired(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--workspace", workspace.root)
    status, out, err = recap(capsys, "episodes", "check", *place)
    assert (status, err) == (0, "") and out.endswith("0 fatal, 3 warnings\n")
    workspace.find("episode-000").path.write_bytes(b"no HDF5")
    status, out, err = recap(capsys, "episodes", "check", *place)
    assert status == 1
    path = workspace.find("episode-001").path.with_name("episode-000.h5")
    assert f"fatal: {path}: it cannot be read: it is not an HDF5 file\n" in out and out.count(str(path)) == 1
    assert err.startswith("recap: error: 1 episode file must not be trained on: 'recap ")
    status, out, _ = recap(capsys, "episodes", "check", "--repair", "--dry-run", *place)
    assert status == 1 and "would be quarantined: " in out and not workspace.quarantine.exists()
    status, out, err = recap(capsys, "episodes", "check", "--repair", *place)
    assert (status, err) == (0, "") and "\n1 quarantined\nlook into " in out
    assert out.endswith("what is of no use may be deleted by hand\n")
    assert (workspace.quarantine / "episode-000.h5").read_bytes() == b"no HDF5"
    assert recap(capsys, "episodes", "check", *place)[0] == 0
    workspace.find("episode-001").path.unlink()
    assert recap(capsys, "episodes", "check", *place)[1].endswith("0 fatal, 1 warning\n")


def test_findings_of_one_kind_are_counted_unless_all_are_wanted(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    make = EpisodeMaker(workspace)
    make.made = 3
    for _ in range(7):
        make()
    place = ("--workspace", workspace.root)
    _, out, _ = recap(capsys, "episodes", "check", *place)
    unlabelled = [line for line in out.splitlines() if "no label" in line or "(unlabelled)" in line]
    assert len(unlabelled) == 5
    assert unlabelled[-1] == "warning: and 6 more of this kind (unlabelled): --verbose lists them"
    _, out, _ = recap(capsys, "episodes", "check", "--verbose", *place)
    assert out.count("it has no label") == 10


def test_show_draws_a_film_strip(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("episodes", "show", "episode-002", "--workspace", workspace.root)
    status, out, _ = recap(capsys, *words, "--png", tmp_path / "strip.png", "--frames", "4")
    assert status == 0 and "▀" not in out
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width > 4 * 150 and strip.format == "PNG"
    status, out, _ = recap(capsys, *words, "--strip")
    assert status == 0 and "not drawn" in out and "▀" not in out
    _, out, _ = recap(capsys, *words, "--strip", "--force")
    assert "▀" in out and "person corrected" in out
    status, _, err = recap(capsys, *words, "--png", tmp_path / "strip.jpg")
    assert status == 2 and "ends in .png" in err
    status, out, err = recap(capsys, *words, "--png", tmp_path / "new" / "strip.png")
    assert (status, out) == (2, "") and "there is no folder" in err and not (tmp_path / "new").exists()


def test_labels_are_set_undone_and_exported(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = ("--workspace", workspace.root)
    for episode, outcome in (
        ("episode-000", "success"),
        ("episode-001", "failure"),
        ("episode-002", "exclude"),
    ):
        assert recap(capsys, "label", "set", episode, outcome, "--annotator", "ana", *place)[0] == 0
    assert (
        recap(capsys, "label", "undo", "--annotator", "ana", *place)[1] == "episode-002: unlabelled again\n"
    )
    for name in ("labels.csv", "labels.parquet"):
        assert recap(capsys, "label", "export", "--out", tmp_path / name, *place)[0] == 0
    with (tmp_path / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["episode_id"], row["outcome"]) for row in rows] == [
        ("episode-000", "success"),
        ("episode-001", "failure"),
    ]
    table = parquet.read_table(tmp_path / "labels.parquet")
    assert table.column_names == list(rows[0])
    assert table["outcome"].to_pylist() == ["success", "failure"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["episodes", "lst"], "No such command 'lst'"),
        (["episodes", "list", "--tsk", "x"], "--tsk"),
        (["label", "set", "episode-000", "success"], "--annotator"),
        (["label", "set", "episode-000", "great", "--annotator", "ana"], "one of success, failure, exclude"),
        (["label", "set", "episode-999", "success", "--annotator", "ana"], "no episode 'episode-999'"),
        (["label", "undo", "--annotator", "nobody"], "nobody has given no label"),
        (["label", "export", "--out", "labels.txt"], ".csv or .parquet"),
        (["episodes", "show", "../../etc/passwd"], "not safe as a file name"),
        (["episodes", "list", "--since", "yesterday"], "'yesterday' is no day or time"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    status, out, err = recap(capsys, *words, "--workspace", workspace.root)
    assert (status, out) == (2, "")
    assert message in err and err.startswith("recap: error: ") and err.count("\n") == 1


def test_a_workspace_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = recap(capsys, "status", "--workspace", tmp_path / "none")
    assert status == 2 and "there is no workspace" in err
    assert not (tmp_path / "none").exists()


def test_debug_gives_the_traceback_wherever_it_stands(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.find("episode-000").path.write_bytes(b"no HDF5")
    for words in (["--debug", "episodes", "check"], ["episodes", "check", "--debug"]):
        with pytest.raises(Failure):
            recap(capsys, *words, "--workspace", workspace.root)


def test_no_command_gives_the_help_and_a_wrong_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = recap(capsys)
    assert status == 2 and all(f"  {name} " in err for name in COMMANDS)
    assert recap(capsys, "--help")[0] == 0
    assert recap(capsys, "nothing") == (
        2,
        "",
        "recap: error: No such command 'nothing'. (see 'recap --help')\n",
    )


def test_status_counts_and_says_what_to_do_next(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = ("--workspace", workspace.root)
    (tmp_path / "empty").mkdir()
    assert "next: recap demo" in recap(capsys, "status", "--workspace", tmp_path / "empty")[1]
    _, out, _ = recap(capsys, "status", *place)
    assert re.search(r"pick up the blue cube +corrected rollout +0 +0 +0 +1\n", out)
    assert re.search(r"pick up the red cube +demonstration +0 +0 +0 +1\n", out)
    assert "champion: none yet" in out and "next: recap label" in out
    assert "waiting for people: 3 episodes to label" in out
    with LabelStore(workspace.labels_path) as store:
        store.sync((entry.id, entry.info.task) for entry in workspace.list_episodes())
        for number in range(3):
            store.set(f"episode-00{number}", "success", "ana")
    assert "next: recap improve" in recap(capsys, "status", *place)[1]
    ledger = Ledger(workspace)
    before = step("train_base", 1, snapshot=frozen(workspace))
    made = step("fine_tune_recap", 1, snapshot=frozen(workspace))
    store_of_steps = StepStore(workspace.steps)
    store_of_steps.execute(store_of_steps.call(before), lambda *_: None)
    ledger.set_base(before.name, before.key, "trained on every demonstration")
    store_of_steps.execute(store_of_steps.call(made), lambda *_: None)
    ledger.record_iteration(1, made.key, {"reason": "promoted: faster"})
    ledger.promote(made.name, made.key, 1, "faster by 12 an hour")
    _, out, _ = recap(capsys, "status", *place)
    assert "champion: iteration 1" in out and "faster by 12 an hour" in out and "next: recap rollout" in out


def test_doctor_names_what_is_missing_and_what_to_do(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.config_path.write_text("[robot]\ntyp = 'kinova_gen3'\n")
    status, out, err = recap(capsys, "doctor", "--workspace", workspace.root)
    assert status == 1 and err == "recap: error: 1 thing missing: see above\n"
    lines = {line[8:].split(":")[0]: line for line in out.splitlines()}
    assert lines["Python"].startswith("ok") and lines["recap.toml"].startswith("missing")
    assert all("->" in line for line in lines.values() if not line.startswith("ok"))


def test_label_serves_the_app_until_it_is_stopped(workspace: Workspace) -> None:
    command = ["label", "--no-browser", "--port", "18573", "--workspace", str(workspace.root)]
    process = subprocess.Popen(
        [sys.executable, "-m", "workflows.cli", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen("http://127.0.0.1:18573/_stcore/health", timeout=1) as answer:
                    assert answer.read() == b"ok"
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
    finally:
        # As Ctrl-C in a terminal: the whole group gets it.
        subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=False)
    assert process.wait(20) == 0


def test_what_is_no_workspace_is_said_to_be_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "notes.csv"
    file.write_text("1,2")
    for words in (["status"], ["demo"], ["record", "--task", "pick up the red cube"]):
        status, _, error = recap(capsys, *words, "--workspace", file)
        assert status == 2 and "is a file" in error
    status, _, error = recap(capsys, "status", "--workspace", tmp_path)
    assert status == 2 and "is not a workspace" in error


def test_a_folder_with_a_recap_toml_is_a_workspace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recap.toml").write_text("")
    status, out, _ = recap(capsys, "status", "--workspace", tmp_path)
    assert status == 0 and "0 episodes" in out and "next: recap demo" in out
    status, _, error = recap(capsys, "rollout", "--workspace", tmp_path)
    assert status == 2 and "there is no champion" in error


def test_a_workspace_that_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    task = ("--task", "pick up the red cube", "--workspace", "/proc/nope")
    status, _, error = recap(capsys, "record", *task)
    assert status == 2 and "cannot make the workspace /proc/nope" in error and error.count("\n") == 1


def test_the_rate_that_holds_where_none_is_said_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("record", "rollout"):
        words = " ".join(re.sub("[│╭╰─]", " ", recap(capsys, command, "--help")[1]).split())
        assert f"rate_hz in [defaults] of recap.toml, else {DefaultsSection().rate_hz:g}." in words


def test_what_is_typed_before_a_session_is_not_shown_and_the_terminal_is_as_before() -> None:
    keyboard, screen = pty.openpty()
    before = termios.tcgetattr(screen)
    with pytest.raises(KeyError), without_echo(screen):
        os.write(keyboard, b"s\n")
        assert os.read(screen, 10) == b"s\n"
        assert not select.select([keyboard], [], [], 0.1)[0]
        raise KeyError
    assert termios.tcgetattr(screen) == before
    os.write(keyboard, b"s\n")
    assert os.read(keyboard, 10).startswith(b"s")
    for end in (keyboard, screen):
        os.close(end)
    reading, writing = os.pipe()
    with without_echo(reading):
        pass
    for end in (reading, writing):
        os.close(end)


@pytest.mark.parametrize("operator", [(), ("--operator", "keyboard"), ("--operator", "none")])
@pytest.mark.parametrize("command", ["record", "rollout"])
def test_a_mistyped_task_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, operator: tuple[str, ...]
) -> None:
    place = ("--workspace", str(tmp_path), *operator)
    (tmp_path / "recap.toml").write_text("")
    status, _, error = recap(capsys, command, "--task", "pick up the red cub", *place)
    assert status == 2 and "the simulation has: pick up the red cube" in error
    (tmp_path / "recap.toml").write_text('tasks = ["open the drawer"]\n[robot]\ntype = "kinova_gen3"\n')
    status, _, error = recap(capsys, command, "--task", "open the drawr", *place)
    assert status == 2 and "did you mean 'open the drawer'? " in error and "recap.toml lists" in error
    assert [path.name for path in tmp_path.iterdir()] == ["recap.toml"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [("nowhere", "there is no such folder"), ("http://a:1", "not of the form tcp"), ("tcp://a", "form tcp")],
)
def test_a_policy_is_looked_for_before_the_operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str, message: str
) -> None:
    (tmp_path / "recap.toml").write_text("")
    status, _, error = recap(capsys, "rollout", "--policy", policy, "--workspace", tmp_path)
    assert status == 2 and message in error and policy in error


def test_doctor_does_not_make_up_a_site(tmp_path: Path) -> None:
    found = {check.name: check for check in checks(Workspace(tmp_path / "none"))}
    assert found["robot"].found == "no recap.toml: the simulated arm" and "recap.toml" not in found
    assert found["workspace"].found == f"not there yet: {tmp_path / 'none'}"


def test_doctor_counts_as_missing_what_it_calls_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [
        Check("a", True, "", ""),
        Check("b", False, "", ""),
        Check("c", False, "", "", needed=False),
        Check("d", False, "", "", amiss="slow"),
    ]
    monkeypatch.setattr("workflows.commands.doctor.checks", lambda workspace: there)
    status, _, error = recap(capsys, "doctor", "--workspace", tmp_path)
    assert (status, error) == (1, "recap: error: 1 thing missing, 1 slow: see above\n")


def test_an_unknown_task_or_value_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = tmp_path / "new"
    for words in (
        ["record", "--task", "make tea"],
        ["record", "--task", "make tea", "--operator", "keyboard"],
        ["policy", "evaluate", "--task", "juggle", "--checkpoint", tmp_path],
        ["policy", "evaluate", "--guidance", "-1"],
        ["episodes", "list", "--outcome", "great"],
    ):
        status, _, error = recap(capsys, *words, "--workspace", root)
        assert status == 2 and error.count("\n") == 1, words
    assert not root.exists()

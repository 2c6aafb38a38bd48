"""``recap schedule``, through its real entry point."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from workflows.cli import main
from workflows.schedule import Schedule
from workflows.schedule_conditions import NAMES
from workflows.schedule_database import FILE
from workflows.schedule_state import schedules_state
from workflows.schedule_store import ScheduleStore

HEAVY = ("ray", "torch", "lerobot", "streamlit", "mujoco", "pandas", "pyarrow", "matplotlib")
NIGHTLY = ("add", "nightly", "0 2 * * *")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Workspace(tmp_path / "lab").create().root


def recap(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one ``recap schedule``."""
    capsys.readouterr()
    # Before what follows two dashes, which is for another command.
    place = words.index("--") if "--" in words else len(words)
    status = main(["schedule", *words[:place], "--workspace", str(root), *words[place:]])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_schedule_is_added_listed_changed_and_removed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = recap(
        capsys, root, *NIGHTLY, "--when", "new_labelled_episodes>=50", "--time-zone", "Europe/Berlin",
        "--missed", "all", "--notify-url", "https://hooks.example.org/secret", "--", "--value-steps", "800",
    )  # fmt: skip
    assert status == 0 and out.startswith("nightly: recap improve --value-steps 800\n")
    assert re.search(r"next \d{4}-\d\d-\d\d 02:00 CES?T\n", out)
    status, out, _ = recap(capsys, root, "list")
    assert status == 0 and "Europe/Berlin" in out and out.endswith("1 schedule\n") and "secret" not in out
    status, _, _ = recap(
        capsys, root, "change", "nightly", "--cron", "30 3 * * *", "--when", "", "--", "--quick"
    )
    assert status == 0
    schedule = ScheduleStore(root).schedules()["nightly"]
    assert schedule == Schedule(
        "nightly",
        "30 3 * * *",
        "Europe/Berlin",
        "",
        "all",
        30.0,
        "",
        "https://hooks.example.org/secret",
        ("--quick",),
    )
    assert recap(capsys, root, "remove", "nightly") == (0, "nightly: removed\n", "")
    assert recap(capsys, root, "list")[1] == "0 schedules\n"
    assert recap(capsys, root, *NIGHTLY)[0] == 0


def test_the_name_may_be_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = recap(
        capsys, root, "add", "0 2 * * *", "--when", "new_labelled_episodes>=50", "--", "--quick"
    )
    assert status == 0 and out.startswith("improve: recap improve --quick\n")
    assert ScheduleStore(root).schedules()["improve"].options == ("--quick",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "x", "0 2 * *"], "4 fields and needs 5"),
        (["add", "x", "0 25 * * *"], "no cron expression"),
        (["add", "x", "0 2 30 2 *"], "never fits a date"),
        (["add", "x"], "no time is given for 'x'"),
        (["add", "x", "0", "2", "1", "1", "1"], "1 fields and needs 5"),
        (["add", "X y z", "0 2 * * *"], "no cron expression"),
        (["add", "X", "0 2 * * *"], "cannot be named 'X'"),
        (["add", "nightly", "0 3 * * *"], "there is a schedule 'nightly' already"),
        (["add", "x", "0 2 * * *", "--time-zone", "Mars"], "no time zone 'Mars'"),
        (
            ["add", "x", "0 2 * * *", "--when", "labels>=3"],
            "known are new_labelled_episodes, labelled_episodes",
        ),
        (["add", "x", "0 2 * * *", "--missed", "twice"], "one of once, all, skip"),
        (["add", "x", "0 2 * * *", "--grace", "-1"], "--grace must be 0 or more"),
        (["add", "x", "0 2 * * *", "--notify-url", "ftp://example.org"], "must be a web address"),
        (["add", "x", "0 2 * * *", "--notify-command", "nosuchprogram"], "no program 'nosuchprogram'"),
        (["add", "x", "0 2 * * *", "--notify-command", "mail 'a"], "No closing quotation"),
        (["add", "x", "0 2 * * *", "--", "--no-such-option"], "'recap improve' does not take"),
        (["add", "x", "0 2 * * *", "--", "--seed", "many"], "'recap improve' does not take"),
        (["add", "x", "0 2 * * *", "--", "stray"], "'recap improve' does not take"),
        (["add", "x", "0 2 * * *", "--", "--workspace=/tmp"], "it has its own workspace"),
        (["add", "x", "0 2 * * *", "--", "--help"], "cannot be an option of a schedule"),
        (["change", "none", "--cron", "0 2 * * *"], "there is no schedule 'none'"),
        (["change", "nightly", "--cron", "x"], "no cron expression"),
        (["remove", "none"], "there is no schedule 'none'"),
        (["run-now", "none"], "there is no schedule 'none'"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_changes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert recap(capsys, root, *NIGHTLY)[0] == 0
    before = ScheduleStore(root).definitions()
    status, out, err = recap(capsys, root, *words)
    assert (status, out) == (2, "") and said in err
    assert err.startswith("recap: error: ") and err.count("\n") == 1
    assert ScheduleStore(root).definitions() == before


def test_looking_makes_no_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["tick"], ["tick", "--dry-run"], ["history"], ["remove", "x"]):
        recap(capsys, root, *words)
    assert not [path for path in root.iterdir() if path.name == FILE]
    status, _, err = recap(capsys, root / "none", *NIGHTLY)
    assert status == 2 and "there is no workspace" in err and not (root / "none").exists()


def test_an_empty_folder_becomes_a_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = recap(capsys, tmp_path, "remove", "x")
    assert status == 2 and "there is no schedule 'x'" in err and not list(tmp_path.iterdir())
    for words in (NIGHTLY, ("list",), ("tick",)):
        assert recap(capsys, tmp_path, *words)[0] == 0


@pytest.mark.parametrize(
    "words", [NIGHTLY, ("list",), ("tick",), ("tick", "--dry-run"), ("history",), ("remove", "x")]
)
def test_a_damaged_database_is_named_and_left_as_it_is(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    damaged = b"SQLite format 3\0" + b"damage" * 200
    (root / FILE).write_bytes(damaged)
    status, out, err = recap(capsys, root, *words)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert f"{root / FILE}" in err and "move it elsewhere" in err
    assert (root / FILE).read_bytes() == damaged


def test_a_newer_database_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(root / FILE) as database:
        database.execute("PRAGMA user_version = 9")
    status, _, err = recap(capsys, root, "tick")
    assert status == 2 and "has version 9, this software knows up to 1: update it" in err


def test_a_tick_says_what_it_would_do_does_it_and_shows_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = datetime.now(UTC) - timedelta(minutes=3)
    ScheduleStore(root).define(Schedule("now", "* * * * *", when="episodes>=1"), earlier, new=True)
    ScheduleStore(root).define(Schedule("later", "0 0 1 1 *"), earlier, new=True)
    _, out, _ = recap(capsys, root, "tick", "--dry-run")
    assert "missed before it) would be run: recap improve\n" in out
    assert "now: episodes>=1 does not hold, so it would not run: episodes is 0\n" in out
    assert re.search(r"later: not due before \d{4}-01-01 00:00 UTC\n", out)
    assert recap(capsys, root, "history")[1] == "0 runs\n"
    status, out, _ = recap(capsys, root, "tick")
    assert status == 0 and out == "now: condition not met, episodes is 0; wanted: episodes>=1\n"
    _, out, _ = recap(capsys, root, "history", "now")
    assert "condition not met" in out and out.endswith("1 run\n")
    [noted] = json.loads(recap(capsys, root, "history", "--json")[1])
    assert noted["outcome"] == "condition not met" and noted["events"][0]["measured"] == {"episodes": 0}


def test_looking_uses_one_clock_the_schedules_own_and_fits_a_screen(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = "new_labelled_episodes>=50 and hours_since_last_iteration>=12 and episodes>=3"
    options = ("--", "--value-steps", "8000", "--policy-steps", "30000")
    zone = ("--time-zone", "Asia/Tokyo", "--when", condition, "--notify-url", "https://hooks.example.org/x")
    assert recap(capsys, root, "add", "nightly-at-the-lab", "0 2 * * 1-5", *zone, *options)[0] == 0
    out = recap(capsys, root, "list")[1]
    found = re.search(r"nightly-at-the-lab  0 2 \* \* 1-5  (\S+ 02:00 JST)  -\n", out)
    assert found is not None and max(len(line) for line in out.splitlines()) <= 110
    # All is there, whatever line it stands on.
    assert f"in Asia/Tokyo, if {condition}; missed times: once; tells https://hooks.example.org/..." in (
        " ".join(out.split())
    )
    assert "  recap improve --value-steps 8000 --policy-steps 30000\n" in out
    assert f"nightly-at-the-lab: not due before {found[1]}\n" in recap(capsys, root, "tick", "--dry-run")[1]
    assert f"nightly-at-the-lab is due next, {found[1]}" in schedules_state(Workspace(root)).line()


def test_the_help_says_what_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "add", "--help"]) == 0
    out = capsys.readouterr().out
    assert "recap schedule add [OPTIONS] [NAME] CRON [-- OPTIONS]\n" in out and "[required]" not in out


def test_a_run_by_hand_that_fails_is_status_1(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recap(capsys, root, *NIGHTLY)[0] == 0
    status, out, err = recap(capsys, root, "run-now", "nightly")
    assert status == 1 and "nightly: failed, there are no episodes" in out
    assert err.startswith("recap: error: a run failed: nightly (see ") and ".log)" in err
    assert "failed (by hand)" in recap(capsys, root, "history")[1]


def test_no_secret_is_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, command = "https://hooks.example.invalid/T0/TOKEN", "false -H TOKEN"
    outs = [recap(capsys, root, *NIGHTLY, "--notify-url", url, "--notify-command", command)]
    # The address is not asked for: the host is not there, and the command is put in alone.
    outs.append(recap(capsys, root, "change", "nightly", "--notify-url", ""))
    outs.append(recap(capsys, root, "run-now", "nightly"))
    outs.append(recap(capsys, root, "list"))
    outs.append(recap(capsys, root, "history"))
    outs.append(recap(capsys, root, "history", "--json"))
    begun = next(event for event in json.loads(outs[-1][1])[0]["events"] if event["kind"] == "started")
    assert begun["schedule"]["notify_command"] == "false ..." and begun["schedule"]["notify_url"] == ""
    assert Schedule.shown({"notify_url": url}) == {
        "notify_url": "https://hooks.example.invalid/...",
        "notify_command": "",
    }
    for _, out, err in outs:
        assert "TOKEN" not in out + err


def test_options_are_taken_away_when_asked_to(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recap(capsys, root, *NIGHTLY, "--", "--quick")[0] == 0
    status, _, err = recap(capsys, root, "change", "nightly", "--no-options", "--", "--quick")
    assert status == 2 and "not both" in err
    recap(capsys, root, "change", "nightly", "--")
    assert ScheduleStore(root).schedules()["nightly"].options == ("--quick",)
    status, out, _ = recap(capsys, root, "change", "nightly", "--no-options")
    assert status == 0 and out.startswith("nightly: recap improve\n")
    assert ScheduleStore(root).schedules()["nightly"].options == ()


def test_it_is_said_at_once_that_a_command_would_not_be_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root.chmod(0o777)
    out = recap(capsys, root, *NIGHTLY, "--notify-command", "true")[1]
    assert f"no command is run while others can write {root}:" in out
    root.chmod(0o700)
    assert "others" not in recap(capsys, root, "change", "nightly", "--grace", "3")[1]


def test_a_schedule_that_is_not_understood_is_named_and_can_be_removed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recap(capsys, root, *NIGHTLY)[0] == 0
    with sqlite3.connect(root / FILE) as database:
        text = json.dumps({**Schedule("old", "0 2 * * *").to_json(), "notify_url": "https://a/TOKÉN"})
        database.execute(
            "INSERT INTO definitions (name, at, document) VALUES ('old', '2026-01-01', ?)", (text,)
        )
    status, _, err = recap(capsys, root, "list")
    assert status == 2 and "schedule 'old' in " in err and "TOK" not in err
    assert recap(capsys, root, "remove", "old")[0] == 0
    assert recap(capsys, root, "list")[1].endswith("1 schedule\n")


def test_a_tick_loads_no_heavy_library(root: Path) -> None:
    add = datetime.now(UTC)
    ScheduleStore(root).define(Schedule("yearly", "0 0 1 1 *", when="episodes>=1"), add, new=True)
    script = (
        "import sys; from workflows.cli import main; status = main(sys.argv[1:]); "
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "schedule", "tick", "--workspace", str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "loaded []\n"


def test_the_documentation_names_what_there_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands are run, as far as they need no mail program."""
    text = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)) == NAMES
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if "mail" not in line]
    assert len(commands) == 6
    for command in commands:
        _, _, *words = shlex.split(command)
        assert recap(capsys, root, *words)[0] == 0, command

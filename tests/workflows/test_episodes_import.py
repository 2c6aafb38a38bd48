"""``recap episodes import`` through the real entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from tests.pipeline.exchange.foreign_samples import (
    aloha_columns,
    images,
    joints,
    robomimic_demo,
    write_aloha_file,
    write_robomimic_file,
)
from tests.pipeline.exchange.imports import assert_pictures, reader_of, snapshot
from workflows.cli import main

TASK = "lift the cube"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two demos, a damaged file and an ALOHA episode of two arms, which cannot be trained on."""
    folder = tmp_path / "data"
    write_robomimic_file(folder / "lift.hdf5", [robomimic_demo(0), robomimic_demo(1)])
    (folder / "broken.hdf5").write_bytes((folder / "lift.hdf5").read_bytes()[:1000])
    write_aloha_file(folder / "fold" / "episode_0.hdf5", aloha_columns(14), {"top": images()})
    return folder


def recap(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, list[str], list[str]]:
    """Exit status, the lines of standard output, and those of standard error but how far it is."""
    capsys.readouterr()
    status = main(["episodes", "import", *map(str, words)])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not line.startswith("importing: ")]
    return status, said.out.splitlines(), lines


def test_bad_files_among_good_ones(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = tmp_path / "lab"
    options: list[str | Path] = ["--task", TASK, "--operator", "ana", "--workspace", lab]
    status, out, err = recap(capsys, data, *options)
    assert status == 2
    assert [line.split(": ")[0] for line in err] == ["refused", "refused", "recap"]
    rows = [line for line in out if line.startswith("refused")]
    assert rows[0].endswith("it is damaged or not what it seems") and "cannot be had" in rows[1]
    assert "broken.hdf5" in err[0] and "--allow-missing" in err[1]
    assert err[2].endswith("2 of 4 recordings were refused: see the lines above")
    assert out[-1] == "2 imported, 2 refused"
    workspace = Workspace(lab)
    assert [entry.info.operator for entry in workspace.list_episodes()] == ["ana", "ana"]
    before = snapshot(workspace.episodes)
    status, out, err = recap(capsys, data / "lift.hdf5", *options)
    assert (status, out[-1], err) == (0, "2 already there", [])
    assert snapshot(workspace.episodes) == before
    status, out, err = recap(capsys, data / "lift.hdf5", *options, "--robot", "kinova_gen3")
    assert status == 2 and all("with other options: robot not given → " in line for line in err[:2])
    assert "task" not in err[0] and "{" not in err[0]
    assert snapshot(workspace.episodes) == before


def test_cameras_limit_and_dry_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = tmp_path / "lab"
    words: list[str | Path] = [
        data / "lift.hdf5",
        "--task",
        TASK,
        "--camera",
        "table=agentview_image",
        "--limit",
        "1",
    ]
    status, out, _ = recap(capsys, *words, "--workspace", lab, "--dry-run")
    assert (status, out[-1], lab.exists()) == (0, "1 would be imported", False)
    status, out, err = recap(capsys, *words, "--workspace", lab)
    assert (status, out[-1]) == (0, "1 imported")
    assert err[0].startswith("note: ") and err[0].endswith("cameras left out: robot0_eye_in_hand")
    workspace = Workspace(lab)
    (entry,) = workspace.list_episodes()
    assert entry.info.cameras == ("table",)
    with reader_of(workspace, entry.id) as episode:
        assert_pictures(episode.images("table"), robomimic_demo(0)["obs/agentview_image"])


def test_a_mapping_file_brings_in_what_no_format_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = aloha_columns(14)
    columns["observations/qpos"][:, 7:], columns["action"][:, 7:] = joints(seed=1), joints(seed=2)
    path = write_aloha_file(tmp_path / "data" / "episode_0.hdf5", columns, {"top": images()})
    mapping = tmp_path / "right_arm.toml"
    mapping.write_text(
        """
        rate_hz = 25
        [joint_positions]
        column = "observations/qpos"
        indices = [7, 8, 9, 10, 11, 12, 13]
        [gripper_position]
        column = "observations/qpos"
        indices = [6]
        open = 1.0
        closed = 0.0
        [action]
        space = "joint_positions"
        joints = { column = "action", indices = [7, 8, 9, 10, 11, 12, 13] }
        gripper = { column = "action", indices = [6], open = 1.0, closed = 0.0 }
        [cameras]
        table = "top"
        """
    )
    words: list[str | Path] = [path, "--task", TASK, "--robot", "kinova_gen3", "--mapping", mapping]
    status, out, err = recap(capsys, *words, "--workspace", tmp_path / "lab")
    assert (status, out[-1], err) == (0, "1 imported", [])
    (entry,) = Workspace(tmp_path / "lab").list_episodes()
    assert (entry.info.rate_hz, entry.info.cameras, entry.info.missing_for_training) == (25, ("table",), ())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--camera", "table"], "must be our name"),
        (["--camera", "table=nothing"], "has no camera 'nothing'; it has agentview, robot0_eye_in_hand"),
        (["--camera", "a=agentview", "--camera", "b=agentview"], "names must differ"),
        (["--mapping", "nowhere.toml"], "cannot read the mapping nowhere.toml"),
        (["--task", " "], "--task is empty"),
        (["--format", "rlds"], "is not one of"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    lab = tmp_path / "lab"
    status, _, err = recap(capsys, data / "lift.hdf5", "--task", TASK, *words, "--workspace", lab)
    assert status == 2 and message in err[0]
    assert not list(lab.glob("episodes/*/*"))


def test_a_recording_without_a_task_asks_for_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = recap(capsys, data / "lift.hdf5", "--workspace", tmp_path / "lab")
    assert status == 2 and err[0].endswith("it does not say what the task was: give it with --task")


def test_equal_reasons_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_robomimic_file(tmp_path / "lift.hdf5", [robomimic_demo(i) for i in range(6)])
    status, out, err = recap(capsys, path, "--workspace", tmp_path / "lab")
    assert status == 2 and len(err) == 5
    assert err[2].startswith(f"refused: {path} demo_2: it does not say what the task was")
    assert err[3] == "refused: and 3 more for the same reason: it does not say what the task was"
    rows = [line for line in out if line.startswith("refused")]
    assert rows[0].endswith(f"{path} demo_0  it does not say what the task was")
    assert len(rows) == 4 and rows[3].split() == ["refused", "3", "more", "the", "same", "reason"]
    assert out[-1] == "6 refused"
    words: list[str | Path] = ["--task", TASK, "--camera", "table=agentview", "--workspace", tmp_path / "lab"]
    status, out, err = recap(capsys, path, *words)
    assert (status, out[-1], len(err)) == (0, "6 imported", 4)
    assert err[3] == "note: and 3 more alike: cameras left out: robot0_eye_in_hand"


def test_a_dry_run_and_a_wrong_path_make_no_workspace(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, other = tmp_path / "lab", tmp_path / "other"
    status, _, err = recap(capsys, tmp_path / "nowhere", "--workspace", lab)
    assert status == 2 and "there is no file or folder" in err[0] and not lab.exists()
    recap(capsys, data / "lift.hdf5", "--task", TASK, "--workspace", other)
    for _ in range(2):
        status, out, _ = recap(capsys, other, "--workspace", lab, "--dry-run")
        assert (status, out[-1]) == (0, "2 would be imported")
        assert not list(lab.glob("*"))
        lab.mkdir(exist_ok=True)


def test_a_file_is_no_lerobot_dataset(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: list[str | Path] = ["--format", "lerobot", "--workspace", tmp_path / "lab"]
    status, _, err = recap(capsys, data / "lift.hdf5", *words)
    assert status == 2 and len(err) == 2 and "is a file: a LeRobot dataset is a folder" in err[0]

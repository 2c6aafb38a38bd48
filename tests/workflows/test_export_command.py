"""``recap episodes export`` and ``statistics`` through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from pipeline.action_statistics import statistics_from_json
from pipeline.episode_file import EpisodeReader
from pipeline.exchange.lerobot_folder import LeRobotFolder
from pipeline.label_types import Mark
from pipeline.labels import LabelStore
from pipeline.lerobot_language import Subtask
from pipeline.workspace import Workspace
from tests.pipeline.exchange.exported import record
from workflows.cli import main

BLUE = "pick up the blue cube"
SEGMENTS = (Mark("segment", 0, 2, "Reach it"), Mark("segment", 1, 2, "lift"), Mark("segment", 3, 5, "lift"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A success, a failure, an excluded and an unlabelled episode, and one without actions."""
    workspace = Workspace(tmp_path_factory.mktemp("lab")).create()
    red, blue = (workspace.episode_path(task, "x").parent for task in ("pick up the red cube", BLUE))
    for folder in (red, blue):
        folder.mkdir(parents=True)
    entries = [
        record(red, "won", 5, seed=1),
        record(red, "lost", 6, seed=2),
        record(red, "broken", 4, seed=3),
        record(blue, "new", 7, seed=4, task=BLUE, robot="other"),
        record(red, "watched", 3, seed=5, missing=("action",)),
    ]
    with LabelStore(workspace.labels_path) as store:
        store.sync((e.id, e.info.task) for e in entries)
        for name, outcome in (("won", "success"), ("lost", "failure"), ("broken", "exclude")):
            store.set(name, outcome, "ana", marks=SEGMENTS if name == "won" else ())
    return workspace


def recap(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["episodes", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def ids_in(path: Path) -> set[str]:
    with h5py.File(path) as file:
        return {demo.attrs["id"] for demo in file["data"].values()}


def test_export_says_what_it_wrote_and_how_to_open_it(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.hdf5"
    words = ("export", out, "--format", "robomimic", "--action-space", "absolute-pose", "--image-size", 12)
    status, said, errors = recap(capsys, *words, "--workspace", workspace.root)
    assert status == 0, errors
    assert "written: robomimic, 3 episodes, 18 frames, actions: absolute-pose" in said
    assert f"--dataset {out}" in said
    assert "left out: episode watched was recorded without action" in errors
    assert ids_in(out) == {"won", "lost", "new"}
    with h5py.File(out) as file:
        assert file["data"].attrs["action_space"] == "absolute_pose"
        assert file["data/demo_0/obs/table_image"].shape[1:] == (12, 12, 3)
    before = out.stat().st_mtime_ns
    status, said, _ = recap(capsys, *words, "--workspace", workspace.root)
    assert (status, out.stat().st_mtime_ns) == (0, before)
    assert "held this already" in said
    status, said, errors = recap(capsys, *words, "--task", BLUE, "--workspace", workspace.root)
    assert (status, said, out.stat().st_mtime_ns) == (2, "", before)
    assert "holds an export of other episodes, labels or options (3 episodes then, 1 now)" in errors


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--outcome", "success"], {"won"}),
        (["--outcome", "failure"], {"lost"}),
        (["--outcome", "labelled"], {"won", "lost"}),
        (["--outcome", "unlabelled"], {"new"}),
        (["--task", BLUE], {"new"}),
        (["--episodes", "won,new"], {"won", "new"}),
        (["--episodes", "broken", "--episodes", "won"], {"broken", "won"}),
    ],
)
def test_the_options_choose_the_episodes(
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: set[str],
) -> None:
    out = tmp_path / "out.hdf5"
    words = ("export", out, "--format", "robomimic", *options, "--workspace", workspace.root)
    status, _, errors = recap(capsys, *words)
    assert status == 0, errors
    assert ids_in(out) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "robomimic", "--episodes", "nobody"], "no episode 'nobody'"),
        (["--format", "robomimic", "--episodes", "watched"], "without action"),
        (["--format", "robomimic", "--task", "nothing"], "no episode is left"),
        (["--format", "robomimic", "--subtasks"], "for lerobot, not for robomimic"),
        (["--format", "lerobot", "--subtasks", "--episodes", "lost,new"], "no label of these episodes has"),
        (["--format", "lerobot", "--image-size", "8"], "not for lerobot"),
        (["--format", "diffusion-policy", "--compression", "gzip"], "for robomimic"),
        (["--format", "mp3"], "mp3"),
        ([], "--format"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    out = tmp_path / "out.hdf5"
    status, _, errors = recap(capsys, "export", out, *options, "--workspace", workspace.root)
    assert status == 2
    assert message in errors.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    "folder", ["episodes", "cache/deep", "steps", "quarantine", "importing", "snapshots"]
)
def test_exports_stay_out_of_the_workspaces_own_folders(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    link = tmp_path / "link"
    link.symlink_to(workspace.root)
    out = link / folder / "out.hdf5"
    words = ("--format", "robomimic", "--workspace", workspace.root)
    status, _, errors = recap(capsys, "export", out, *words)
    assert status == 2 and "the workspace's own folder" in errors.splitlines()[-1] and not out.exists()
    allowed = workspace.datasets / folder / "out.hdf5"
    assert recap(capsys, "export", allowed, *words)[0] == 0 and allowed.exists()
    allowed.unlink()


def test_places_that_cannot_be_written_are_one_line(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    at = ("--workspace", workspace.root)
    for words, message in (
        (("export", tmp_path / "file" / "out.hdf5", "--format", "robomimic", *at), "it is a file"),
        (("export", tmp_path / "out", "--format", "robomimic", *at), "call it out.hdf5"),
        (("statistics", "--json", tmp_path / "folder", *at), "is a folder"),
        (("statistics", "--json", tmp_path / "none" / "s.json", *at), "there is no folder"),
        (("statistics", "--json", "/proc/s.json", *at), "cannot be written"),
    ):
        status, _, errors = recap(capsys, *words)
        assert status == 2 and message in errors.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_diffusion_policy(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.zarr"
    words = ("export", out, "--format", "diffusion-policy", "--outcome", "labelled")
    status, said, errors = recap(capsys, *words, "--workspace", workspace.root)
    assert status == 0, errors
    assert "diffusion-policy, 2 episodes, 11 frames" in said
    ends = zarr.open_group(out, mode="r")["meta/episode_ends"]
    assert sorted(np.diff([0, *np.asarray(ends)])) == [5, 6]


def test_lerobot_with_sub_tasks(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dataset"
    words = ("--format", "lerobot", "--episodes", "won", "--workspace", workspace.root)
    status, said, errors = recap(capsys, "export", out, *words, "--subtasks")
    assert status == 0, errors
    lines = said.splitlines()
    assert lines[0] == "sub-tasks: 2 in 1 of 1 episodes"
    assert "overlap ('Reach it' and 'lift' at frame 1, the app's 2)" in lines[1]
    folder = LeRobotFolder(out)
    assert folder.language(folder.place(0)) == ((Subtask("reach it", 0, 1), Subtask("lift", 3, 5)), ())
    came = "sub-tasks: 2 in 1 of 1 episode; the labelling app proposes them as segments"
    bring = ("import", out, "--workspace", tmp_path / "other")
    for option, closing in (["--dry-run"], came), ([], came), ([], "1 already there"):
        status, said, errors = recap(capsys, *bring, *option)
        assert (status, said.splitlines()[-1]) == (0, closing), errors
    status, said, errors = recap(capsys, "export", out, *words)
    assert status == 2 and "holds an export of other episodes, labels or options: exports" in errors


def test_lerobot(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dataset"
    words = ("export", out, "--format", "lerobot", "--outcome", "success", "--action-space", "delta-pose")
    status, said, errors = recap(capsys, *words, "--workspace", workspace.root)
    assert status == 0, errors
    assert "lerobot, 1 episode, 5 frames, actions: delta-pose" in said
    assert f'open it with: LeRobotDataset("local/data", root="{out}", video_backend="pyav")' in said
    assert json.loads((out / "meta" / "info.json").read_text())["total_frames"] == 5
    left_out = "the sub-tasks of 1 episode are not in it: --subtasks writes them, for LeRobot 0.6 or newer"
    assert said.splitlines()[-1] == left_out


def test_statistics_per_robot_and_action_space(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "statistics.json"
    words = ("statistics", "--json", file, "--workspace", workspace.root)
    status, said, errors = recap(capsys, *words)
    assert status == 0, errors
    assert errors.count("left out: episode watched was recorded without action") == 1
    statistics = statistics_from_json(file.read_text())
    found = {(s.robot, s.action_space, s.count) for s in statistics}
    spaces = ("twist", "delta_pose", "absolute_pose", "joint_positions")
    assert found == {(r, s, n) for r, n in (("simulated_gen3", 11), ("other", 7)) for s in spaces}
    assert "robot other, action space twist: 7 frames" in said
    assert said.count("gripper.target") == 8
    (twist,) = [s for s in statistics if (s.robot, s.action_space) == ("other", "twist")]
    with EpisodeReader(workspace.find("new").path) as reader:
        actions = reader.actions
    np.testing.assert_array_equal(twist.max, actions.max(0).astype(float))
    assert f"{twist.max[0]:.4g}" in said


def test_statistics_of_one_space_and_of_nothing(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("statistics", "--action-space", "joint-positions", "--workspace", workspace.root)
    status, said, _ = recap(capsys, *one, "--outcome", "success")
    assert (status, said.count("action space")) == (0, 1)
    assert "joint_7.pos" in said
    status, _, errors = recap(capsys, *one, "--episodes", "watched")
    assert status == 2
    assert "no action" in errors


def test_statistics_load_no_heavy_library(workspace: Workspace) -> None:
    heavy = ("ray", "torch", "lerobot", "streamlit", "mujoco", "pandas", "pyarrow", "matplotlib", "zarr")
    script = (
        "import sys; from workflows.cli import main; status = main(sys.argv[1:]); "
        f"print('loaded', [name for name in {heavy} if name in sys.modules]); sys.exit(status)"
    )
    words = ["episodes", "statistics", "--workspace", str(workspace.root)]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded []\n")

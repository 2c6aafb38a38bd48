"""What the check finds beyond the plain defects: layouts, images, clipping, missing fields, tasks."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from pipeline.episode import ACTION_NAMES, CAMERAS, Frame
from pipeline.episode_check import Finding
from pipeline.episode_defects import examine
from pipeline.episode_finding import Kind, is_fatal
from pipeline.episode_scan import jpeg_size, look
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.pipeline.episodes import TASK, make_frames, make_info, write_episode


def recorded(tmp_path: Path, frames: list[Frame] | None = None, **info: Any) -> Path:
    frames = make_frames(20) if frames is None else frames
    return write_episode(tmp_path / "e0001.h5", frames, make_info(**info))


def found(path: Path, kind: Kind) -> list[Finding]:
    return [finding for finding in examine(path).findings if finding.kind is kind]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("action", np.zeros((20, 7)), "action is float64 (20, 7), expected float32 (T, 7)"),
        ("source", np.zeros((20, 1), np.uint8), "source is uint8 (20, 1), expected uint8 (T)"),
        ("timestamp_ns", np.zeros(20, np.int32), "timestamp_ns is int32 (20,), expected int64 (T)"),
        ("observation/state/tool_pose", np.float32(1), "observation/state/tool_pose is float32 ()"),
        ("observation/images/wrist", np.zeros((20, 5), np.uint8), "expected variable-length uint8 (T)"),
        ("camera_timestamp_ns/table", None, "camera_timestamp_ns/table cannot be read"),
    ],
)
def test_every_dataset_is_held_against_the_schema(
    tmp_path: Path, name: str, values: np.ndarray | None, message: str
) -> None:
    path = recorded(tmp_path)
    with h5py.File(path, "r+") as file:
        del file[name]
        if values is not None:
            file[name] = values
    [finding] = found(path, Kind.LAYOUT)
    assert message in finding.message and is_fatal(finding)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dropped", "none", "attribute 'dropped' is missing or bad"),
        ("missing", ["x"], "attribute 'missing' names no field of the schema: 'x'"),
        ("extra", "[1]", "attribute 'extra' is not a JSON object"),
    ],
)
def test_attributes_of_the_wrong_type_are_found(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    path = recorded(tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    findings = examine(path).findings
    assert any(message in finding.message and is_fatal(finding) for finding in findings)


def test_a_length_that_the_file_cannot_hold_is_not_believed(tmp_path: Path) -> None:
    """Read as it stands it would take 28 TB."""
    path = recorded(tmp_path)
    with h5py.File(path, "r+") as file:
        file["action"].resize(10**12, axis=0)
    [finding] = found(path, Kind.LAYOUT)
    assert "claims 1000000000000 rows, more than the file can hold" in finding.message


def test_the_frame_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = recorded(tmp_path, make_frames(200))
    with h5py.File(path) as file:
        heap = file["observation/images/table"].id.get_chunk_info(2)
    with path.open("r+b") as raw:  # the references to the images of frames 128 to 191
        raw.seek(heap.byte_offset)
        raw.write(struct.pack("<IQI", 100, 0x1234, 1) * (heap.size // 16))
    [finding] = found(path, Kind.ROWS)
    assert finding.row == 128 and "frame 128 cannot be read" in finding.message


def jpeg(height: int, width: int) -> np.ndarray:
    return np.asarray(cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1])


def test_images_of_another_size_and_cut_ones_are_found(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    with h5py.File(path, "r+") as file:
        file["observation/images/wrist"][7] = jpeg(12, 30)
        whole = file["observation/images/table"][9]
        file["observation/images/table"][9] = whole[:-40]
    rows = {finding.row: finding.message for finding in found(path, Kind.ROWS)}
    assert rows[7] == "camera 'wrist': the image of frame 7 is 12×30 but the stored size is 24×24"
    assert rows[9] == "camera 'table': the image cannot be decoded in frame 9"
    with h5py.File(path, "r+") as file:
        file["observation/images/wrist"].attrs["width"] = 25
    assert any("but the stored size is 24×25" in f.message for f in found(path, Kind.ROWS))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (24, 24), (480, 640), (17, 1000)])
def test_the_size_of_a_jpeg_comes_from_its_header(height: int, width: int) -> None:
    assert jpeg_size(jpeg(height, width).tobytes()) == (height, width)
    level, size = look(jpeg(height, width))
    assert abs(level - 90) < 3 and size == (height, width)
    assert (
        look(np.zeros(0, np.uint8))[1] is None
        and look(np.frombuffer(b"\xff\xd8\xff\xd9", np.uint8))[1] is None
    )


def drive(speeds: np.ndarray, gripper: float = 1.0) -> list[Frame]:
    frames = make_frames(len(speeds))
    for frame, speed in zip(frames, speeds, strict=True):
        frame.action = np.array([speed, 0, 0, 0, 0, 0, gripper], np.float32)
    return frames


def test_actions_at_their_limit_are_clipped_and_keys_with_one_speed_are_not(tmp_path: Path) -> None:
    wish = 0.4 * np.sin(np.arange(100) / 10)
    finding, *others = found(recorded(tmp_path / "a", drive(np.clip(wish, -0.2, 0.2))), Kind.CLIPPED)
    assert not others and finding.severity == "warning"
    assert finding.message.startswith(f"action {ACTION_NAMES[0]} is clipped at 0.2 in ")
    keys = np.where(np.arange(100) % 40 < 30, 0.2, 0.0)
    for number, speeds in enumerate([wish, keys, np.zeros(100)]):
        assert found(recorded(tmp_path / f"{number}", drive(speeds)), Kind.CLIPPED) == []


def test_missing_fields_may_be_nan_and_are_said(tmp_path: Path) -> None:
    frames = make_frames(30)
    for frame in frames:
        frame.action[:] = np.nan
        frame.state["tool_wrench"][:] = np.nan
    path = recorded(tmp_path / "a", frames, missing=("action", "tool_wrench"))
    assert [f.message for f in examine(path).findings] == [
        "it lacks action: it can be seen and labelled, not trained on"
    ]
    path = recorded(tmp_path / "b", frames, missing=("tool_wrench",))
    kinds = {finding.kind: finding for finding in examine(path).findings}
    assert is_fatal(kinds[Kind.NUMBERS]) and kinds[Kind.MISSING].message == "it lacks tool_wrench"


def test_a_hanging_camera_is_seen_by_the_tool_where_joints_are_missing(tmp_path: Path) -> None:
    frames = make_frames(30)
    for frame in frames:
        frame.images["table"] = frames[0].images["table"]
        frame.state["joint_positions"][:] = np.nan
    path = recorded(tmp_path, frames, missing=("joint_positions",))
    assert "frozen in frames 0 to 29" in found(path, Kind.CAMERA)[0].message


def test_tasks_are_held_against_the_site_and_busy_files_are_not_damaged(tmp_path: Path) -> None:
    lab = Workspace(tmp_path / "lab").create()
    path = write_episode(lab.episode_path(TASK, "a"), make_frames(3), make_info("a"))
    with LabelStore(lab.labels_path) as store:
        store.sync([("a", TASK)])
        store.set("a", "success", "bo")
    assert lab.check() == []
    lab.config_path.write_text('tasks = ["juggle"]')
    [finding] = lab.check()
    assert (finding.kind, finding.severity) == (Kind.TASK, "warning")
    assert finding.message == f"its task is not in recap.toml: {TASK!r}"
    lab.config_path.write_text(f'tasks = ["{TASK}"]')
    with h5py.File(path, "r+"):
        [busy] = lab.check()
        assert busy.kind is Kind.BARRED and "lock" in busy.message
        assert [repair.action for repair in lab.repair([busy])] == ["left"]
    assert lab.check() == [] and path.exists()
    assert CAMERAS == ("table", "wrist")


def test_numbers_of_no_arm_are_found(tmp_path: Path) -> None:
    frames = make_frames(12)
    frames[3].state["joint_positions"][2] = -90
    frames[5].action[1] = 5.5
    frames[6].action[4] = -26
    frames[7].action[6] = 100  # the gripper's target is no twist
    findings = found(recorded(tmp_path, frames), Kind.NUMBERS)
    assert [finding.message for finding in findings] == [
        "joint position of up to 90 rad in frame 3: it looks like degrees",
        "linear action of up to 5.5 m/s in frame 5: no arm moves so fast",
        "angular action of up to 26 rad/s in frame 6: no arm turns so fast",
    ]
    assert not any(is_fatal(finding) for finding in findings)


def test_files_that_nothing_reads_are_found(tmp_path: Path) -> None:
    lab = Workspace(tmp_path / "lab").create()
    path = write_episode(lab.episode_path(TASK, "a"), make_frames(3), make_info("a"))
    content = path.read_bytes()
    strays = [
        path.with_name("b.hdf5"),
        lab.episodes / "c.h5",
        lab.episodes / "d.h5.part",
        path.parent / "e.txt",
    ]
    for stray in (*strays, lab.episodes / ".hidden"):
        stray.write_bytes(content)
    findings = {f.path: f for f in lab.check() if f.kind is Kind.STRAY}
    assert set(findings) == set(strays) and {f.severity for f in findings.values()} == {"warning"}
    assert findings[strays[1]].message == (
        "lies outside the task folders, so nothing reads it: bring it in with 'recap episodes import'"
    )
    assert "'recap episodes import'" in findings[strays[0]].message


@pytest.mark.parametrize(
    ("length", "message"),
    [(0, "it is not an HDF5 file"), (3000, "it is cut short")],
)
def test_what_cannot_be_opened_is_said_in_plain_words(tmp_path: Path, length: int, message: str) -> None:
    path = recorded(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    [finding] = examine(path).findings
    assert (finding.kind, finding.message) == (Kind.UNREADABLE, f"it cannot be read: {message}")


def test_progress_is_reported_for_each_file(tmp_path: Path) -> None:
    lab = Workspace(tmp_path / "lab").create()
    for name in ("a", "b", "c"):
        write_episode(lab.episode_path(TASK, name), make_frames(2), make_info(name))
    said: list[tuple[int, int]] = []
    lab.check(workers=2, report=lambda done, total: said.append((done, total)))
    assert said == [(1, 3), (2, 3), (3, 3)]


def test_a_pause_that_the_recorder_noted_is_no_gap_and_others_are(tmp_path: Path) -> None:
    frames = [
        replace(frame, timestamp_ns=frame.timestamp_ns + 10**10 * (i >= 5) + 10**10 * (i >= 9))
        for i, frame in enumerate(make_frames(20))
    ]
    path = recorded(tmp_path, frames, extra={"pauses": [{"before_frame": 5, "seconds": 10.0}]})
    [gap] = found(path, Kind.TIME)
    assert "before frame 9" in gap.message and "10.10 s" in gap.message


@pytest.mark.parametrize("nonsense", [3, "5", {"before_frame": 5}, [5], [{"before_frame": "5"}], [{}], None])
def test_pauses_that_are_none_hide_nothing(tmp_path: Path, nonsense: Any) -> None:
    frames = [
        replace(frame, timestamp_ns=frame.timestamp_ns + 10**10 * (i >= 5))
        for i, frame in enumerate(make_frames(20))
    ]
    [gap] = found(recorded(tmp_path, frames, extra={"pauses": nonsense}), Kind.TIME)
    assert "before frame 5" in gap.message

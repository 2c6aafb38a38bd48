"""The workspace: names that stay inside it, its list of episodes, recovery, import and checks."""

from __future__ import annotations

import fcntl
import os
import pickle
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.episode import CAMERAS, Frame, Source
from pipeline.episode_check import Finding
from pipeline.episode_file import EpisodeWriter
from pipeline.errors import InputError
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace, check_id, task_slug
from tests.pipeline.episodes import TASK, make_frame, make_frames, make_info, write_episode


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "lab").create()


def add(lab: Workspace, episode_id: str, frames: list[Frame] | None = None, **info: object) -> Path:
    """Records an episode in the workspace and labels it, so that only other findings are left."""
    description = make_info(episode_id, **info)
    frames = make_frames(3, seed=len(episode_id) + ord(episode_id[-1])) if frames is None else frames
    path = write_episode(lab.episode_path(description.task, episode_id), frames, description)
    with LabelStore(lab.labels_path) as store:
        store.sync([(episode_id, description.task)])
        store.set(episode_id, "success", "bo")
    return path


def messages(findings: list[Finding], severity: str) -> str:
    return "\n".join(finding.message for finding in findings if finding.severity == severity)


@given(task=st.text())
def test_a_slug_is_one_harmless_folder_name(task: str) -> None:
    if not task.strip():
        with pytest.raises(InputError):
            task_slug(task)
        return
    slug = task_slug(task)
    assert 0 < len(slug) <= 80
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert Path("/a/episodes").joinpath(slug).resolve().parent == Path("/a/episodes")


@given(tasks=st.lists(st.text("aA b-/é.", min_size=1, max_size=6).filter(str.strip), min_size=2, unique=True))
def test_different_tasks_have_different_slugs(tasks: list[str]) -> None:
    assert len({task_slug(task) for task in tasks}) == len(tasks)


def test_a_plain_task_has_a_plain_slug() -> None:
    assert task_slug(TASK) == "pick-up-the-red-cube"


@pytest.mark.parametrize("bad", ["", ".", "..", "../a", "a/b", ".hidden", "a\0", "a\n", "é", "a" * 121, "a*"])
def test_unsafe_ids_are_refused(lab: Workspace, bad: str) -> None:
    for use in (check_id, lab.find, lambda i: lab.episode_path(TASK, i)):
        with pytest.raises(InputError, match="not safe"):
            use(bad)


@pytest.mark.parametrize(
    "task", ["../../etc/passwd", "pick/place", "положи куб", "🟥", "/", "..", "x" * 5000]
)
def test_any_task_can_be_recorded_and_found(lab: Workspace, task: str) -> None:
    path = add(lab, "e1", task=task)
    assert path.parent.parent == lab.episodes
    assert lab.find("e1").info.task == task
    assert [entry.id for entry in lab.list_episodes(task)] == ["e1"]


def test_episodes_are_listed_by_creation_then_id(lab: Workspace) -> None:
    add(lab, "b", created="2025-01-02T00:00:00Z", task="other task")
    add(lab, "c", created="2025-01-01T00:00:00Z")
    add(lab, "a", created="2025-01-02T00:00:00Z")
    assert [entry.id for entry in lab.list_episodes()] == ["c", "a", "b"]
    assert [entry.id for entry in lab.list_episodes(TASK)] == ["c", "a"]
    entry = lab.find("a")
    assert (entry.length, entry.path) == (3, lab.episode_path(TASK, "a"))
    assert pickle.loads(pickle.dumps(entry)) == entry
    with pytest.raises(InputError, match="no episode 'z'"):
        lab.find("z")


def test_the_list_follows_the_files(lab: Workspace) -> None:
    path = add(lab, "a")
    assert lab.find("a").length == 3
    path.unlink()
    assert lab.list_episodes() == []
    add(lab, "a", make_frames(5))
    assert [entry.length for entry in lab.list_episodes()] == [lab.find("a").length] == [5]


def test_a_broken_file_does_not_hide_the_others(lab: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    add(lab, "a")
    (lab.episodes / "pick-up-the-red-cube" / "broken.h5").write_bytes(b"nothing")
    assert [entry.id for entry in lab.list_episodes()] == ["a"]
    assert "broken.h5" in caplog.text


def test_a_workspace_that_cannot_be_made_is_one_line() -> None:
    with pytest.raises(InputError, match=r"cannot make the workspace /proc/nope .*--workspace"):
        Workspace(Path("/proc/nope")).create()


def test_an_empty_or_missing_workspace_has_no_episodes(tmp_path: Path) -> None:
    lab = Workspace(tmp_path / "none")
    assert (lab.list_episodes(), lab.recover(), lab.check()) == ([], [], [])
    assert not lab.root.exists()


def test_recovery_finishes_left_overs_and_leaves_running_recordings(lab: Workspace) -> None:
    left = add(lab, "left")
    left.rename(f"{left}.part")
    (left.parent / "junk.h5.part").write_bytes(b"junk")
    with EpisodeWriter(lab.episode_path(TASK, "running"), make_info("running")) as writer:
        writer.append(make_frames(1)[0])
        found = {recovery.part.name: recovery.episode for recovery in lab.recover()}
        assert found == {"left.h5.part": left, "junk.h5.part": None, "running.h5.part": None}
        assert [path.name for path in lab.unfinished()] == ["running.h5.part"]
    assert {entry.id: entry.info.truncated for entry in lab.list_episodes()} == {
        "left": True,
        "running": False,
    }
    assert sorted(path.name for path in lab.quarantine.iterdir()) == ["junk.h5.part", "junk.h5.part.txt"]
    assert lab.recover() == []


def test_importing_copies_once_and_refuses_other_frames_under_a_taken_id(
    lab: Workspace, tmp_path: Path
) -> None:
    other = Workspace(tmp_path / "other").create()
    source = add(other, "a", task="x/y")
    entry = lab.import_episode(source)
    assert entry == replace(other.find("a"), path=lab.episode_path("x/y", "a"))
    assert entry.path.read_bytes() == source.read_bytes()
    stamp = entry.path.stat().st_mtime_ns
    assert lab.import_episode(source) == entry
    assert entry.path.stat().st_mtime_ns == stamp
    misnamed = source.rename(tmp_path / "from a friend.h5")
    assert lab.import_episode(misnamed) == entry
    with pytest.raises(InputError, match="already, of other frames"):
        lab.import_episode(write_episode(tmp_path / "a.h5", make_frames(2, seed=44), make_info("a")))
    misnamed.write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot read"):
        lab.import_episode(misnamed)
    evil = write_episode(tmp_path / "evil.h5", make_frames(1), make_info("../../evil"))
    with pytest.raises(InputError, match="not safe"):
        lab.import_episode(evil)
    assert len(list(lab.episodes.rglob("*"))) == 2


def test_damage_that_only_reading_shows_is_not_imported(lab: Workspace, tmp_path: Path) -> None:
    source = write_episode(tmp_path / "a.h5", make_frames(5), make_info("a"))
    with h5py.File(source, "r+") as file:
        file["action"][1, 0] += 1
    with pytest.raises(InputError) as caught:
        lab.import_episode(source)
    assert str(caught.value).startswith(f"cannot import {source}: its frames are not those")
    assert [path for path in lab.episodes.rglob("*") if path.is_file()] == []


IMPORT = """
    import sys
    from pathlib import Path
    from pipeline.workspace import Workspace
    from tests.pipeline.episodes import make_info
    lab = Workspace(Path(sys.argv[1]))
    lab.index()
    print("go", flush=True)
    for source in sorted(Path(sys.argv[2]).iterdir()):
        lab.import_episode(source)
"""


def test_an_import_that_is_killed_leaves_whole_episodes_only_and_can_be_repeated(
    lab: Workspace, tmp_path: Path
) -> None:
    sources = tmp_path / "stick"
    for number in range(12):
        name = f"e{number:02}"
        write_episode(sources / f"{name}.h5", make_frames(60, seed=number), make_info(name))
    rng = np.random.default_rng(1)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(IMPORT), str(lab.root), str(sources)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "go\n"
        time.sleep(rng.uniform(0.3, 0.6))  # a child process starts first
        process.kill()
        process.wait()
        process.stdout.close()
        for path in lab.episodes.rglob("*.h5"):
            assert path.read_bytes() == (sources / path.name).read_bytes()
    left = lab.episode_path(TASK, "dead").with_suffix(".h5.import")
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half of it")
    write_episode(sources / "e12.h5", make_frames(3, seed=50), make_info("e12"))
    for source in sorted(sources.iterdir()):
        lab.import_episode(source)
    names = sorted(path.name for path in lab.episodes.rglob("*") if path.is_file())
    assert names == [f"e{number:02}.h5" for number in range(13)]


def test_two_imports_of_one_episode_at_once_do_not_mix(lab: Workspace, tmp_path: Path) -> None:
    source = write_episode(tmp_path / "a.h5", make_frames(5), make_info("a"))
    final = lab.episode_path(TASK, "a")
    final.parent.mkdir()
    with final.with_name("a.h5.import").open("wb") as held:
        held.write(b"another process writes this")
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(InputError, match="being written by another process"):
            lab.import_episode(source)
        assert not final.exists() and final.with_name("a.h5.import").exists()
    assert lab.import_episode(source).path == final
    assert [path.name for path in final.parent.iterdir()] == ["a.h5"]


def test_a_good_episode_has_no_findings(lab: Workspace) -> None:
    rng = np.random.default_rng(3)
    add(lab, "a", [make_frame(i, rng, Source.POLICY) for i in range(30)], policy_checkpoint="c")
    assert lab.check() == []


def nan_action(frames: list[Frame]) -> None:
    frames[4].action[2] = np.nan


def infinite_state(frames: list[Frame]) -> None:
    frames[4].state["tool_wrench"][1] = np.inf


def time_reversal(frames: list[Frame]) -> None:
    frames[5].timestamp_ns = frames[3].timestamp_ns


def camera_time_reversal(frames: list[Frame]) -> None:
    frames[5].camera_timestamp_ns["wrist"] -= 10**9


def gap(frames: list[Frame]) -> None:
    for frame in frames[7:]:
        frame.timestamp_ns += 900_000_000
        frame.camera_timestamp_ns = {c: t + 900_000_000 for c, t in frame.camera_timestamp_ns.items()}


def stale_camera(frames: list[Frame]) -> None:
    for frame in frames:
        frame.camera_timestamp_ns["table"] -= 2 * 10**9


def partly_black(frames: list[Frame]) -> None:
    frames[2].images["wrist"][:] = 1


def all_black(frames: list[Frame]) -> None:
    for frame in frames:
        frame.images["wrist"][:] = 0


def partly_frozen(frames: list[Frame]) -> None:
    for frame in frames[5:17]:
        frame.images["table"] = frames[5].images["table"]


def all_frozen(frames: list[Frame]) -> None:
    for frame in frames:
        frame.images["table"] = frames[0].images["table"]


def silent_policy(frames: list[Frame]) -> None:
    frames[3].source = Source.POLICY


@pytest.mark.parametrize(
    ("spoil", "severity", "message"),
    [
        (nan_action, "fatal", "action is not finite in frame 4"),
        (infinite_state, "fatal", "state tool_wrench is not finite in frame 4"),
        (time_reversal, "fatal", "time does not move forward at frame 5"),
        (camera_time_reversal, "fatal", "camera 'wrist': time moves backwards at frame 5"),
        (gap, "warning", "a gap of up to 1.00 s before frame 7"),
        (stale_camera, "warning", "camera 'table': the image is over 1 s old in 20 frames, first 0"),
        (partly_black, "warning", "camera 'wrist': black in frame 2"),
        (all_black, "fatal", "camera 'wrist': black in 20 frames, first 0"),
        (partly_frozen, "warning", "camera 'table': frozen in frames 5 to 16"),
        (all_frozen, "fatal", "camera 'table': frozen in frames 0 to 19"),
        (silent_policy, "warning", "the policy drove but its action is missing in frame 3"),
    ],
)
def test_each_defect_is_found(lab: Workspace, spoil: object, severity: str, message: str) -> None:
    frames = make_frames(20)
    assert callable(spoil)
    spoil(frames)
    add(lab, "a", frames)
    findings = lab.check()
    assert message in messages(findings, severity)
    assert {(finding.episode_id, finding.path.name) for finding in findings} == {("a", "a.h5")}


def test_a_still_arm_before_a_still_camera_is_no_defect(lab: Workspace) -> None:
    frames = make_frames(30)
    still = [replace(frames[0], timestamp_ns=f.timestamp_ns) for f in frames]
    add(lab, "a", still)
    assert "frozen" not in messages(lab.check(), "warning") + messages(lab.check(), "fatal")


def test_defects_of_files_and_sets_of_files_are_found(lab: Workspace) -> None:
    first = add(lab, "a", make_frames(3))
    add(lab, "copy", make_frames(3))
    add(lab, "cut", truncated=True)
    write_episode(lab.episode_path(TASK, "new"), make_frames(3, seed=8), make_info("new"))
    twin = lab.episodes / "elsewhere" / "a.h5"
    twin.parent.mkdir()
    twin.write_bytes(first.read_bytes())
    (first.parent / "renamed.h5").write_bytes(first.read_bytes())
    (first.parent / "broken.h5").write_bytes(b"broken")
    (first.parent / "dead.h5.part").write_bytes(b"")
    findings = {(f.path.parent.name, f.path.name, f.severity): f.message for f in lab.check()}
    task = first.parent.name
    assert "another episode of this id" in findings[("elsewhere", "a.h5", "fatal")]
    assert (task, "a.h5", "fatal") not in findings, "the one in its task's folder is the right one"
    assert (
        "holds the episode 'a'" in findings[(task, "renamed.h5", "fatal")]
        or "another" in findings[(task, "renamed.h5", "fatal")]
    )
    assert "very frames of episode 'a'" in findings[(task, "copy.h5", "warning")]
    assert "cut short" in findings[(task, "cut.h5", "warning")]
    assert "no label" in findings[(task, "new.h5", "warning")]
    assert "not an HDF5 file" in findings[(task, "broken.h5", "fatal")]
    assert "unfinished" in findings[(task, "dead.h5.part", "warning")]


def test_damage_inside_a_readable_file_is_found(lab: Workspace) -> None:
    changed, shot, short, gone = (add(lab, name) for name in ("changed", "shot", "short", "gone"))
    with h5py.File(changed, "r+") as file:
        file["action"][1, 0] += 1
    with h5py.File(shot, "r+") as file:
        file["observation/images/table"][1] = np.arange(50, dtype=np.uint8)
    with h5py.File(short, "r+") as file:
        file["observation/state/tool_pose"].resize(2, axis=0)
    with h5py.File(gone, "r+") as file:
        del file["source"]
    fatal: dict[str | None, list[str]] = {}
    for finding in lab.check():
        fatal.setdefault(finding.episode_id, []).append(finding.message)
    assert "not those that were recorded" in fatal["changed"][0]
    assert any("cannot be decoded in frame 1" in message for message in fatal["shot"])
    assert fatal["short"][0] == "observation/state/tool_pose has 2 rows but timestamp_ns has 3"
    assert "source cannot be read" in fatal["gone"][0]


def test_listing_reads_no_frames(lab: Workspace) -> None:
    """Frames destroyed in place do not change the list, so it cannot have looked at them."""
    path = add(lab, "a", make_frames(200))
    before = lab.list_episodes()
    with h5py.File(path) as file:
        heap = file["action"].id.get_chunk_info(1)
    with path.open("r+b") as raw:
        raw.seek(heap.byte_offset)
        raw.write(os.urandom(heap.size))
    assert lab.list_episodes() == before
    assert before[0].info.cameras == CAMERAS
    assert "not those" in messages(lab.check(), "fatal")

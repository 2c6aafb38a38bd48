"""Repair: saves what is whole, keeps the rest, and goes on where it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.episode_file import EpisodeReader
from pipeline.episode_finding import Kind, is_fatal
from pipeline.episode_repair import Action, Repair, repairing
from pipeline.errors import InputError
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.pipeline.episodes import TASK, make_frames, make_info, write_episode


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """A workspace with one good episode."""
    lab = Workspace(tmp_path / "lab").create()
    add(lab, "good")
    return lab


def add(lab: Workspace, episode_id: str, length: int = 10, **options: object) -> Path:
    path = lab.episode_path(TASK, episode_id)
    seed = sum(map(ord, episode_id))
    return write_episode(path, make_frames(length, seed=seed), make_info(episode_id, **options))


def repair(lab: Workspace, **options: bool) -> list[Repair]:
    return list(lab.repair(lab.check(), **options))


def fatal(lab: Workspace) -> list[str]:
    return [finding.message for finding in lab.check() if is_fatal(finding)]


def spoil_image(path: Path, row: int) -> None:
    with h5py.File(path, "r+") as file:
        images = file["observation/images/wrist"]
        images[row] = images[row][:-30]


def test_frames_before_a_bad_image_are_saved_under_the_same_id_with_their_label(lab: Workspace) -> None:
    path = add(lab, "shot", 20)
    with LabelStore(lab.labels_path) as store:
        store.sync([("shot", TASK)])
        store.set("shot", "success", "bo")
    recorded = lab.find("shot").fingerprint
    spoil_image(path, 13)
    damaged = path.read_bytes()
    [done] = repair(lab)
    assert (done.action, done.path, done.target) == (Action.CUT, path, path)
    assert "13 of 20 frames saved" in done.reason
    assert (lab.quarantine / "shot.h5").read_bytes() == damaged
    note = (lab.quarantine / "shot.h5.txt").read_text()
    assert f"from: {path}\n" in note and "cannot be decoded in frame 13" in note and "when: 20" in note
    with EpisodeReader(path) as reader:
        assert reader.info.truncated and len(reader) == 13
        assert reader.info.extra == {"cut_from": recorded}
        assert reader.computed_fingerprint() == reader.fingerprint
        np.testing.assert_array_equal(
            reader.actions[12], make_frames(20, seed=sum(map(ord, "shot")))[12].action
        )
    with LabelStore(lab.labels_path) as store:
        assert store.current()["shot"].outcome == "success"
    assert fatal(lab) == [] and repair(lab) == []
    [warning] = [finding for finding in lab.check() if finding.kind is Kind.CUT]
    assert warning.severity == "warning" and "could not be verified" in warning.message


def test_one_repair_leaves_no_misnamed_recording(lab: Workspace) -> None:
    path = add(lab, "right")
    part = path.rename(path.with_name("wrong.h5.part"))
    [done] = repair(lab)
    assert (done.action, done.path) == (Action.QUARANTINED, part)
    assert "holds the episode 'right'" in (lab.quarantine / "wrong.h5.part.txt").read_text()
    assert fatal(lab) == [] and {entry.id for entry in lab.list_episodes()} == {"good"}


def test_foreign_columns_of_an_imported_episode_are_saved_too(lab: Workspace) -> None:
    from pipeline.episode_file import EpisodeWriter

    path = lab.episode_path(TASK, "imported")
    columns = {"reward": np.arange(8.0), "camera/matrix": np.eye(3)}
    with EpisodeWriter(path, make_info("imported"), foreign=columns) as writer:
        for frame in make_frames(8):
            writer.append(frame)
    spoil_image(path, 5)
    repair(lab)
    with EpisodeReader(path) as reader:
        assert reader.foreign_names == ("camera/matrix", "reward")
        np.testing.assert_array_equal(reader.foreign("reward"), np.arange(5.0))
        np.testing.assert_array_equal(reader.foreign("camera/matrix"), np.eye(3))


def test_each_kind_of_fatal_file_has_its_fate_and_a_dry_run_only_says_it(
    lab: Workspace, tmp_path: Path
) -> None:
    changed, misnamed, first = add(lab, "changed"), add(lab, "misnamed"), add(lab, "first")
    with h5py.File(changed, "r+") as file:
        file["action"][1, 0] += 1
    misnamed.rename(misnamed.with_name("other.h5"))
    twin = lab.episodes / "elsewhere" / "first.h5"
    twin.parent.mkdir()
    twin.write_bytes(first.read_bytes())
    spoil_image(add(lab, "at-once"), 0)
    (first.parent / "text.h5").write_text("hello")
    (first.parent / "folder.h5").mkdir()
    (first.parent / "link.h5").symlink_to("nowhere")
    left = add(lab, "left")
    left.rename(f"{left}.part")
    before = {path: path.lstat().st_mtime_ns for path in lab.root.rglob("*") if "cache" not in path.parts}
    would = {done.path.name: done.action for done in repair(lab, dry_run=True)}
    after = {path: path.lstat().st_mtime_ns for path in lab.root.rglob("*") if "cache" not in path.parts}
    assert before == after
    did = {done.path.name: done.action for done in repair(lab)}
    assert (
        did
        == would
        == {
            "left.h5.part": Action.RECOVERED,
            "changed.h5": Action.QUARANTINED,
            "other.h5": Action.RENAMED,
            "first.h5": Action.QUARANTINED,
            "at-once.h5": Action.QUARANTINED,
            "text.h5": Action.QUARANTINED,
            "folder.h5": Action.QUARANTINED,
            "link.h5": Action.QUARANTINED,
        }
    )
    assert first.exists() and not twin.exists() and misnamed.exists()
    assert {entry.id for entry in lab.list_episodes()} == {"good", "misnamed", "first", "left"}
    kept = {path.name for path in lab.quarantine.iterdir() if path.suffix != ".txt"}
    assert kept == {"changed.h5", "first.h5", "at-once.h5", "text.h5", "folder.h5", "link.h5"}
    assert fatal(lab) == [] and repair(lab) == []


def test_a_file_that_was_mended_since_the_check_is_left(lab: Workspace) -> None:
    path = add(lab, "a")
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    findings = lab.check()
    path.write_bytes(whole)
    [done] = lab.repair(findings)
    assert done.action is Action.LEFT and "second look" in done.reason
    assert path.read_bytes() == whole and not lab.quarantine.exists()


def test_a_file_that_may_not_be_read_is_left(lab: Workspace) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = add(lab, "a")
    path.chmod(0)
    assert [done.action for done in repair(lab)] == [Action.LEFT]
    path.chmod(0o600)
    assert fatal(lab) == []


def test_only_one_process_repairs(lab: Workspace) -> None:
    with repairing(lab.episodes), pytest.raises(InputError, match="another process repairs"):
        repair(lab)


REPAIR = """
    import sys
    from pathlib import Path
    from pipeline.workspace import Workspace
    lab = Workspace(Path(sys.argv[1]))
    findings = lab.check()
    print("go", flush=True)
    list(lab.repair(findings))
"""


def test_a_repair_that_is_killed_at_any_moment_loses_nothing_and_is_finished_later(lab: Workspace) -> None:
    rng = np.random.default_rng(0)
    good = lab.find("good").path
    before = good.read_bytes()
    paths = [add(lab, f"e{number}", 12) for number in range(8)]
    for path in paths:
        spoil_image(path, 7)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(REPAIR), str(lab.root)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for path in paths:
            somewhere = [path, path.with_name(path.name + ".repaired"), lab.quarantine / path.name]
            assert any(place.exists() for place in somewhere)
    time.sleep(2)  # the last one's child has to notice, on a busy machine too
    repair(lab)
    assert fatal(lab) == []
    assert {entry.id: entry.length for entry in lab.list_episodes()} == {
        "good": 10,
        **{f"e{number}": 7 for number in range(8)},
    }
    assert sorted(p.name for p in lab.quarantine.iterdir() if p.suffix == ".h5") == sorted(
        p.name for p in paths
    )
    assert good.read_bytes() == before
    names = {path.suffix for path in good.parent.iterdir()}
    assert names == {".h5"}, "no left-over of a killed repair"

"""Episode files: what is written is read back, and nothing half-written or foreign is taken for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.episode import STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeReader, EpisodeWriter, read_entry
from pipeline.errors import Failure, InputError
from tests.pipeline.episodes import make_frames, make_info, write_episode

floats = st.floats(width=32)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def vectors(length: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, (length,), elements=floats)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[EpisodeInfo, list[Frame]]:
    cameras = tuple(draw(st.lists(st.sampled_from(["table", "wrist", "left é"]), unique=True, max_size=3)))
    times = st.integers(0, 2**63 - 1)
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 20)), 3)
    frame = st.builds(
        Frame,
        state=st.fixed_dictionaries({f.name: vectors(f.shape[0]) for f in STATE_FIELDS}),
        images=st.fixed_dictionaries({c: hnp.arrays(np.uint8, shape) for c in cameras}),
        action=vectors(7),
        source=st.sampled_from(list(Source)),
        timestamp_ns=times,
        camera_timestamp_ns=st.fixed_dictionaries(dict.fromkeys(cameras, times)),
        policy_action=st.none() | vectors(7),
    )
    info = make_info(
        task=draw(texts),
        operator=draw(texts),
        cameras=cameras,
        rate_hz=draw(st.floats(0.1, 1000)),
        policy_checkpoint=draw(st.none() | texts),
        operator_mark=draw(st.none() | st.sampled_from(["success", "failure"])),
        truncated=draw(st.booleans()),
        extra=draw(st.dictionaries(texts, st.integers() | st.booleans() | texts | st.none(), max_size=3)),
    )
    return info, draw(st.lists(frame, min_size=1, max_size=6))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(recording=recordings(), flush_interval_s=st.sampled_from([0.0, 1.0]))
def test_every_recording_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    recording: tuple[EpisodeInfo, list[Frame]],
    flush_interval_s: float,
) -> None:
    info, frames = recording
    path = tmp_path_factory.mktemp("e") / "e0001.h5"
    with EpisodeWriter(path, info, flush_interval_s) as writer:
        for frame in frames:
            writer.append(frame)
    with EpisodeReader(path) as episode:
        assert episode.info == info
        assert len(episode) == len(frames)
        for field in STATE_FIELDS:
            expected = np.stack([f.state[field.name] for f in frames])
            np.testing.assert_array_equal(episode.state(field.name), expected)
            assert episode.state(field.name).dtype == np.float32
        np.testing.assert_array_equal(episode.actions, np.stack([f.action for f in frames]))
        nothing = np.full(7, np.nan)
        wanted = [nothing if f.policy_action is None else f.policy_action for f in frames]
        np.testing.assert_array_equal(episode.policy_actions, np.stack(wanted))
        assert episode.sources.tolist() == [int(f.source) for f in frames]
        assert episode.timestamps_ns.tolist() == [f.timestamp_ns for f in frames]
        assert episode.computed_fingerprint() == episode.fingerprint
        for camera in info.cameras:
            times = [f.camera_timestamp_ns[camera] for f in frames]
            assert episode.camera_timestamps_ns(camera).tolist() == times
            for i, frame in enumerate(frames):
                jpeg = np.array(episode.jpegs(camera)[i])
                expected = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))[:, :, ::-1]
                np.testing.assert_array_equal(episode.image(camera, i), expected)
                assert episode.image(camera, i).shape == frame.images[camera].shape
            assert episode.images(camera).shape == (len(frames), *frames[0].images[camera].shape)


def test_images_keep_their_colours_and_places(tmp_path: Path) -> None:
    image = np.zeros((84, 84, 3), np.uint8)
    image[10:16, 20:26] = (220, 30, 30)
    image[50:56, 60:66] = (30, 30, 220)
    frame = replace(make_frames(1)[0], images={"table": image, "wrist": image})
    with EpisodeReader(write_episode(tmp_path / "e0001.h5", [frame], make_info())) as episode:
        read = episode.image("table", 0)
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - image).mean() < 1.5
    assert np.abs(read[13, 23].astype(int) - (220, 30, 30)).max() < 25
    assert np.abs(read[53, 63].astype(int) - (30, 30, 220)).max() < 25


def test_reusing_a_buffer_after_append_changes_nothing(tmp_path: Path) -> None:
    frame = make_frames(1)[0]
    expected_action = frame.action.copy()
    expected_mean = frame.images["table"].mean()
    with EpisodeWriter(tmp_path / "e0001.h5", make_info()) as writer:
        for i in range(20):
            writer.append(replace(frame, timestamp_ns=i))
            frame.action[:] = 0
            frame.images["table"][:] = 255
            if i == 0:
                break
    with EpisodeReader(tmp_path / "e0001.h5") as episode:
        np.testing.assert_array_equal(episode.actions[0], expected_action)
        assert abs(episode.image("table", 0).mean() - expected_mean) < 2


def test_close_publishes_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "task" / "e0001.h5"
    writer = EpisodeWriter(path, make_info())
    writer.append(make_frames(1)[0])
    assert not path.exists()
    assert writer.close(operator_mark="success") == path
    assert writer.close() == path
    assert [p.name for p in path.parent.iterdir()] == ["e0001.h5"]
    entry = read_entry(path)
    assert (entry.info.operator_mark, entry.info.truncated, entry.length) == ("success", False, 1)
    with pytest.raises(InputError, match="closed"):
        writer.append(make_frames(1)[0])


def test_what_is_only_known_at_the_end_joins_the_extra(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path / "e0001.h5", make_info(extra={"scene_seed": 3, "a": 1}))
    writer.append(make_frames(1)[0])
    writer.close(extra={"cameras_lost": {"wrist": {"first_frame": 7, "why": "unplugged"}}, "a": 2})
    assert read_entry(tmp_path / "e0001.h5").info.extra == {
        "scene_seed": 3,
        "a": 2,
        "cameras_lost": {"wrist": {"first_frame": 7, "why": "unplugged"}},
    }


def test_an_exception_closes_the_episode_as_truncated(tmp_path: Path) -> None:
    path = tmp_path / "e0001.h5"
    with pytest.raises(RuntimeError, match="arm lost"), EpisodeWriter(path, make_info()) as writer:
        writer.append(make_frames(1)[0])
        raise RuntimeError("arm lost")
    assert read_entry(path).info.truncated


@pytest.mark.parametrize("end", ["close", "discard", "exception"])
def test_nothing_is_left_of_an_episode_without_frames_or_discarded(tmp_path: Path, end: str) -> None:
    writer = EpisodeWriter(tmp_path / "e0001.h5", make_info())
    if end == "close":
        assert writer.close() is None
    elif end == "discard":
        writer.append(make_frames(1)[0])
        writer.discard()
    else:
        with pytest.raises(RuntimeError), writer:
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_finished_and_running_recordings_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "e0001.h5"
    with EpisodeWriter(path, make_info()) as writer:
        writer.append(make_frames(1)[0])
        for replace_unfinished in (False, True):
            with pytest.raises(InputError, match="another process records it"):
                EpisodeWriter(path, make_info(), replace_unfinished=replace_unfinished)
    before = path.read_bytes()
    with pytest.raises(InputError, match="never overwritten"):
        EpisodeWriter(path, make_info(), replace_unfinished=True)
    assert path.read_bytes() == before


def bad_frames() -> list[tuple[str, Callable[[Frame], Frame]]]:
    image = np.zeros((24, 24, 3), np.uint8)
    return [
        ("action has shape", lambda f: replace(f, action=np.zeros(6))),
        ("policy_action has shape", lambda f: replace(f, policy_action=np.zeros(8))),
        (
            "lacks 'tool_pose'",
            lambda f: replace(f, state={k: v for k, v in f.state.items() if k != "tool_pose"}),
        ),
        ("cameras are", lambda f: replace(f, images={"table": image})),
        ("cameras are", lambda f: replace(f, camera_timestamp_ns={"table": 1})),
        ("float64", lambda f: replace(f, images={"table": image / 2, "wrist": image})),
        ("after", lambda f: replace(f, images={"table": image[:8], "wrist": image})),
        ("negative", lambda f: replace(f, timestamp_ns=-1)),
        ("negative", lambda f: replace(f, camera_timestamp_ns={"table": -1, "wrist": 0})),
    ]


@pytest.mark.parametrize(("message", "spoil"), bad_frames())
def test_frames_off_the_schema_are_refused(
    tmp_path: Path, message: str, spoil: Callable[[Frame], Frame]
) -> None:
    good = make_frames(1)[0]
    with EpisodeWriter(tmp_path / "e0001.h5", make_info()) as writer:
        writer.append(good)
        with pytest.raises(InputError, match=message):
            writer.append(spoil(good))
    assert read_entry(tmp_path / "e0001.h5").length == 1


def test_attributes_that_cannot_be_stored_leave_no_file(tmp_path: Path) -> None:
    for info in (make_info(task="a\0b"), make_info(operator="\ud800"), make_info(extra={"a": object()})):
        with pytest.raises(InputError):
            EpisodeWriter(tmp_path / "e0001.h5", info)
    with pytest.raises(InputError, match="camera names"):
        EpisodeWriter(tmp_path / "e0001.h5", make_info(cameras=("a/b",)))
    assert list(tmp_path.iterdir()) == []


def test_a_full_queue_drops_without_blocking_and_counts(tmp_path: Path) -> None:
    big = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    frame = replace(make_frames(1)[0], images={"table": big, "wrist": big})
    with EpisodeWriter(tmp_path / "e0001.h5", make_info(), queue_size=2) as writer:
        for _ in range(20):
            writer.append(frame, block=False)
        dropped = writer.dropped
    assert 0 < dropped < 20
    with EpisodeReader(tmp_path / "e0001.h5") as episode:
        assert len(episode) == 20 - dropped
        assert episode.dropped == dropped


def test_a_blocking_append_loses_no_frame(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "e0001.h5", make_info(), queue_size=1, flush_interval_s=0.01) as writer:
        for frame in make_frames(200):
            writer.append(frame)
    entry = read_entry(tmp_path / "e0001.h5")
    assert (entry.length, writer.dropped) == (200, 0)


def test_files_that_are_no_episodes_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no episode file"):
        read_entry(tmp_path / "e0001.h5")
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(InputError, match="cannot read"):
        read_entry(text)
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(InputError, match="not an episode"):
        read_entry(tmp_path / "other.h5")
    newer = write_episode(tmp_path / "e0001.h5", make_frames(1), make_info())
    with h5py.File(newer, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(InputError, match="schema version 99"):
        read_entry(newer)


def test_the_reader_refuses_what_is_not_there(tmp_path: Path) -> None:
    path = write_episode(tmp_path / "e0001.h5", make_frames(2), make_info())
    with EpisodeReader(path) as episode:
        np.testing.assert_array_equal(episode.image("table", -1), episode.image("table", 1))
        for read in (
            lambda: episode.image("table", 2),
            lambda: episode.image("left", 0),
            lambda: episode.state("joint"),
        ):
            with pytest.raises(InputError):
                read()
    with pytest.raises(InputError, match="with"):
        len(EpisodeReader(path))


def test_equal_frames_have_equal_fingerprints_however_they_were_batched(tmp_path: Path) -> None:
    frames = make_frames(30)
    fingerprints = []
    for name, interval_s in (("a", 0.0), ("b", 1.0)):
        with EpisodeWriter(tmp_path / f"{name}.h5", make_info(name), interval_s) as writer:
            for frame in frames:
                writer.append(frame)
        fingerprints.append(read_entry(tmp_path / f"{name}.h5").fingerprint)
    other = write_episode(tmp_path / "c.h5", make_frames(30, seed=1), make_info("c"))
    assert fingerprints[0] == fingerprints[1] != read_entry(other).fingerprint


def test_the_documented_ten_lines_read_an_episode(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "episode-format.md").read_text()
    code = document.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 10
    assert "pipeline" not in code
    path = write_episode(tmp_path / "e0001.h5", make_frames(3), make_info(extra={"seed": 4}))
    names: dict[str, Any] = {"path": str(path)}
    exec(code, names)  # the document's own example is what is tested
    with EpisodeReader(path) as episode:
        np.testing.assert_array_equal(names["actions"], episode.actions)
        np.testing.assert_array_equal(names["image"], episode.image("table", 0))
    for field in STATE_FIELDS:
        assert f"`observation/state/{field.name}`" in document
    for attribute in h5py.File(path).attrs:
        assert f"`{attribute}`" in document, attribute
    assert json.dumps({"seed": 4}) in str(names["attributes"])


def test_a_failed_writer_is_reported_with_the_bodys_own_error(tmp_path: Path) -> None:
    path = tmp_path / "e0001.h5"
    with pytest.raises(RuntimeError, match="arm lost") as caught, EpisodeWriter(path, make_info()) as writer:
        writer.append(make_frames(1)[0])
        path.mkdir()  # something took the final name meanwhile
        raise RuntimeError("arm lost")
    assert any("appeared while it was recorded" in note for note in caught.value.__notes__)
    assert (tmp_path / "e0001.h5.part").exists()
    with (
        pytest.raises(Failure, match="appeared"),
        EpisodeWriter(tmp_path / "e2.h5", make_info("e2")) as writer,
    ):
        writer.append(make_frames(1)[0])
        (tmp_path / "e2.h5").touch()

"""What an imported episode may lack, what it keeps of its origin, and columns that do not fit the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.episode import OPTIONAL_FIELDS
from pipeline.episode_file import EpisodeReader, EpisodeWriter, read_entry
from pipeline.errors import InputError
from tests.pipeline.episodes import make_frames, make_info, write_episode

COLUMNS = hnp.arrays(
    st.sampled_from(["float32", "float64", "int64", "uint8", "bool"]),
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0."), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.dictionaries(NAMES, COLUMNS, max_size=4), group=NAMES)
def test_foreign_columns_come_back_as_they_were(
    tmp_path: Path, columns: dict[str, np.ndarray], group: str
) -> None:
    """Names with a "/" too, of every numeric type and shape; the fingerprint does not see them."""
    kept = columns | {f"{group}x/{name}": values for name, values in columns.items()}
    path = tmp_path / "e0001.h5"
    path.unlink(missing_ok=True)
    with EpisodeWriter(path, make_info(), foreign=kept) as writer:
        writer.append(make_frames(1)[0])
    with EpisodeReader(path) as episode:
        assert episode.foreign_names == tuple(sorted(kept))
        for name, values in kept.items():
            stored = episode.foreign(name)
            assert stored.dtype == values.dtype
            np.testing.assert_array_equal(stored, values)
        assert episode.computed_fingerprint() == episode.fingerprint
    plain = write_episode(tmp_path / "e0002.h5", make_frames(1), make_info("e0002"))
    assert read_entry(plain).fingerprint == read_entry(path).fingerprint
    plain.unlink()


def test_a_recorded_episode_keeps_nothing_foreign(tmp_path: Path) -> None:
    """And asking for a column that is not there says so."""
    path = write_episode(tmp_path / "e0001.h5", make_frames(2), make_info())
    with EpisodeReader(path) as episode:
        assert episode.foreign_names == ()
        with pytest.raises(InputError, match="no foreign column 'qpos'"):
            episode.foreign("qpos")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("texts", np.array(["a", "b"])),
        ("objects", np.array([object()])),
        ("a//b", np.zeros(2)),
        ("../action", np.zeros(2)),
        ("nul\0", np.zeros(2)),
        ("", np.zeros(2)),
    ],
)
def test_a_foreign_column_that_cannot_be_kept_leaves_nothing_behind(
    tmp_path: Path, name: str, values: np.ndarray
) -> None:
    """It is refused before a frame is written."""
    with pytest.raises(InputError, match="foreign column"):
        EpisodeWriter(tmp_path / "e0001.h5", make_info(), foreign={name: values})
    assert list(tmp_path.iterdir()) == []


def test_missing_fields_are_recorded(tmp_path: Path) -> None:
    """A recording that lacks the wrench can be trained on, one that lacks actions cannot."""
    info = make_info(missing=("tool_wrench", "action"))
    entry = read_entry(write_episode(tmp_path / "e0001.h5", make_frames(2), info))
    assert entry.info.missing == ("tool_wrench", "action")
    assert entry.info.missing_for_training == ("action",)
    whole = read_entry(write_episode(tmp_path / "e0002.h5", make_frames(2), make_info("e0002")))
    assert whole.info.missing == ()
    with h5py.File(whole.path) as file:
        assert "missing" not in file.attrs


def test_an_unknown_missing_field_is_refused(tmp_path: Path) -> None:
    """The names are the schema's."""
    assert "action" in OPTIONAL_FIELDS
    with pytest.raises(InputError, match="missing 'torque'"):
        EpisodeWriter(tmp_path / "e0001.h5", make_info(missing=("torque",)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("action", np.zeros((3, 6), np.float32)),
        ("action", np.zeros((3, 7), np.float64)),
        ("action", np.zeros((2, 7), np.float32)),
        ("source", np.zeros(3, np.int64)),
        ("camera_timestamp_ns/table", np.zeros((3, 1), np.int64)),
        ("observation/images/table", np.zeros((3, 8), np.uint8)),
        ("observation/state/tool_pose", np.array([b"a", b"b", b"c"])),
    ],
)
def test_a_column_of_another_shape_or_type_is_refused(tmp_path: Path, name: str, values: np.ndarray) -> None:
    """One clear line, whichever way it is read."""
    path = write_episode(tmp_path / "e0001.h5", make_frames(3), make_info())
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, data=values)

    def read_all(episode: EpisodeReader) -> None:
        _ = episode.actions, episode.sources, episode.state("tool_pose")
        _ = episode.camera_timestamps_ns("table"), list(episode.stream_jpegs("table"))

    with EpisodeReader(path) as episode, pytest.raises(InputError, match="damaged"):
        read_all(episode)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate_hz", 0.0),
        ("rate_hz", float("nan")),
        ("rate_hz", "fast"),
        ("extra", "[1]"),
        ("extra", "{"),
        ("missing", "action"),
        ("cameras", "table"),
        ("id", 7),
        ("task", np.zeros(3)),
        ("schema_version", "one"),
        ("schema_version", np.zeros(2)),
    ],
)
def test_a_bad_attribute_is_refused_in_one_line(tmp_path: Path, name: str, value: Any) -> None:
    """Whatever type a damaged or foreign file gives it."""
    path = write_episode(tmp_path / "e0001.h5", make_frames(1), make_info())
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(InputError) as refused:
        read_entry(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    """A folder and a link to nowhere."""
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "link.h5").symlink_to(tmp_path / "nowhere")
    for name in ("folder.h5", "link.h5"):
        with pytest.raises(InputError) as refused:
            read_entry(tmp_path / name)
        assert "\n" not in str(refused.value)


def test_streamed_images_are_the_images(tmp_path: Path) -> None:
    """However many are read at a time."""
    path = write_episode(tmp_path / "e0001.h5", make_frames(7), make_info())
    with EpisodeReader(path) as episode:
        whole = [jpeg.tobytes() for jpeg in episode.jpegs("wrist")]
        for rows in (1, 3, 7, 64):
            assert [jpeg.tobytes() for jpeg in episode.stream_jpegs("wrist", rows)] == whole

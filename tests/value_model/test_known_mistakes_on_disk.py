"""The known mistakes that are made on disk: holes filled with zeros, and tables written in place.

As in ``test_known_mistakes`` each question is asked of the real entry point and then of the mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.conditioned_view import make_view
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache, publish_scores
from pipeline.label_snapshot import freeze, read_snapshot
from pipeline.labels import LabelStore
from pipeline.prompts import POSITIVE
from tests.pipeline import datasets

Exported = tuple[list[EpisodeEntry], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Three episodes and the dataset of them."""
    folder = tmp_path_factory.mktemp("exported")
    entries = datasets.three_episodes(folder)
    return entries, datasets.export(entries, folder / "base", workers=1)


def test_a_missing_advantage_is_never_zero(exported: Exported, tmp_path: Path) -> None:
    entries, base = exported
    columns = datasets.columns_of(entries)
    forgotten = entries[2].id
    del columns["advantage"][forgotten]
    with pytest.raises(InputError, match=forgotten):
        datasets.view(base, entries, tmp_path / "view", extra_columns=columns)
    indicators = datasets.indicators_of(entries)
    del indicators[forgotten]
    with pytest.raises(InputError, match=f"{forgotten} needs one indicator"):
        make_view(base, indicators, tmp_path / "view", indicator_dropout=0.0, seed=0)
    assert not (tmp_path / "view").exists()
    # Filled in with zeros, the same calls would have gone through and called the episode negative.
    columns["advantage"][forgotten] = np.zeros(entries[2].length, np.float32)
    indicators[forgotten] = np.zeros(entries[2].length, np.int8)
    made = make_view(
        base, indicators, tmp_path / "view", indicator_dropout=0.0, seed=0, extra_columns=columns
    )
    assert datasets.open_dataset(made)[len(datasets.open_dataset(made)) - 1]["task"].endswith("negative")
    with pytest.raises(InputError, match="not finite"):
        publish_scores(FrameCache(tmp_path / "cache", 8), "run", "e", {"advantage": np.array([0.1, np.nan])})


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within: only half of any file's bytes are written, then there is an error."""
    whole = Path.write_bytes

    def half(path: Path, data: Any) -> int:
        whole(path, bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_bytes", half)
        yield


def test_tables_are_published_whole_and_never_written_over(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, base = exported

    def torn(folder: Path) -> bool:
        """Whether a snapshot that could not be finished is found under its final name."""
        with LabelStore(tmp_path / "labels.sqlite") as store:
            store.sync([(entry.id, entry.info.task) for entry in entries])
            with full_disk(monkeypatch):
                freeze(store, entries, folder)
        try:
            return [read_snapshot(path) for path in folder.glob("*.parquet")] != []
        except InputError:
            return True

    assert not torn(tmp_path / "atomic")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.label_snapshot.write_file", write_in_place)
        assert torn(tmp_path / "in place")

    made = datasets.view(base, entries, tmp_path / "view")
    before = datasets.contents(made)
    opposite = {i: np.where(codes == POSITIVE, 0, 1).astype(np.int8) for i, codes in
                datasets.indicators_of(entries).items()}  # fmt: skip
    with pytest.raises(InputError, match="view"):
        datasets.view(base, entries, made, indicators=opposite)
    assert datasets.contents(made) == before

    def half_built(out: Path) -> bool:
        def fail(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr("pipeline.view_files._write_episodes", fail)
            datasets.view(base, entries, out)
        return out.exists()

    assert not half_built(tmp_path / "second")
    monkeypatch.setattr("pipeline.conditioned_view.building", building_in_place)
    assert half_built(tmp_path / "third")


def write_in_place(final: Path, data: bytes) -> None:
    final.parent.mkdir(parents=True)
    final.write_bytes(data)


@contextmanager
def building_in_place(final: Path, **_: Any) -> Iterator[Path]:
    final.mkdir(parents=True)
    yield final

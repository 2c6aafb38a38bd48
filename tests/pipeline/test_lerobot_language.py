"""Sub-tasks in LeRobot's language columns: what LeRobot itself reads there, and what we read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conditioned_view import make_view
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.exchange.dataset_table import dataset_table
from pipeline.exchange.language_columns import read_language
from pipeline.label_types import Mark
from pipeline.lerobot_language import LANGUAGE_COLUMNS, Subtask, language_columns, language_features
from pipeline.segment_runs import proposed_segments, segment_runs, subtask_note
from tests.pipeline.datasets import contents, export, indicators_of, open_dataset, three_episodes

pytest.importorskip("lerobot.datasets")

LENGTH, RATE = 12, 10
NAMES = ("reach the cube", "lift it", "put it down")
SPELLINGS = ("Reach the  cube", "lift it ", "put it down")
MARKED = (Subtask("reach the cube", 1, 3), Subtask("lift it", 3, 4), Subtask("put it down", 6, 8))
"""A start that nobody named, two that follow each other, a gap, and an end that nobody named."""

MARKS = st.lists(
    st.builds(
        lambda start, frames, text: Mark("segment", start, start + frames, text),
        *(st.integers(0, LENGTH + 1), st.integers(1, 6), st.sampled_from(SPELLINGS)),
    ),
    max_size=5,
)


Lab = tuple[list[EpisodeEntry], Path, Path]
"""Episodes, their dataset without sub-tasks, and that with them."""


def schema() -> pa.Schema:
    """The columns as LeRobot types them."""
    from lerobot.datasets.feature_utils import get_hf_features_from_features

    return get_hf_features_from_features(language_features()).arrow_schema


def times(length: int = LENGTH) -> np.ndarray:
    """Those of the frames, as a dataset has them."""
    return (np.arange(length) / RATE).astype(np.float32)


def table_of(subtasks: Any, length: int = LENGTH) -> pa.Table:
    """An episode's language columns."""
    columns = language_columns(subtasks, times(length), schema())
    return pa.Table.from_arrays([columns[name] for name in schema().names], schema=schema())


def known(marks: list[Mark], frame: int) -> str | None:
    """The one sub-task whose segments a frame lies in, from the definition."""
    names = {NAMES[SPELLINGS.index(m.text)] for m in marks if frame in range(m.start_frame, m.end_frame)}
    return names.pop() if len(names) == 1 else None


def active(rows: list[dict[str, Any]], time: float) -> str | None:
    """What LeRobot says is done at that time."""
    from lerobot.datasets.language_render import active_at

    found = active_at(time, persistent=rows, style="subtask", role="assistant")
    return None if found is None else str(found["content"])


@given(MARKS)
def test_lerobot_finds_in_each_frame_the_sub_task_that_was_marked_and_we_read_the_same(
    marks: list[Mark],
) -> None:
    runs = segment_runs(marks, LENGTH)
    table = table_of(runs)
    carried = table.column("language_persistent").to_pylist()
    for frame, time in enumerate(times().tolist()):
        assert active(carried[frame], time) == known(marks, frame)
    assert carried[0] == max(carried, key=len)  # who looks at the first frame only sees all
    assert read_language(table, times()) == (runs, ())
    starts = {m.start_frame for m in marks}
    assert all(run.start in starts or known(marks, run.start - 1) != run.name for run in runs)


def test_touching_segments_of_one_name_stay_two_and_overlapping_ones_become_one() -> None:
    wipe = [Mark("segment", 0, 3, "wipe"), Mark("segment", 3, 6, "Wipe"), Mark("segment", 5, 8, "wipe")]
    assert segment_runs(wipe, LENGTH) == (Subtask("wipe", 0, 3), Subtask("wipe", 3, 8))
    assert segment_runs([Mark("success", 2, 2)], LENGTH) == ()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Three episodes, and their dataset without and with sub-tasks of the first."""
    folder = tmp_path_factory.mktemp("lab")
    entries = three_episodes(folder)
    store = folder / "videos"
    plain = export(entries, folder / "plain", video_store=store, workers=1)
    found = {entries[0].id: MARKED}
    marked = export(entries, folder / "marked", video_store=store, workers=1, subtasks=found)
    return entries, plain, marked


def test_lerobots_renderer_makes_messages_of_the_dataset(lab: Lab) -> None:
    from lerobot.configs.recipe import TrainingRecipe
    from lerobot.processor.converters import batch_to_transition
    from lerobot.processor.render_messages_processor import RenderMessagesStep

    said = {"role": "assistant", "stream": "low_level", "target": True, "if_present": "subtask"}
    recipe = {
        "messages": [
            {"role": "user", "content": "${task}", "stream": "high_level"},
            {"content": "${subtask}", **said},
        ]
    }
    render = RenderMessagesStep(TrainingRecipe.from_dict(recipe))
    dataset = open_dataset(lab[2])
    found = []
    for i in range(len(dataset)):
        transition = render(batch_to_transition(dataset[i]))
        messages = None if transition is None else transition["complementary_data"].get("messages")
        found.append(messages and messages[-1]["content"])
    expected = dict.fromkeys(range(len(dataset)))
    expected |= {frame: name for name, start, end in MARKED for frame in range(start, end)}
    assert found == list(expected.values())


def test_lerobots_policies_get_the_same_features_and_batches_with_them_as_without(lab: Lab) -> None:
    import torch
    from lerobot.utils.collate import lerobot_collate_fn
    from lerobot.utils.feature_utils import dataset_to_policy_features
    from torch.utils.data import DataLoader

    plain, marked = (open_dataset(root, delta_timestamps={"action": [0.0, 0.1]}) for root in lab[1:])
    assert marked.meta.has_language_columns and not plain.meta.has_language_columns
    assert dataset_to_policy_features(marked.meta.features) == dataset_to_policy_features(plain.meta.features)
    # As lerobot-train chooses.
    expected = DataLoader(plain, batch_size=7)
    for found, wanted in zip(DataLoader(marked, 7, collate_fn=lerobot_collate_fn), expected, strict=True):
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            if torch.is_tensor(values):
                np.testing.assert_array_equal(found[name].numpy(), values.numpy())
            else:
                assert found[name] == values


def test_without_sub_tasks_nothing_changes_and_with_them_only_what_holds_them(
    lab: Lab,
) -> None:
    plain, marked = contents(lab[1]), contents(lab[2])
    assert "language" not in plain["meta/info.json"].decode() + plain["meta/recap.json"].decode()
    changed = {name for name in plain if plain[name] != marked[name]}
    (data,) = [name for name in plain if name.startswith("data/")]
    assert plain.keys() == marked.keys() and changed == {"meta/info.json", "meta/recap.json", data}
    table = pq.read_table(lab[2] / data)
    rest = table.drop_columns(list(LANGUAGE_COLUMNS))
    assert repr(rest.to_pylist()) == repr(pq.read_table(lab[1] / data).to_pylist())  # NaN is no other NaN
    before = (lab[2] / data).stat().st_mtime_ns
    export(lab[0], lab[2], subtasks={lab[0][0].id: MARKED})
    assert (lab[2] / data).stat().st_mtime_ns == before
    for other in (None, {}, {lab[0][0].id: MARKED[:2]}):
        with pytest.raises(InputError, match="other episodes, labels or options"):
            export(lab[0], lab[2], subtasks=other)


def test_a_view_keeps_them_and_our_policies_train_on_either(lab: Lab, tmp_path: Path) -> None:
    view = make_view(lab[2], indicators_of(lab[0]), tmp_path / "view", indicator_dropout=0.0, seed=0)
    base, conditioned = open_dataset(lab[2]), open_dataset(view)
    assert [conditioned[i]["language_persistent"] for i in range(5)] == [
        base[i]["language_persistent"] for i in range(5)
    ]
    frames, _ = dataset_table(lab[2], 16)
    expected, _ = dataset_table(lab[1], 16)
    np.testing.assert_array_equal(frames.action, expected.action)


@pytest.mark.parametrize(
    "found",
    [
        [Subtask("a", 0, 3), Subtask("b", 2, 4)],
        [Subtask("a", 3, 4), Subtask("b", 0, 2)],
        [Subtask("a", 8, 10)],
        [Subtask(" ", 0, 2)],
        [Subtask("a", 2, 2)],
    ],
)
def test_what_cannot_be_sub_tasks_of_an_episode_is_refused(
    lab: Lab, tmp_path: Path, found: list[Subtask]
) -> None:
    entry = lab[0][0]
    with pytest.raises(InputError, match=f"of episode {entry.id}"):
        export(lab[0], tmp_path / "out", subtasks={entry.id: found})
    with pytest.raises(InputError, match="not to be exported"):
        export(lab[0], tmp_path / "out", subtasks={"stranger": [Subtask("a", 0, 1)]})
    assert not (tmp_path / "out").exists()


def test_imported_sub_tasks_are_proposed_unless_they_cannot_be_marks() -> None:
    extra = {"import": {"format": "lerobot", **subtask_note(MARKED)}}
    marks = proposed_segments(extra, 8)
    assert marks == tuple(Mark("segment", run.start, run.end, run.name) for run in MARKED)
    assert segment_runs(marks, 8) == MARKED
    assert proposed_segments(extra, 7) == ()
    for damaged in (
        {},
        {"import": "no"},
        {"import": {"subtasks": 3}},
        {"import": {"subtasks": [["a", 2, 1]]}},
    ):
        assert proposed_segments(damaged, 8) == ()

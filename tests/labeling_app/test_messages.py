"""What browsers send is checked before anything is done with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_app.messages import MOST_MARKS, Said, read_message
from pipeline.errors import InputError
from pipeline.labels import Mark

LENGTH = 20
GOOD: dict[str, Any] = {
    "token": "e:1",
    "answer": "success",
    "quality": "clean",
    "note": " held it ",
    "marks": [
        {"kind": "success", "start_frame": 19, "end_frame": 19, "text": ""},
        {"kind": "segment", "start_frame": 0, "end_frame": 20, "text": " reach "},
    ],
}


def test_a_whole_answer_is_read() -> None:
    marks = (Mark("success", 19, 19), Mark("segment", 0, 20, "reach"))
    assert read_message(GOOD, LENGTH) == Said("e:1", "success", "clean", "held it", marks)
    assert read_message({"token": "e:1", "answer": "skip"}, LENGTH) == Said("e:1", "skip")


@pytest.mark.parametrize(
    "changed",
    [
        {"answer": "great"},
        {"answer": None},
        {"quality": "superb"},
        {"note": "n" * 501},
        {"note": 5},
        {"token": None},
        {"marks": "none"},
        {"marks": [GOOD["marks"][0]] * (MOST_MARKS + 1)},
        {"marks": [{"kind": "success", "start_frame": 20, "end_frame": 20}]},
        {"marks": [{"kind": "segment", "start_frame": 5, "end_frame": 21, "text": "x"}]},
        {"marks": [{"kind": "segment", "start_frame": 5, "end_frame": 5, "text": "x"}]},
        {"marks": [{"kind": "segment", "start_frame": 0, "end_frame": 5, "text": " "}]},
        {"marks": [{"kind": "dance", "start_frame": 5, "end_frame": 5}]},
        {"marks": [{"kind": "success", "start_frame": True, "end_frame": 1}]},
        {"marks": [{"kind": "success", "start_frame": 1.5, "end_frame": 1.5}]},
        {"marks": [{"kind": "success", "start_frame": -1, "end_frame": -1}]},
        {"marks": [7]},
    ],
)
def test_anything_else_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        read_message({**GOOD, **changed}, LENGTH)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "kind"]), inner),
    max_leaves=10,
)


@given(_values)
def test_no_message_makes_it_fail_otherwise(message: object) -> None:
    try:
        said = read_message(message, LENGTH)
    except InputError:
        return
    assert said.answer in {"success", "failure", "exclude", "skip"}

"""Who drove when."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from labeling_app.driving import DRIVERS, frame_spans
from pipeline.episode import Source


@given(st.lists(st.sampled_from(list(Source)), max_size=50))
def test_spans_cover_every_frame_once_and_neighbours_differ(sources: list[Source]) -> None:
    spans = frame_spans(sources)
    rebuilt = [Source(span.source) for span in spans for _ in range(span.start, span.end)]
    assert rebuilt == sources
    for before, after in pairwise(spans):
        assert before.end == after.start
        assert before.source != after.source


def test_every_source_has_a_driver_of_its_own_colour_and_words() -> None:
    assert set(DRIVERS) == set(Source)
    for what in ("name", "words", "rgb"):
        assert len({getattr(driver, what) for driver in DRIVERS.values()}) == len(DRIVERS)

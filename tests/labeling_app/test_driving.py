"""Who drove when."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from labeling_app.driving import DRIVERS, Span, driving_spans, legend
from pipeline.episode import Source


@given(st.lists(st.sampled_from(list(Source)), max_size=50), st.sampled_from([10.0, 30.0, 7.5]))
def test_spans_cover_every_frame_once_and_neighbours_differ(sources: list[Source], rate_hz: float) -> None:
    spans = driving_spans(sources, rate_hz)
    rebuilt = [span.source for span in spans for _ in range(round((span.end_s - span.start_s) * rate_hz))]
    assert rebuilt == sources
    for before, after in pairwise(spans):
        assert before.end_s == after.start_s
        assert before.source is not after.source


def test_the_legend_names_only_who_drove_and_says_when_a_person_corrected() -> None:
    spans = [
        Span(0.0, 1.2, Source.POLICY),
        Span(1.2, 2.0, Source.INTERVENTION),
        Span(2.0, 3.0, Source.POLICY),
        Span(3.0, 3.5, Source.INTERVENTION),
    ]
    text = legend(spans)
    assert "the policy drove" in text
    assert "a person corrected: 1.2–2.0 s, 3.0–3.5 s" in text
    assert "a person drove" not in text


def test_every_source_has_a_driver_of_its_own_colour() -> None:
    assert set(DRIVERS) == set(Source)
    assert len({driver.rgb for driver in DRIVERS.values()}) == len(DRIVERS)

"""When schedules are due: against a slow enumeration, and on the days on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.workflows.slow_cron import slow_times
from workflows.schedule_times import Recurrence, load_zone, machine_zone

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
)
# Just before clocks are put forward and back, in several of the zones.
STARTS = [
    datetime(2026, 3, 8, tzinfo=UTC),
    datetime(2026, 3, 28, 20, tzinfo=UTC),
    datetime(2026, 10, 24, 20, tzinfo=UTC),
    datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2026, 4, 4, tzinfo=UTC),
    datetime(2026, 10, 3, tzinfo=UTC),
    datetime(2026, 2, 15, tzinfo=UTC),
    datetime(2028, 2, 28, tzinfo=UTC),
]


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """A field of a cron expression: everything, each so many, a range, or a list."""
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(
        st.just("*"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        span,
        st.lists(number, min_size=1, max_size=3, unique=True).map(lambda n: ",".join(map(str, sorted(n)))),
    )


# Not shrunk, since a slow enumeration is slow.
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    minute=field(0, 59),
    hour=st.one_of(field(0, 23), st.just("1-3")),
    day=st.one_of(st.just("*"), st.just("*/1"), field(2, 31)),
    weekday=st.one_of(st.just("*"), st.just("*/1"), field(1, 6)),
    zone=st.sampled_from(ZONES),
    start=st.sampled_from(STARTS),
    shift=st.integers(0, 24 * 3600),
)
def test_times_are_those_of_a_slow_enumeration(
    minute: str, hour: str, day: str, weekday: str, zone: str, start: datetime, shift: int
) -> None:
    expression = f"{minute} {hour} {day} * {weekday}"
    after = start + timedelta(seconds=shift)
    until = after + timedelta(hours=30)
    try:
        recurrence = Recurrence(expression, zone)
    except InputError:
        pytest.skip("never due, as the 31st of months that have none")
    assert list(recurrence.between(after, until)) == slow_times(expression, zone, after, until)


def walls(expression: str, zone: str, start: datetime, count: int) -> list[str]:
    """The next times as the zone's clocks show them, with the offset."""
    found = islice(Recurrence(expression, zone).after(start.replace(tzinfo=ZoneInfo(zone))), count)
    return [f"{time.astimezone(ZoneInfo(zone)):%d %H:%M %z}" for time in found]


def test_a_time_that_does_not_exist_is_the_next_that_does() -> None:
    assert walls("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28), 3) == [
        "28 02:30 +0100",
        "29 03:00 +0200",
        "30 02:30 +0200",
    ]
    # Two that do not exist, and one that is there anyway, are one.
    assert walls("0,30 2,3 * * *", "Europe/Berlin", datetime(2026, 3, 29), 3) == [
        "29 03:00 +0200",
        "29 03:30 +0200",
        "30 02:00 +0200",
    ]


def test_a_time_that_is_there_twice_is_due_once() -> None:
    assert walls("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 25), 2) == [
        "25 02:30 +0200",
        "26 02:30 +0100",
    ]
    assert walls("30 * * * *", "Europe/Berlin", datetime(2026, 10, 25, 1), 3) == [
        "25 01:30 +0200",
        "25 02:30 +0200",
        "25 03:30 +0100",
    ]
    # Asked from within the second of the two hours, nothing of it is due.
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert next(Recurrence("*/10 * * * *", "Europe/Berlin").after(second)) == datetime(
        2026, 10, 25, 2, tzinfo=UTC
    )


def test_a_day_that_does_not_exist_is_passed_over_once() -> None:
    # Samoa had no 30 December 2011.
    assert walls("0 12 * * *", "Pacific/Apia", datetime(2011, 12, 29), 3) == [
        "29 12:00 -1000",
        "31 00:00 +1400",
        "31 12:00 +1400",
    ]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "0 fields"),
        ("0 2 * *", "4 fields"),
        ("0 2 * * * *", "6 fields"),
        ("0 25 * * *", "out of range"),
        ("0 2 30 2 *", "never fits a date"),
        ("R 2 * * *", "what is 'R'?"),
        ("0 h(0-5) * * *", "what is 'h(0-5)'?"),
        ("@reboot", "1 fields"),
        ("0 2 * * someday", "no cron expression"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(expression: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        Recurrence(expression, "UTC")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("@daily", "01-02 00:00"),
        ("0 2 * * mon-fri", "01-02 02:00"),
        ("0 2 l * *", "01-31 02:00"),
        ("0 2 * feb,jul *", "02-01 02:00"),
        ("0 2 * * 1#2", "01-12 02:00"),
        ("0-0 3-3 * * *", "01-02 03:00"),
        ("0-0/5 3-3,4 * * *", "01-02 03:00"),
    ],
)
def test_names_and_short_forms_are_read(expression: str, due: str) -> None:
    start = datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert f"{Recurrence(expression, 'UTC').next_after(start):%m-%d %H:%M}" == due


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "Europe"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InputError, match="no time zone"):
        Recurrence("0 2 * * *", zone)


def test_the_zone_of_this_machine_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert machine_zone() == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "nonsense-12")
    assert machine_zone() == "UTC"
    monkeypatch.delenv("TZ")
    load_zone(machine_zone())

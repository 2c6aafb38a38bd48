"""What a cron expression means, minute by minute: slow, with nothing of the library that schedules use.

Each minute of the time between is looked at on the clock of the zone. It is due where the expression fits
what the clock shows, the first time that it shows it; and where the clock has just been put forward, if it
fits any minute that was passed over.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@cache
def _sets(expression: str) -> tuple[frozenset[int], ...]:
    return tuple(
        frozenset(number for part in field.split(",") for number in _part(part, *limits))
        for field, limits in zip(expression.split(), _RANGES, strict=True)
    )


def _part(part: str, low: int, high: int) -> range:
    span, _, step = part.partition("/")
    if span == "*":
        first, last = low, high
    elif "-" in span:
        first, last = (int(word) for word in span.split("-"))
    else:
        first = last = int(span)
    return range(first, last + 1, int(step or 1))


def fits(expression: str, wall: datetime) -> bool:
    """Whether the clock's reading, a time without a zone, is one of the expression's."""
    minute, hour, day, month, weekday = _sets(expression)
    if wall.minute not in minute or wall.hour not in hour or wall.month not in month:
        return False
    of_day = wall.day in day
    of_week = bool({wall.isoweekday() % 7, wall.isoweekday()} & weekday)
    # As in every cron: where both are given, one of them is enough.
    _, _, day_words, _, weekday_words = expression.split()
    both = not {day_words, weekday_words} & {"*", "*/1"}
    chosen = of_day or of_week if both else of_day and of_week
    return chosen


def slow_times(expression: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """All times due after ``after``, up to ``until`` inclusive, in UTC; these lie on whole minutes or not."""
    place = ZoneInfo(zone)
    moment = after.astimezone(UTC).replace(second=0, microsecond=0)
    before = (moment - MINUTE).astimezone(place).replace(tzinfo=None)
    found = []
    while moment <= until:
        there = moment.astimezone(place)
        wall = there.replace(tzinfo=None)
        # All readings that came up with this minute: itself, and those that the clock has jumped over.
        passed = [before + MINUTE * n for n in range(1, int((wall - before) / MINUTE) + 1)]
        if there.fold == 0 and moment > after and any(fits(expression, one) for one in passed):
            found.append(moment)
        before = wall
        moment += MINUTE
    return found

"""When a schedule is due: a cron expression read in a time zone, as moments in UTC.

The expression is met by the clock on the wall of that zone, with minutes as the finest unit:

- A time that does not exist, since the clock is put forward over it, counts as the first moment that does
  exist after it. Several of them, and a time that falls on that moment anyway, are due once.
- A time that exists twice, since the clock is put back, is due the first time only.

So "30 2 * * *" is due every day, whatever the clock does; and "0 * * * *" is due at 23 moments on the day on
which the clock is put forward and at 24 on the day, of 25 hours, on which it is put back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.errors import InputError

_ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
# croniter knows more: seconds, years, and random or hashed fields, which would differ from tick to tick.
_FIELD = re.compile(r"(?![rRhH])[0-9A-Za-z*,/#?-]+")
# croniter 7 takes the range 2-2 for every value, and */1 for days that are chosen.
_EVERY = re.compile(r"\*/1(?!\d)")
_ONE_VALUE = re.compile(r"(?<![\w-])(\w+)-\1(?:/\d+)?(?![\w/-])")
_EXAMPLE = "write minute, hour, day, month and day of the week, as '0 2 * * *' for every night at two"


@dataclass(frozen=True)
class Recurrence:
    """A cron expression of five fields (or ``@daily`` and its like) and an IANA time zone.

    Raises ``InputError`` where either is none, or where no date ever fits.
    """

    expression: str
    time_zone: str

    def __post_init__(self) -> None:
        """Checks both, by looking for the next time that is due."""
        _require_expression(self.expression)
        load_zone(self.time_zone)
        _require_date(self)

    def next_after(self, moment: datetime) -> datetime:
        """The first time due after ``moment``, in UTC."""
        return next(self.after(moment))

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All times due after ``moment``, in order, in UTC."""
        from croniter import CroniterBadDateError, croniter

        zone = load_zone(self.time_zone)
        # Without a zone, since the library's own answer to a clock that is put back is to run twice.
        expression = _EVERY.sub("*", _ONE_VALUE.sub(r"\1", self.expression))
        walls = croniter(expression, moment.astimezone(zone).replace(tzinfo=None))
        last = moment
        while True:
            try:
                wall = walls.get_next(datetime)
            except CroniterBadDateError:
                raise InputError(f"the cron expression {self.expression!r} never fits a date") from None
            due = _first_moment(wall, zone)
            if due > last:
                last = due
                yield due

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The times due after ``after``, up to ``until`` inclusive, in order, in UTC."""
        if until <= after:
            return
        for due in self.after(after):
            if due > until:
                return
            yield due


def minute_in(moment: datetime, time_zone: str) -> str:
    """A moment to the minute on the clock of an IANA zone, whose abbreviation is named: ``02:00 CET``."""
    return f"{moment.astimezone(load_zone(time_zone)):%Y-%m-%d %H:%M %Z}"


def load_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ``InputError`` for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f"there is no time zone {name!r}: write an IANA name, as Europe/Berlin or UTC"
        ) from None


def machine_zone() -> str:
    """The IANA name of this machine's time zone, UTC where it cannot be told."""
    named = os.environ.get("TZ", "").removeprefix(":")
    if not named:
        _, _, named = os.path.realpath("/etc/localtime").partition("zoneinfo/")
    if not named and Path("/etc/timezone").is_file():
        named = Path("/etc/timezone").read_text().strip()
    try:
        return load_zone(named).key
    except InputError:
        return "UTC"


@cache
def _require_date(recurrence: Recurrence) -> None:
    recurrence.next_after(datetime(2000, 1, 1, tzinfo=UTC))


@cache
def _require_expression(expression: str) -> None:
    from croniter import croniter

    fields = expression.split()
    if expression.strip().lower() in _ALIASES:
        return
    if len(fields) != 5:
        # A * without quotes has become the names of files.
        shortened = expression if len(expression) < 60 else f"{expression[:60]}..."
        raise InputError(
            f"{shortened!r} is no cron expression: it has {len(fields)} fields and needs 5; {_EXAMPLE}"
        )
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise InputError(f"{expression!r} is no cron expression: what is {field!r}? {_EXAMPLE}")
    if not croniter.is_valid(expression):
        raise InputError(f"{expression!r} is no cron expression: {_fault(expression)}; {_EXAMPLE}")


def _fault(expression: str) -> str:
    from croniter import croniter

    try:
        croniter(expression, datetime(2000, 1, 1))
    except (ValueError, KeyError) as error:
        return " ".join(str(error).split()).strip("[]") or "a field is out of range"
    return "a field is out of range"


def _first_moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which the zone's clocks show ``wall`` or, where they never do, a later time."""
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    # In a gap, fold 1 takes the offset after the change and fold 0 the one before it (PEP 495): the change
    # lies between the two moments. Offsets change on whole seconds.
    before, after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), moment
    changed = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == changed:
            after = middle
        else:
            before = middle
    return after

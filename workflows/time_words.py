"""Times and ages as people say them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_UNITS = ((24 * 60, "day"), (60, "hour"), (1, "minute"))


def age_in_words(age: timedelta) -> str:
    """Such as ``3 days``, in the largest unit that fits; ``less than a minute`` below one."""
    minutes = int(age.total_seconds() // 60)
    for size, unit in _UNITS:
        if minutes >= size:
            return f"{minutes // size} {unit}{'' if minutes // size == 1 else 's'}"
    return "less than a minute"


def local_and_ago(utc: str, now: datetime | None = None) -> str:
    """A time (ISO 8601) to the minute on this machine's clock, and how long ago it was."""
    then = datetime.fromisoformat(utc)
    age = (now or datetime.now(UTC)) - then
    ago = f"{age_in_words(age)} ago" if age >= timedelta(minutes=1) else "just now"
    return f"{then.astimezone():%Y-%m-%d %H:%M} ({ago})"


def minute(moment: datetime) -> str:
    """A moment to the minute, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

"""What the browser sends, checked: it comes from outside, and anybody can send anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError
from pipeline.labels import OUTCOMES, QUALITIES, Mark

SKIP = "skip"
LONGEST_NOTE = 500
LONGEST_MARK_TEXT = 200
MOST_MARKS = 100


@dataclass(frozen=True)
class Said:
    """An annotator's answer to one look at an episode.

    ``token`` names the look; ``answer`` is an outcome or ``skip``.
    """

    token: str
    answer: str
    quality: str | None = None
    note: str = ""
    marks: tuple[Mark, ...] = ()


def read_message(message: object, length: int) -> Said:
    """The message of a player that shows an episode of ``length`` frames.

    Raises ``InputError`` for anything that a player would not send.
    """
    fields = _table(message)
    answer, quality = fields.get("answer"), fields.get("quality")
    if answer != SKIP and answer not in OUTCOMES:
        raise InputError("Not saved: that is no answer.")
    if quality is not None and quality not in QUALITIES:
        raise InputError("Not saved: that is no quality.")
    marks = fields.get("marks", [])
    if not isinstance(marks, list) or len(marks) > MOST_MARKS:
        raise InputError(f"Not saved: an episode has at most {MOST_MARKS} marks.")
    return Said(
        token=_text(fields, "token", 500),
        answer=str(answer),
        quality=quality,
        note=_text(fields, "note", LONGEST_NOTE).strip(),
        marks=tuple(_mark(mark, length) for mark in marks),
    )


def _mark(value: object, length: int) -> Mark:
    fields = _table(value)
    frames = [fields.get("start_frame"), fields.get("end_frame")]
    if not all(isinstance(frame, int) and not isinstance(frame, bool) for frame in frames):
        raise InputError("Not saved: a mark names no frame.")
    text = _text(fields, "text", LONGEST_MARK_TEXT).strip()
    mark = Mark(_text(fields, "kind", 20), int(str(frames[0])), int(str(frames[1])), text)
    last = mark.end_frame - (mark.kind == "segment")
    if last >= length:
        raise InputError(f"Not saved: a mark at frame {last + 1} of {length}.")
    return mark


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError("Not saved: the browser sent something that is no answer.")
    return value


def _text(fields: Mapping[str, Any], name: str, longest: int) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > longest:
        raise InputError(f"Not saved: the {name} has at most {longest} characters.")
    return value

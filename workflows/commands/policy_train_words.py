"""The words of ``recap policy train`` that are no options of its own, looked at before LeRobot is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pipeline.errors import InputError

PREFIX = "--policy."
_OWN = ("type", "path")
# How near a misspelt name is to the two; policies have an option "dtype", which is near and right.
_NEAR, _RIGHT = 0.75, ("dtype",)


def check_words(words: Iterable[str], own: Iterable[str]) -> None:
    """Raises ``InputError`` for options that are neither ``own`` nor a policy's, and for misspelt ones.

    ``own``: this command's options, as they are said.
    """
    known = list(own)
    for word in words:
        said = word.partition("=")[0]
        if said.startswith(PREFIX):
            key = said.removeprefix(PREFIX)
            near = [] if key in _RIGHT else difflib.get_close_matches(key, _OWN, n=1, cutoff=_NEAR)
            if near and key not in _OWN:
                raise InputError(f"no such option: {word}: did you mean {PREFIX}{near[0]}?")
        elif word.startswith("-"):
            close = difflib.get_close_matches(said, known, n=1)
            hint = f": did you mean {close[0]}?" if close else " (see 'recap policy train --help')"
            raise InputError(f"no such option: {word}{hint}")

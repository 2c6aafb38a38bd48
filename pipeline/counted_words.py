"""Numbers of things as people say them."""

from __future__ import annotations


def counted(number: int, word: str) -> str:
    """Such as ``1 step`` and ``2 steps``."""
    return f"{number} {word}{'' if number == 1 else 's'}"

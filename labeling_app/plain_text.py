"""Text that people typed, made safe for the places where Streamlit reads Markdown."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """``text`` on one line, with everything escaped that Markdown would act on."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))

"""Typed text shows as typed."""

from __future__ import annotations

import html
import re
import string

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from labeling_app.plain_text import plain


@given(st.text(alphabet=string.printable + "äß漢", max_size=60))
@example("<script>alert(1)</script>")
@example("1. first")
@example("[a](http://b) :red[c] $d$ `e` **f** # g")
def test_markdown_shows_the_text_as_typed(text: str) -> None:
    shown = MarkdownIt("commonmark", {"html": True}).render(plain(text))
    inside = re.fullmatch(r"(?:<p>([^<]*)</p>\n)?", shown)
    assert inside is not None, shown
    assert html.unescape(inside[1] or "") == " ".join(text.split())
    # Streamlit's own directives and formulas begin with these: none may be left unescaped.
    assert not re.search(r"(?<!\\)[:$\[]", plain(text))

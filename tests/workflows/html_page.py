"""A page of HTML as tests look at it: whether tags close, what it refers to, and what a reader sees."""

from __future__ import annotations

from html.parser import HTMLParser

VOID_TAGS = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects text, attributes, and every tag that is not closed in order."""

    def __init__(self, html: str) -> None:
        """Parses ``html`` whole."""
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.errors: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remembers the tag and what it refers to."""
        self.tags.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Checks that the tag closes the one that was opened last."""
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        """Keeps text that a reader sees."""
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

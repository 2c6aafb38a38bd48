"""One line of ``recap doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``needed``: nothing works without it; otherwise only ``remedy`` says for what.

    ``amiss`` is the word for what is not ok, where it is neither missing nor absent; 7 letters at most.
    """

    name: str
    ok: bool
    found: str
    remedy: str
    needed: bool = True
    amiss: str = ""

    @property
    def state(self) -> str:
        """``ok``, ``missing``, ``absent``, or what else is amiss."""
        return "ok" if self.ok else self.amiss or ("missing" if self.needed else "absent")

    def __str__(self) -> str:
        """The line: how it is, what was found, and what to do where something is amiss."""
        return f"{self.state:8}{self.name}: {self.found}{'' if self.ok else f' -> {self.remedy}'}"

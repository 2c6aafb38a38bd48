"""The condition of a schedule, as ``new_labelled_episodes>=50 and hours_since_last_iteration>=12``.

A condition is comparisons of a name with a number, joined by ``and`` and ``or``; ``and`` binds closer, and
there are no brackets. The names are :data:`NAMES`, counted in the workspace when a run is due.

*New* is what the last finished iteration did not use. It names its label snapshot, so labels that came while
it ran are new, and an episode that was given another outcome is new. Where that snapshot is gone, what
was recorded or labelled after the iteration was noted is new.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import Failure, InputError
from pipeline.workspace import EpisodeEntry, IndexedEpisode, Workspace
from workflows.label_loss import require_labels_not_lost

if TYPE_CHECKING:
    from workflows.ledger import Iteration

NAMES = {
    "new_labelled_episodes": "labelled success or failure, and not used so by the last iteration",
    "labelled_episodes": "labelled success or failure",
    "new_episodes": "recorded, and not known to the last iteration; without excluded and disputed ones",
    "episodes": "recorded",
    "unlabelled_episodes": "recorded, and labelled by nobody",
    "disputed_episodes": "on which annotators differ",
    "iterations": "finished turns of the loop",
    "hours_since_last_iteration": "since the last one was noted; infinitely many before the first",
}
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)?)\s*")
_EXAMPLE = "write it as 'new_labelled_episodes>=50', joined by 'and' or 'or'"


@dataclass(frozen=True)
class Comparison:
    """One name against a number."""

    name: str
    sign: str
    number: float


@dataclass(frozen=True)
class Condition:
    """Alternatives, of which one must hold; each is comparisons that must all hold. None: always."""

    alternatives: tuple[tuple[Comparison, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What it asks for, each name once."""
        return tuple(dict.fromkeys(c.name for terms in self.alternatives for c in terms))

    def holds(self, facts: Mapping[str, float]) -> bool:
        """Whether it is met by these numbers; they must have all of :attr:`names`."""
        if not self.alternatives:
            return True
        return any(
            all(_OPERATORS[c.sign](facts[c.name], c.number) for c in terms) for terms in self.alternatives
        )


def parse_condition(text: str) -> Condition:
    """Reads a condition; the empty text always holds.

    Raises ``InputError`` for what is none, and for an unknown name with all that there are.
    """
    if not text.strip():
        return Condition()
    alternatives = []
    for part in re.split(r"\s+or\s+", text):
        terms = []
        for words in re.split(r"\s+and\s+", part):
            found = _COMPARISON.fullmatch(words)
            if found is None:
                raise InputError(f"{words.strip()!r} in the condition {text!r} is no comparison: {_EXAMPLE}")
            name, sign, number = found.groups()
            if name not in NAMES:
                raise InputError(f"unknown name {name!r} in the condition; known are {', '.join(NAMES)}")
            terms.append(Comparison(name, sign, float(number)))
        alternatives.append(tuple(terms))
    return Condition(tuple(alternatives))


def measure(workspace: Workspace, condition: Condition, now: datetime) -> dict[str, float]:
    """What the workspace holds of each name that the condition asks for.

    Raises ``InputError``, with the path, for a file that cannot be read.
    """
    count = WorkspaceCount(workspace, now)
    return {name: float(getattr(count, name)) for name in condition.names}


class WorkspaceCount:
    """Every number of :data:`NAMES` is a property and costs only what it needs; looked at once."""

    def __init__(self, workspace: Workspace, now: datetime) -> None:
        self._workspace = workspace
        self._now = now

    @cached_property
    def items(self) -> list[IndexedEpisode]:
        """The recorded episodes."""
        with _reading(self._workspace.episodes):
            return self._workspace.index()

    @cached_property
    def _entries(self) -> dict[str, EpisodeEntry]:
        return {item.entry.id: item.entry for item in self.items}

    @cached_property
    def labels(self) -> dict[str, tuple[str, datetime]]:
        """Of each recorded episode: the outcome that holds, or ``disputed``; and since when."""
        from pipeline.labels import LabelStore

        path = self._workspace.labels_path
        require_labels_not_lost(self._workspace)
        if not path.exists():
            return {}
        with _reading(path), LabelStore(path) as store, store.moment():
            labels = {n: (one.outcome, _moment(one.created_at)) for n, one in store.current().items()}
            for name, state in store.states().items():
                if state == "disputed":
                    labels[name] = ("disputed", self._now)
        return {name: label for name, label in labels.items() if name in self._entries}

    @cached_property
    def _iterations(self) -> list[Iteration]:
        from workflows.ledger import Ledger

        with _reading(self._workspace.ledger_path):
            return Ledger(self._workspace).iterations()

    @cached_property
    def _last(self) -> tuple[datetime, dict[str, str | None] | None] | None:
        """When the last iteration was noted, and the outcomes it used, if its snapshot is still there."""
        if not self._iterations:
            return None
        last = max(self._iterations, key=lambda iteration: (_moment(iteration.recorded), iteration.n))
        return _moment(last.recorded), _used(self._workspace, last.candidate)

    def _outcomes(self, *names: str) -> dict[str, tuple[str, datetime]]:
        return {name: label for name, label in self.labels.items() if label[0] in names}

    @property
    def episodes(self) -> int:
        """Recorded."""
        return len(self._entries)

    @property
    def labelled_episodes(self) -> int:
        """Labelled success or failure."""
        return len(self._outcomes("success", "failure"))

    @property
    def disputed_episodes(self) -> int:
        """On which annotators differ."""
        return len(self._outcomes("disputed"))

    @property
    def unlabelled_episodes(self) -> int:
        """Labelled by nobody."""
        return len(self._entries.keys() - self.labels.keys())

    @property
    def new_labelled_episodes(self) -> int:
        """Labelled success or failure, and not used so by the last iteration."""
        labelled = self._outcomes("success", "failure")
        if self._last is None:
            return len(labelled)
        noted, used = self._last
        if used is None:
            return sum(since > noted for _, since in labelled.values())
        return sum(used.get(name) != outcome for name, (outcome, _) in labelled.items())

    @property
    def new_episodes(self) -> int:
        """Not known to the last iteration; without excluded and disputed ones."""
        wanted = self._entries.keys() - self._outcomes("exclude", "disputed").keys()
        if self._last is None:
            return len(wanted)
        noted, used = self._last
        if used is None:
            return sum(self._entries[name].path.stat().st_mtime > noted.timestamp() for name in wanted)
        return len(wanted - used.keys())

    @property
    def iterations(self) -> int:
        """Finished turns of the loop."""
        return len(self._iterations)

    @property
    def hours_since_last_iteration(self) -> float:
        """Infinitely many before the first."""
        if self._last is None:
            return float("inf")
        return (self._now - self._last[0]).total_seconds() / 3600


def _used(workspace: Workspace, candidate: str) -> dict[str, str | None] | None:
    """The outcomes in the snapshot that a candidate was trained on, by episode; ``None`` if it is gone."""
    from pipeline.label_snapshot import read_snapshot

    for manifest in workspace.steps.glob(f"[!.]*/{candidate}/manifest.json"):
        with _reading(manifest):
            identity = json.loads(manifest.read_text()).get("inputs", {}).get("snapshot")
        _, external, digest = str(identity).partition("external:")
        if not external:
            continue
        found = list((workspace.root / "snapshots").glob(f"labels-{digest[:16]}.parquet"))
        if found:
            with suppress(InputError):  # damaged is as good as gone
                return {row.episode_id: row.outcome for row in read_snapshot(found[0])}
    return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file becomes one line that names it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError | Failure) and str(path) in str(error):
            raise
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

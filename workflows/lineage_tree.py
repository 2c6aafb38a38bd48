"""A lineage as a tree of plain text, each step once, and what it is in all."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.counted_words import counted
from workflows.lineage import Lineage, LineageSnapshot, LineageStep

_SHORT = 8  # digits of a key


def lineage_lines(found: Lineage) -> list[str]:
    """One line a step (equal ones of several beside each other), labels below it, and a line of totals."""
    return [*_Tree(found).lines(), "", *_totals(found)]


class _Tree:
    def __init__(self, found: Lineage) -> None:
        self._found = found
        self._told: set[str] = set()

    def lines(self) -> Iterator[str]:
        yield from self._steps([self._found.steps[self._found.root]], "", "")

    def _steps(self, group: list[LineageStep], first: str, rest: str) -> Iterator[str]:
        """Steps of one name, which have one line, and what the first of them came from."""
        step = group[0]
        label = f"{len(group)} × {step.name}" if len(group) > 1 else _short(step.address)
        if step.address in self._told:
            yield f"{first}{label} (above)"
            return
        self._told |= {other.address for other in group}
        yield f"{first}{label}{self._facts(group)}"
        children: list[LineageSnapshot | list[LineageStep]] = [
            self._found.snapshots[digest] for digest in step.snapshots
        ]
        inputs = [self._found.steps[address] for address in dict.fromkeys(step.inputs)]
        children += [[s for s in inputs if s.name == name] for name in dict.fromkeys(s.name for s in inputs)]
        for number, child in enumerate(children):
            last = number == len(children) - 1
            here, below = rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")
            if isinstance(child, LineageSnapshot):
                yield here + self._snapshot(child)
            else:
                yield from self._steps(child, here, below)

    def _facts(self, group: list[LineageStep]) -> str:
        results = [step.result for step in group if step.result is not None]
        gone = f", {len(group) - len(results)} gone" if len(results) < len(group) else ""
        if not results:
            return "  gone"
        finished = max(str(result.manifest["finished"]) for result in results)
        seconds = sum(result.seconds for result in results)
        return f"  {finished[:16].replace('T', ' ')}, {seconds:.0f} s{gone}"

    def _snapshot(self, snapshot: LineageSnapshot) -> str:
        name = f"labels {snapshot.digest[:_SHORT]}"
        if snapshot.digest in self._told:
            return f"{name} (above)"
        self._told.add(snapshot.digest)
        if snapshot.path is None:
            return f"{name}: gone, or not readable"
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in snapshot.outcomes)
        return f"{name}: {counted(len(snapshot.episodes), 'episode')}: {outcomes}"


def _totals(found: Lineage) -> Iterator[str]:
    gone_steps = sum(step.result is None for step in found.steps.values())
    steps = counted(len(found.steps), "step") + (f" ({gone_steps} gone)" if gone_steps else "")
    episodes = counted(len(found.episodes), "episode") + (f" ({len(found.gone)} gone)" if found.gone else "")
    labels, snapshots = counted(len(found.labels), "label"), counted(len(found.snapshots), "snapshot")
    yield f"in all: {steps}, {episodes}, {labels} in {snapshots}"
    # The newest snapshot has all episodes of the earlier ones.
    newest = next((s for s in found.snapshots.values() if s.path is not None), None)
    if newest is None:
        return
    if newest.annotators:
        yield "labelled by " + ", ".join(f"{name} ({count})" for name, count in newest.annotators)
    if newest.policies:
        yield "rolled out by " + ", ".join(f"{_short(name)} ({count})" for name, count in newest.policies)


def _short(address: str) -> str:
    name, slash, key = address.partition("/")
    return f"{name}{slash}{key[:_SHORT]}"

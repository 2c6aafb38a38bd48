"""Why a step would run: what of its recipe is unlike the published step of that name it resembles most.

Nothing here starts Ray, computes, or writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workflows.step_recipe import Step
from workflows.step_store import StepResult, StepStore

_NAMED = 3  # differences that a sentence names
_ABSENT = object()


@dataclass(frozen=True)
class PlannedStep:
    """A step and what a run would do with it: ``done`` already, or ``to run`` and ``why``."""

    step: Step
    state: Literal["done", "to run"]
    why: str


def plan(store: StepStore, steps: Sequence[Step]) -> list[PlannedStep]:
    """What running ``steps`` would do: each, and each unpublished step that they need, once, needed first."""
    published = _Published(store)
    planned: dict[tuple[str, str], PlannedStep] = {}

    def visit(step: Step) -> None:
        address = (step.name, step.key)
        if address in planned:
            return
        if store.find(step) is not None:
            planned[address] = PlannedStep(step, "done", "published")
            return
        for needed in step.upstream():
            visit(needed)
        planned[address] = PlannedStep(step, "to run", published.explain(step))

    for step in steps:
        visit(step)
    return list(planned.values())


def explain(store: StepStore, step: Step) -> str:
    """One line: why ``step`` would run, compared with the most similar published step of its name.

    Of several that are equally similar the newest counts. A changed input is named; where it is itself a
    step that has yet to run, that is said, and its own explanation tells the rest.
    """
    return "published" if store.find(step) is not None else _Published(store).explain(step)


class _Published:
    """The manifests of published steps by name, each read once."""

    def __init__(self, store: StepStore) -> None:
        self._store = store
        self._by_name: dict[str, list[StepResult]] = {}

    def explain(self, step: Step) -> str:
        """As the module's function, for a step that is not published."""
        candidates = self._named(step.name)
        if not candidates:
            return f"no step {step.name} was published before"
        closest = max(candidates, key=lambda found: (-_distance(step, found), found.manifest["finished"]))
        differences = list(self._differences(step, closest))
        said = "; ".join(differences[:_NAMED])
        more = len(differences) - _NAMED
        return f"{said}; and {more} more" if more > 0 else said

    def _named(self, name: str) -> list[StepResult]:
        if name not in self._by_name:
            self._by_name[name] = self._store.published(name)
        return self._by_name[name]

    def _differences(self, step: Step, other: StepResult) -> Iterator[str]:
        manifest = other.manifest
        yield from _code_differences(step, manifest)
        for place, (now, before) in _changed(dict(step.parameters), manifest["parameters"]).items():
            yield _parameter_difference(place, now, before)
        if step.seed != manifest["seed"]:
            yield f"seed is {step.seed}, was {manifest['seed']}"
        unpublished = {
            f"{needed.name}/{needed.key}" for needed in step.upstream() if self._store.find(needed) is None
        }
        changed = _changed(step.input_identities(), manifest["inputs"])
        for place, (now, before) in changed.items():
            yield _input_difference(place, now, before, str(now) in unpublished)


def _code_differences(step: Step, manifest: Mapping[str, Any]) -> Iterator[str]:
    if step.code_version == manifest["code_version"]:
        return
    # Manifests of earlier versions do not tell the parts.
    before: Mapping[str, str] = manifest.get("code", {})
    now = step.code_parts()
    changed = [name for name in now if name in before and before[name] != now[name]]
    changed += [name for name in now if name not in before] + [name for name in before if name not in now]
    named = ", ".join(changed[:_NAMED]) + (", …" if len(changed) > _NAMED else "")
    yield f"the code of {named} changed" if before and changed else "the code changed"


def _parameter_difference(place: str, now: Any, before: Any) -> str:
    if now is _ABSENT:
        return f"{place} is no more"
    # As JSON: None and False are what parameters call null and false.
    said = json.dumps(now, ensure_ascii=False)
    return f"{place} is new ({said})" if before is _ABSENT else f"{place} is {said}, was {json.dumps(before)}"


def _input_difference(place: str, now: Any, before: Any, to_run: bool) -> str:
    if now is _ABSENT:
        return f"input {place} is no more"
    if not isinstance(now, str) or now.startswith("external:"):
        return f"input {place} changed"
    name = now.partition("/")[0]
    said = place if place == name else f"{place} ({name})"
    if before is _ABSENT:
        return f"input {said} is new"
    return f"input {said} has to run first" if to_run else f"input {said} is another one"


def _distance(step: Step, other: StepResult) -> int:
    """How many parts of the recipe differ."""
    manifest = other.manifest
    return (
        (step.code_version != manifest["code_version"])
        + (step.seed != manifest["seed"])
        + len(_changed(dict(step.parameters), manifest["parameters"]))
        + len(_changed(step.input_identities(), manifest["inputs"]))
    )


def _changed(now: Any, before: Any) -> dict[str, tuple[Any, Any]]:
    """The places where two plain JSON values differ: dotted names to (now, before)."""
    left, right = dict(_leaves(now)), dict(_leaves(before))
    places = [*left, *(place for place in right if place not in left)]
    return {
        place: (left.get(place, _ABSENT), right.get(place, _ABSENT))
        for place in places
        if left.get(place, _ABSENT) != right.get(place, _ABSENT)
    }


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name in value:
            yield from _leaves(value[name], f"{place}.{name}" if place else str(name))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(item, f"{place}[{number}]")
    elif place:
        yield place, value

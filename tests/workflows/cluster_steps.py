"""Steps for the tests of a cluster, and the graphs that its drivers compute."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ray

from tests.workflows import sample_steps
from workflows.progress import Progress
from workflows.step_recipe import ExternalInput, Step


def meet_there(out: Path, *, here: str, other: str, place: Path, progress: Progress) -> dict[str, Any]:
    """Ends only beside the other one; the result says on which node it ran."""
    sample_steps.meet(out, here=here, other=other, place=place, progress=progress)
    return {"node": ray.get_runtime_context().get_node_id()}


def beat(out: Path, *, place: Path, name: str, seconds: float, progress: Progress) -> dict[str, Any]:
    """Says twenty times a second that it lives, and on which node, in a file of each attempt's own.

    So long, or until there is a file ``go``.
    """
    node = ray.get_runtime_context().get_node_id()
    mark = place / f"{name}.{node[:8]}.{os.getpid()}"
    for done in range(round(seconds * 20)):
        mark.write_text(str(done))
        if (place / "go").exists():
            break
        progress(done, round(seconds * 20))
        time.sleep(0.05)
    return {"node": node}


def pair(place: Path) -> list[Step]:
    """Two steps that end only when they run at the same time: on two nodes of one core each."""
    names = [("ana", "ben"), ("ben", "ana")]
    inputs = {"place": ExternalInput(place, "meeting place")}
    return [Step("meet", meet_there, {"here": here, "other": other}, inputs) for here, other in names]


def beats(place: Path, number: int, seconds: float) -> list[Step]:
    """Steps that take so long each."""
    inputs = {"place": ExternalInput(place, "marks")}
    return [Step("beat", beat, {"name": f"b{n}", "seconds": seconds}, inputs) for n in range(number)]

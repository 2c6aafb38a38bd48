"""The lists of modules in a step's key: whatever of the value model decides a result is on them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import value_model
from workflows.step_code import ADVANTAGES, SCORING, VALUE_TRAINING

ROOT = Path(value_model.__file__).parent


def imported_from(*names: str, without: tuple[str, ...] = ()) -> set[str]:
    """The value model's modules that these import, and that those import in turn."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        found.add(name)
        for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("value_model."):
                waiting.append(str(node.module).split(".")[1])
    return found


# What labels decide is in the parameters of a scoring run, not in its code.
@pytest.mark.parametrize(
    ("named", "entries", "without"),
    [
        (VALUE_TRAINING, ("training", "vlm_network"), ()),
        (SCORING, ("scoring", "vlm_network"), ("advantages", "returns")),
        (ADVANTAGES, ("advantages", "calibration", "comparators", "checkpoint"), ()),
    ],
    ids=["training", "scoring", "advantages"],
)
def test_all_that_decides_a_result_is_in_the_steps_key(
    named: tuple[str, ...], entries: tuple[str, ...], without: tuple[str, ...]
) -> None:
    listed = {entry.split(".")[1] for entry in named if entry.startswith("value_model.")}
    assert imported_from(*entries, without=without) == listed


def test_what_only_judges_is_not() -> None:
    gate = imported_from("gate") - imported_from("advantages", "calibration")
    assert "gate_values" in gate
    for name in gate:
        assert f"value_model.{name}" not in {*VALUE_TRAINING, *SCORING, *ADVANTAGES}

"""The lists of modules in a step's key: whatever decides a result is on them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import value_model
from workflows import report_graph, step_code
from workflows.step_code import ADVANTAGES, SCORING, VALUE_TRAINING

ROOT = Path(value_model.__file__).parent
REPOSITORY = ROOT.parent


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


OURS = ("pipeline", "collectors", "value_model", "workflows")
# Modules that only read, write, check or guard what is stored in a format with a version of its own, or say
# where things are and how much of the machine is used: they decide no result.
HARMLESS = {
    *(
        f"pipeline.{name}"
        for name in (
            "atomic_folder",
            "durable_files",
            "errors",
            "file_lock",
            "guarded_child",
            "guarded_reading",
            "object_store",
            "quarantine",
            "resume_state",
            "workspace",
        )
    ),
    *(
        f"workflows.{name}"
        for name in (
            "array_files",
            "available_memory",
            "cluster_place",
            "comparison",
            "gpu_share",
            "json_documents",
            "local_ray",
            "progress",
            "step_files",
            "step_recipe",
            "step_result",
            "value_ensemble",
        )
    ),
}
# Families of the same kind: episode files, labels, a site's own facts.
HARMLESS_FAMILIES = ("pipeline.episode_", "pipeline.label_", "pipeline.labels", "pipeline.site_")
# The columns of an episode, and how scores are kept: of the formats, too.
HARMLESS |= {"pipeline.episode", "pipeline.frame_scores"}


def source(module: str) -> Path | None:
    """The file of one of our modules, or of a package."""
    for path in (
        REPOSITORY / f"{module.replace('.', '/')}.py",
        REPOSITORY / module.replace(".", "/") / "__init__.py",
    ):
        if path.exists():
            return path
    return None


def imports_of(path: Path) -> set[str]:
    """Our modules that a file imports, inside functions too, but not for type checkers alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            module = str(node.module)
            within = {f"{module}.{alias.name}" for alias in node.names if source(f"{module}.{alias.name}")}
            found |= within or {module}
    return found


def everything_imported(*entries: str) -> set[str]:
    """These modules, and all of ours that they import, directly or not; not beyond the harmless ones."""
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        path = source(module)
        if module in found or is_harmless(module) or path is None:
            continue
        found.add(module)
        waiting.extend(imports_of(path))
    return found


def is_harmless(module: str) -> bool:
    """Whether the module decides no result."""
    return module in HARMLESS or module.startswith(HARMLESS_FAMILIES)


@pytest.mark.parametrize(
    ("named", "entries"),
    [
        (step_code.CACHE, ("pipeline.frame_cache",)),
        (step_code.DATASET, ("pipeline.lerobot_dataset",)),
        (step_code.COLLECTING, ("collectors.simulated_sessions",)),
        (step_code.TRAINING, ("workflows.policy_training", "workflows.snapshot_table")),
        (step_code.EVALUATING, ("workflows.evaluation",)),
        (VALUE_TRAINING, ("workflows.value_training", "workflows.snapshot_table")),
        (SCORING, ("workflows.scoring_worker",)),
        (ADVANTAGES, ("value_model.advantages", "workflows.rival_values")),
    ],
    ids=[
        "cache",
        "dataset",
        "collecting",
        "training",
        "evaluating",
        "value training",
        "scoring",
        "advantages",
    ],
)
def test_whatever_else_a_step_runs_is_in_its_key_or_named_as_harmless(
    named: tuple[str, ...], entries: tuple[str, ...]
) -> None:
    missing = {
        module
        for module in everything_imported(*entries)
        if not any(module == name or module.startswith(f"{name}.") for name in named)
    }
    # Scoring is of stored frames: the table and what labels make of them are imported beside it.
    beside = {"pipeline.frame_table", "value_model.returns"} if named is SCORING else set()
    assert missing == beside


def test_the_test_that_a_report_compares_by_is_in_its_key() -> None:
    path = source("workflows.paired_comparison")
    assert path is not None
    assert {"workflows.paired_comparison", *imports_of(path)} <= set(report_graph._REPORTING)


def test_what_is_named_as_harmless_exists() -> None:
    assert [module for module in sorted(HARMLESS) if source(module) is None] == []

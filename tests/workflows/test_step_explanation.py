"""What a run would do and why, without running anything."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workflows import sample_steps
from workflows.step_explanation import explain, plan
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepStore


def silent(done: int, total: int, message: str = "") -> None:
    """Shows nothing."""


def noise(seed: int = 0, size: int = 20) -> Step:
    return Step("noise", sample_steps.write_noise, {"size": size}, seed=seed)


def total(left: Step, right: Step, *others: Step) -> Step:
    inputs: dict[str, Step | list[Step]] = {"left": left, "right": right, "others": list(others)}
    return Step("total", sample_steps.add_up, inputs=inputs)


@pytest.fixture
def store(tmp_path: Path) -> StepStore:
    """With noise 1 to 3 and a total of 1 and 2 published."""
    store = StepStore(tmp_path / "steps")
    for step in (noise(1), noise(2), noise(3), total(noise(1), noise(2))):
        store.execute(store.call(step), silent)
    return store


def test_a_plan_says_what_is_done_and_what_would_run_and_why_in_order(store: StepStore) -> None:
    wanted = total(noise(1), noise(2, size=30))
    planned = plan(store, [wanted, noise(3), wanted])
    assert [(p.step.name, p.state) for p in planned] == [
        ("noise", "done"),
        ("noise", "to run"),
        ("total", "to run"),
        ("noise", "done"),
    ]
    assert planned[1].why == "size is 30, was 20"
    assert planned[2].why == "input right (noise) has to run first"
    assert all(p.why == "published" for p in planned if p.state == "done")
    assert plan(store, [total(noise(1), noise(2))])[-1].state == "done"


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (noise(1), "published"),
        (Step("other", sample_steps.tell_environment), "no step other was published before"),
        (noise(7), "seed is 7, was [123]"),
        (noise(2, size=21), "size is 21, was 20"),
        (total(noise(1), noise(3)), r"input right \(noise\) is another one"),
        (total(noise(1), noise(2), noise(3)), r"input others\[0\] \(noise\) is new; input others is no more"),
        (
            replace(total(noise(1), noise(2)), code=("pipeline.errors",)),
            r"the code of pipeline\.errors changed",
        ),
    ],
)
def test_the_difference_to_the_most_similar_step_is_named(store: StepStore, step: Step, why: str) -> None:
    assert re.fullmatch(why, explain(store, step))


def test_a_list_of_inputs_may_become_empty_and_parameters_come_and_go(store: StepStore) -> None:
    store.execute(store.call(total(noise(1), noise(2), noise(3))), silent)
    for result in store.published("total"):
        if not result.manifest["inputs"]["others"]:
            shutil.rmtree(result.path)
    assert explain(store, total(noise(1), noise(2))) == "input others changed; input others[0] is no more"
    slow = Step("noise", sample_steps.write_noise, {"size": 20, "seconds": 0.5}, seed=1)
    assert explain(store, slow) == "seconds is new (0.5)"
    for seed in (1, 2, 3):
        shutil.rmtree(store.path(noise(seed)))
    store.execute(store.call(slow), silent)
    assert explain(store, noise(1)) == "seconds is no more"


def test_changed_labels_are_an_input_that_changed(store: StepStore, tmp_path: Path) -> None:
    def read() -> Step:
        return Step("read", sample_steps.read_text, inputs={"file": ExternalInput.of(tmp_path / "labels")})

    (tmp_path / "labels").write_text("a success")
    store.execute(store.call(read()), silent)
    (tmp_path / "labels").write_text("a failure")
    assert explain(store, read()) == "input file changed"


def test_a_manifest_of_an_earlier_version_has_no_parts_of_the_code(store: StepStore) -> None:
    step = replace(noise(1), code=("pipeline.errors",))
    for result in store.published("noise"):
        path = result.path / "manifest.json"
        path.write_text(path.read_text().replace('"code":', '"codex":'))
    assert explain(store, step) == "the code changed"


def test_many_differences_are_counted(store: StepStore) -> None:
    bare = Step("total", sample_steps.add_up, {"others": None}, {"left": noise(8), "right": noise(9)})
    said = explain(store, replace(bare, code=("pipeline.errors",)))
    assert said.endswith("and 2 more") and said.count(";") == 3


def test_planning_starts_no_ray(store: StepStore) -> None:
    loaded = "ray" in sys.modules
    plan(store, [noise(99)])
    assert ("ray" in sys.modules) == loaded

"""Steps and scoring on a real Ray cluster of two nodes: both are used, and any process of it may be lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.scoring_workspace import make_ensemble, make_workspace
from tests.workflows.two_nodes import ROOT, TwoNodes, environment, two_nodes
from workflows.step_store import StepStore

WAIT_S = 180.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with two_nodes() as cluster:
        yield cluster


def drive(cluster: TwoNodes, what: str, workspace: Path, number: float = 0) -> subprocess.Popen[str]:
    """Starts a driver."""
    command = [sys.executable, "-m", "tests.workflows.cluster_driver", what, cluster.address]
    return subprocess.Popen(
        [*command, str(workspace), str(number)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(driver: subprocess.Popen[str]) -> dict[str, Any]:
    """What a driver printed at its end."""
    output, errors = driver.communicate(timeout=WAIT_S)
    assert output, errors[-3000:]
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def marks(driver: subprocess.Popen[str], workspace: Path, number: int) -> dict[str, Path]:
    """The marks of ``number`` steps at work, waited for, by the first digits of their nodes."""
    deadline = time.monotonic() + WAIT_S
    while driver.poll() is None and time.monotonic() < deadline:
        found = {path.name.split(".")[1]: path for path in workspace.glob("marks/b*")}
        if len(found) >= number:
            return found
        time.sleep(0.05)
    driver.kill()
    raise AssertionError(f"{number} steps did not begin: {driver.communicate()}")


def node_ids(result: dict[str, Any]) -> list[str]:
    return [found["node"][:8] for found in result["results"]]


def test_two_drivers_at_once_each_use_both_nodes_and_a_lost_worker_is_replaced(
    cluster: TwoNodes, tmp_path: Path
) -> None:
    drivers = [drive(cluster, "pair", tmp_path / "one"), drive(cluster, "die", tmp_path / "two")]
    pair, died = (said(driver) for driver in drivers)
    assert pair.get("computed") == 2 and len(set(node_ids(pair))) == 2, pair
    assert died == {"results": [{}], "computed": 1}
    store = StepStore(tmp_path / "two" / "steps")
    [result] = store.published()
    assert (result.path / "half.txt").read_text() == "whole"
    for name in ("one", "two"):
        assert not list((tmp_path / name / "steps" / ".locks").iterdir()), "the marks are gone"


def test_the_workers_of_a_killed_driver_end_and_the_next_one_goes_on(
    cluster: TwoNodes, tmp_path: Path
) -> None:
    driver = drive(cluster, "beats", tmp_path, 60)
    at_work = marks(driver, tmp_path, 2)
    driver.kill()
    driver.communicate()
    time.sleep(3)
    before = {path: path.read_text() for path in at_work.values()}
    time.sleep(1)
    assert {path: path.read_text() for path in at_work.values()} == before, "a worker outlived its driver"
    result = said(drive(cluster, "environment", tmp_path))
    # 64 cores were asked for, and no node has more than one.
    assert result["results"][0]["threads"] == "64" and result["computed"] == 1
    assert not list(tmp_path.glob("steps/*/.*.partial")) and not list(tmp_path.glob("steps/.locks/*"))


def test_what_no_node_has_is_said_at_once(cluster: TwoNodes, tmp_path: Path) -> None:
    result = said(drive(cluster, "gpu", tmp_path))
    assert result["kind"] == "InputError"
    assert "step environment needs 1 GPU, and there is 0 on any machine of the cluster" in result["error"]


def test_two_nodes_score_as_one_process_does(cluster: TwoNodes, tmp_path: Path) -> None:
    workspace, entries = make_workspace(tmp_path, [20 + i % 7 for i in range(16)])
    make_ensemble(workspace, [entry.id for entry in entries[:12]], members=2)
    assert said(drive(cluster, "score", tmp_path)) == {"workers": 2, "scored": 16, "same": True}


def test_steps_of_a_lost_node_run_again_elsewhere_and_a_new_node_is_used(
    cluster: TwoNodes, tmp_path: Path
) -> None:
    driver = drive(cluster, "beats", tmp_path, WAIT_S)
    first = marks(driver, tmp_path, 2)
    cluster.nodes.pop().kill()
    cluster.add()
    marks(driver, tmp_path, 3)  # however long a busy machine took to add it
    (tmp_path / "marks" / "go").touch()
    result = said(driver)
    assert result.get("computed") == 3, result
    nodes = set(node_ids(result))
    assert len(nodes) == 2 and len(nodes & set(first)) == 1, "one was lost and one is new"
    completed = [(line["name"], line["key"]) for line in StepStore(tmp_path / "steps").completions()]
    assert len(completed) == len(set(completed)) == 3
    attempts = len(list(tmp_path.glob("marks/b*")))
    assert attempts == 4, "only what the lost node was at work on was begun again"


def test_the_death_of_the_head_is_one_line_and_the_command_goes_on_elsewhere(
    cluster: TwoNodes, tmp_path: Path
) -> None:
    """The last of this module: afterwards there is no cluster."""
    driver = drive(cluster, "beats", tmp_path, 60)
    marks(driver, tmp_path, 2)
    cluster.nodes[0].kill()
    result = said(driver)
    assert result["kind"] == "HeadLost" and "\n" not in result["error"]
    assert f"the head of the Ray cluster at {cluster.address} is gone" in result["error"]
    assert driver.returncode == 0

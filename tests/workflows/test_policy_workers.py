"""How many processes, or threads of one, train a policy: what that changes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.site_config import load_site_config
from pipeline.site_policy import PolicySection
from pipeline.workspace import Workspace
from tests.workflows.door_lab import make_lab
from workflows.cli import main
from workflows.gpu_share import require_workers
from workflows.improvement import Loop, base_of
from workflows.ledger import Ledger
from workflows.loop_graph import LoopGraph
from workflows.policy_door import DoorConfig, newest_data, workspace_step
from workflows.settings import FULL, LoopSettings, PolicySettings, settings_from_site
from workflows.steps import StepRunner


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_lab(tmp_path_factory.mktemp("lab"))


def says(workspace: Workspace, text: str) -> LoopSettings:
    """The settings of a turn where recap.toml says that."""
    workspace.config_path.write_text(text)
    try:
        return settings_from_site(FULL, load_site_config(workspace.config_path))
    finally:
        workspace.config_path.unlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "4096", "--batch-size", "5000"], "4096 workers need as many cores, and there are"),
        (["--threads", "4096"], "4096 threads need as many cores, and there are"),
        (
            ["--workers", "2", "--threads", "2"],
            "2 workers compute on a core or a GPU each",
        ),
        (["--threads", "2", "--device", "cuda"], "'cuda' computes, not the CPU: leave the 2 threads out"),
        (["--workers", "65"], "batches of 64 observations are too small for 65 workers"),
        (["--ray-address", "somewhere"], "'somewhere' is no address of a Ray cluster"),
        (["--workers", "2", "--device", "cuda"], "2 workers need as many GPUs, and there are"),
    ],
)
def test_what_there_is_no_room_for_is_refused_before_anything_begins(
    lab: Workspace, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if "GPUs" in message and torch.cuda.device_count() > 1:
        pytest.skip("there are two GPUs")
    before = sorted(lab.steps.rglob("*"))
    assert main(["policy", "train", "--workspace", str(lab.root), *words]) == 2
    out, said = capsys.readouterr()
    assert message in said and said.count("\n") == 1 and out == ""
    assert sorted(lab.steps.rglob("*")) == before


def test_of_rays_machines_all_together_count() -> None:
    require_workers("cuda:0", 3, {"CPU": 1.0, "GPU": 3.0})
    require_workers("cpu", 1, {})
    with pytest.raises(InputError, match="4 workers need as many GPUs, and there are 3: use fewer"):
        require_workers("cuda", 4, {"CPU": 9.0, "GPU": 3.0})


def test_one_process_is_no_other_step_and_several_are(lab: Workspace) -> None:
    def step(**training: Any) -> Any:
        return workspace_step(lab, newest_data(lab), DoorConfig("gen3_vla", training=training))

    plain, one, two = step(), step(workers=1), step(workers=2)
    assert plain.key == one.key != two.key
    assert (plain.num_cpus, two.num_cpus) == (1, 0), "they reserve cores of their own"
    assert "workers" not in one.parameters["training"] and two.parameters["training"]["workers"] == 2
    assert [step(device="cuda", workers=n).num_gpus for n in (1, 2)] == [1.0, 0.0]
    with pytest.raises(InputError, match="'cuda:1': say cuda"):
        step(device="cuda:1", workers=1)
    said = {"batch_size": 64, "accumulate": 1, "precision": "float32", "lora_rank": 0, "ema_decay": 0.995}
    assert step(**said, device="cpu").key == plain.key != step(batch_size=32).key, "defaults, said aloud"
    one, two = step(threads=1), step(threads=2)
    assert plain.key == one.key != two.key and "threads" not in one.parameters["training"]
    assert two.num_cpus == 2, "Ray gives the process as many cores, and nobody else"


def test_a_turn_trains_its_policies_with_the_sites_number_of_workers_or_threads(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    snapshot = Snapshot(tmp_path / "snapshot.parquet", "d" * 64, ())
    steps = {}
    said = {"plain": "", "one": "workers = 1\nthreads = 1", "two": "workers = 2", "threads": "threads = 2"}
    for name, text in said.items():
        graph = LoopGraph(workspace, says(workspace, f"[policy]\n{text}"))
        base = graph.base(snapshot)
        turn = graph.turn(snapshot, base)
        steps[name] = (base, turn.recap, turn.filtered)
    assert [step.key for step in steps["plain"]] == [step.key for step in steps["one"]]
    for plain, two in zip(steps["plain"], steps["two"], strict=True):
        assert plain.key != two.key and (plain.num_cpus, two.num_cpus) == (1, 0)
        assert two.parameters["training"] == {**plain.parameters["training"], "workers": 2}
    for plain, two in zip(steps["plain"], steps["threads"], strict=True):
        assert plain.key != two.key and two.num_cpus == 2
        assert two.parameters["training"] == {**plain.parameters["training"], "threads": 2}


@pytest.mark.parametrize("section", ["policy", "value"])
def test_a_turn_that_has_no_room_for_its_workers_is_refused_at_once(tmp_path: Path, section: str) -> None:
    workspace = Workspace(tmp_path).create()
    settings = says(workspace, f"[{section}]\nworkers = 4096\n" + "batch_size = 4096" * (section == "policy"))
    with StepRunner(workspace) as runner:
        loop = Loop(workspace, settings, runner, Ledger(workspace))
        with pytest.raises(InputError, match="4096 workers need as many cores"):
            base_of(loop, ["episode"])
        loop = Loop(workspace, says(workspace, "[policy]\nthreads = 4096"), runner, Ledger(workspace))
        with pytest.raises(InputError, match="4096 threads need as many cores"):
            base_of(loop, ["episode"])


def test_what_a_site_says_is_checked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    for wrong in (0, 1.5, True, "two"):
        with pytest.raises(InputError, match=r"policy\.workers must be a whole number, 1 or more"):
            PolicySection(workers=cast(int, wrong))
    with pytest.raises(InputError, match=r"recap\.toml.*batches of 4 observations are too small for 5 wor"):
        says(workspace, "[policy]\nworkers = 5\nbatch_size = 4")
    with pytest.raises(InputError, match=r"recap\.toml.*2 workers compute on a core or a GPU each"):
        says(workspace, "[policy]\nworkers = 2\nthreads = 2")
    with pytest.raises(InputError, match="too small for 65 workers"):
        replace(PolicySettings(), workers=65)

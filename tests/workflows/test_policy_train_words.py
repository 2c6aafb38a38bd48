"""What ``recap policy train`` says before it trains: of misspelt words, of changed labels, of its start."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.label_types import Mark
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.tiny_smolvla import TINY_GEN3
from tests.workflows.door_lab import make_lab
from value_model.gate_config import GateConfig
from value_model.gate_report import Check, GateReport, Verdict
from workflows.cli import main
from workflows.commands.policy_train_told import values_told
from workflows.commands.policy_train_words import check_words
from workflows.driver_lock import driver_lock, require_free
from workflows.ledger import Ledger
from workflows.policy_door import STEP, DoorConfig, labels_told, newest_data, workspace_step
from workflows.policy_start import find_start, pretrained_words
from workflows.step_files import CHECKPOINT, GATE_FILE, JUDGEMENT
from workflows.step_recipe import Step
from workflows.step_store import StepResult, StepStore

REFUSED = "values: refused (values vary): the indicators may be noise; see 'recap value check'"
CHANGED = "labels changed since these advantages: 'recap advantages' takes them in"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy.typ=act"], "did you mean --policy.type?"),
        (["--policy.pth=DIR"], "did you mean --policy.path?"),
        (["--policy.device=cuda"], "use --device"),
        (["--policy.input_features={}"], "features follow from the data and cannot be set"),
        (["--policy.optimizer_lr=0.1"], "use --learning-rate"),
        (["--policy.type=act", "--policy.optimizer_weight_decay=0.1"], "only lerobot-train reads it"),
        (["--policy.scheduler_warmup_steps=5"], "only lerobot-train reads it"),
        (["--policy.zzzzzzzz=1"], " more"),
        (["--policy.backbone=transfomer"], "backbone is 'transfomer'"),
        (["--policy.path", "champion"], "there is no champion yet"),
    ],
)
def test_a_word_that_cannot_be_is_told_before_what_the_workspace_lacks(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Workspace(tmp_path).create()  # without advantages
    assert main(["policy", "train", "--workspace", str(tmp_path), *words]) == 2
    out, said = capsys.readouterr()
    assert message in said and said.count("\n") == 1 and said.count(",") < 10 and out == ""


def test_a_second_command_is_told_at_once_who_works_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Workspace(tmp_path).create()  # without advantages, and with an option that no policy has
    with driver_lock(lab.root):
        assert main(["policy", "train", "--workspace", str(lab.root), "--policy.zzzzzzzz=1"]) == 2
    out, said = capsys.readouterr()
    assert f"another recap command (process {os.getpid()}) is working in {lab.root}" in said
    assert said.count("\n") == 1 and out == ""
    require_free(lab.root)


def test_values_that_the_gate_refused_are_told_under_the_bounds_of_now(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    data = newest_data(lab)
    assert values_told(lab, data) == [], "nobody has asked the gate"
    refused = judge(lab, data.advantages, "fail", {"fail_spread": 0.2})
    assert values_told(lab, data) == [REFUSED]
    judge(lab, refused, "fail", {})  # of other advantages
    judge(lab, data.advantages, "warn", {})
    assert values_told(lab, data) == []
    lab.config_path.write_text("[gate]\nfail_spread = 0.2\n")
    assert values_told(lab, data) == [REFUSED]
    (refused.path / GATE_FILE).write_text("{")
    (told,) = values_told(lab, data)
    assert told.startswith(f"values: {refused.path / GATE_FILE}: ")


def judge(lab: Workspace, of: StepResult, verdict: str, gate: dict[str, float]) -> StepResult:
    """A judgement of the advantages, as the gate's step leaves it; ``gate``: bounds that differ."""
    bounds = asdict(GateConfig.from_site(gate))
    step = Step(JUDGEMENT, write_gate, {"verdict": verdict, "gate": bounds}, {"advantages": of})
    store = StepStore(lab.steps)
    store.execute(store.call(step), lambda *_: None)
    found = store.find(step)
    assert found is not None
    return found


def write_gate(out: Path, *, advantages: Path, verdict: Verdict, gate: dict[str, float]) -> dict[str, Any]:
    """A report of two checks."""
    vary = Check("values vary", verdict, 0.0, gate["fail_spread"], "They do not.")
    report = GateReport((vary, Check("enough", "pass", None, None, "There is.")))
    (out / GATE_FILE).write_text(report.to_json())
    return {"passed": report.passed, "headline": report.words()[0]}


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("gen3_vla", {}, ""),
        ("gen3_vla", {"pretrained_backbone": "/w"}, ", but for the pretrained backbone /w"),
        ("act", {}, ", but for the pretrained backbone ResNet18_Weights.IMAGENET1K_V1"),
        ("act", {"pretrained_backbone_weights": None}, ""),
        ("smolvla", {}, ""),
        (
            "smolvla",
            {"load_vlm_weights": True, "vlm_model_name": "/vlm"},
            ", but for the pretrained backbone /vlm",
        ),
    ],
)
def test_a_new_policy_is_said_to_be_random_but_for_what_it_takes_over(
    kind: str, options: dict[str, Any], words: str
) -> None:
    assert pretrained_words(kind, options) == words


def test_options_that_a_policy_has_are_no_misspelt_words() -> None:
    import dataclasses

    from pipeline.policy.policy_options import config_class, policy_types

    names = {field.name for kind in policy_types() for field in dataclasses.fields(config_class(kind))}
    assert "dtype" in names
    check_words([f"--policy.{name}=1" for name in names], [])


def test_labels_that_changed_since_the_advantages_are_named(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    data = newest_data(lab)
    assert labels_told(lab, data) == []
    files = sorted(path.name for path in (lab.root / "snapshots").iterdir())
    with LabelStore(lab.labels_path) as store:
        store.set(lab.list_episodes()[0].id, "success", "ann", marks=(Mark("segment", 0, 3, "reach"),))
    assert labels_told(lab, data) == [CHANGED]
    assert sorted(path.name for path in (lab.root / "snapshots").iterdir()) == files
    with pytest.raises(InputError) as refused:
        workspace_step(lab, data, DoorConfig("gen3_vla", options={"subtasks": "from labels"}))
    assert CHANGED in str(refused.value) and "'recap label set --mark'" in str(refused.value)


def test_training_starts_from_the_champion_by_its_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = make_lab(tmp_path)
    training = {"steps": 1, "batch_size": 2, "seed": 0}
    store = StepStore(lab.steps)
    step = workspace_step(lab, newest_data(lab), DoorConfig("gen3_vla", options=TINY_GEN3, training=training))
    store.execute(store.call(step), lambda *_: None)
    base = store.find(step)
    assert base is not None
    Ledger(lab).set_base(base.name, base.key, "the first")
    found = [find_start(word, lab) for word in ("champion", "base", str(base.path))]
    assert {start.path for start in found} == {str(base.path / CHECKPOINT)}
    assert found[0].words == f"from the champion train_policy/{base.key[:8]} which is the base policy"
    assert found[1].words == f"from the base policy train_policy/{base.key[:8]}"
    assert find_start(None, lab).words == "from scratch: random weights"
    config = DoorConfig("gen3_vla", found[0].path, training=training)
    again = workspace_step(lab, newest_data(lab), config)
    store.execute(store.call(again), lambda *_: None)
    judge(lab, newest_data(lab).advantages, "fail", {})
    words = ["--policy.path", "base", "--steps", "1", "--batch-size", "2"]
    assert main(["policy", "train", "--workspace", str(lab.root), *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"gen3_vla, from the base policy train_policy/{base.key[:8]}\n")
    assert said.splitlines()[2] == REFUSED
    assert "(used again)" in said and len(StepStore(lab.steps).published(STEP)) == 2
    assert said.splitlines()[-1].endswith(f"{CHECKPOINT} --workspace {lab.root}")

"""``[policy]`` of ``recap.toml``: refused before anything runs, and never silently ignored."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.policy.policy_options import config_class, policy_types
from pipeline.site_config import load_site_config
from pipeline.site_policy import PolicySection
from pipeline.workspace import Workspace
from tests.tiny_checkpoint import save_tiny_checkpoint
from tests.workflows.turn_lab import Lab, make_lab
from workflows.base_policy import require_base_policy
from workflows.loop_graph import LoopGraph
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.settings import FULL, LEARNING_RATES, LoopSettings, settings_from_site
from workflows.step_recipe import Step
from workflows.step_result import StepResult


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path / "lab")


def say(lab: Lab, text: str) -> LoopSettings:
    """The settings under a recap.toml that says this."""
    lab.workspace.config_path.write_text(text)
    return lab.settings


def base_of(lab: Lab) -> StepResult:
    """A base policy of what recap.toml says now."""
    found = lab.store.find(lab.base())
    assert found is not None
    return found


def base_step(workspace: Workspace, settings: LoopSettings) -> Step:
    return LoopGraph(workspace, settings).base(Snapshot(workspace.root / "none.parquet", "d" * 64, ()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[policy]\ntype = "smolvle"', r"recap\.toml, \[policy\]: .*did you mean smolvla"),
        ('[policy]\ntype = "act"\n[policy.options]\nchunk_sze = 3', "did you mean chunk_size"),
        ('[policy]\ntype = "act"\n[policy.options]\nchunk_size = 3', "chunk"),
        ('[policy]\ntype = "act"', r'in recap\.toml pretrained_backbone_weights = "none"'),
        ('[policy]\ntype = "tdmpc"', "tdmpc learns from rewards"),
        ('[policy.options]\nbackbone_tokens = "fast"', "needs a backbone that reads tokens"),
        (
            '[policy]\npath = "/nonexistent"',
            r"recap\.toml, \[policy\]: path = '/nonexistent': there is no such",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_runs(
    lab: Lab, text: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(InputError, match=message) as caught:
        require_base_policy(say(lab, text), None)
    assert "\n" not in str(caught.value)


def test_what_can_be_trained_passes(lab: Lab) -> None:
    act = '[policy]\ntype = "act"\n[policy.options]\npretrained_backbone_weights = "none"'
    require_base_policy(say(lab, act), None)
    require_base_policy(say(lab, '[policy]\ntype = "act"'), None, here=False)


def test_nothing_large_is_loaded_where_the_file_says_nothing() -> None:
    script = """
import sys
from workflows.base_policy import require_base_policy
from workflows.settings import FULL
require_base_policy(FULL, None)
assert not {"torch", "lerobot", "ray"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_type_than_the_bases_is_refused_and_the_ways_on_are_true(lab: Lab, tmp_path: Path) -> None:
    base = base_of(lab)
    settings = say(lab, '[policy]\ntype = "act"')
    with pytest.raises(
        InputError, match=r"the base policy is a gen3_vla, and recap.toml, \[policy\] says act"
    ):
        require_base_policy(settings, base)
    # A new folder with the three that the message names has no base, and the same episodes and labels.
    new = Lab(Workspace(tmp_path / "new").create())
    shutil.copytree(lab.workspace.episodes, new.workspace.episodes, dirs_exist_ok=True)
    for name in ("labels.sqlite", "recap.toml"):
        shutil.copy(lab.workspace.root / name, new.workspace.root / name)
    assert new.graph.base(new.snapshot()).parameters["training"]["policy_type"] == "act"
    assert len(new.snapshot().rows) == len(lab.snapshot().rows) == 2
    # Or the type is taken out.
    require_base_policy(say(lab, ""), base)
    require_base_policy(say(lab, '[policy]\ntype = "gen3_vla"'), base)


def test_another_size_of_images_is_refused_and_the_ways_on_are_true(lab: Lab) -> None:
    base = base_of(lab)
    with pytest.raises(
        InputError, match=r"sees images of 84×84 pixels, .* asks for 128×128: .*image_size = 84$"
    ):
        require_base_policy(say(lab, "[defaults]\nimage_size = 128"), base)
    require_base_policy(say(lab, "[defaults]\nimage_size = 84\nrate_hz = 20"), base)
    require_base_policy(say(lab, "[defaults]\nimage_size = 128"), None)


def test_another_option_is_refused_and_how_much_is_trained_is_not(lab: Lab) -> None:
    options = "[policy.options]\nwidth = 32\nvision_channels = [8, 8, 8]\n"
    base = base_of_said(lab, options)
    require_base_policy(say(lab, options), base)
    rest = '[policy]\nbase_steps = 7\nbase_learning_rate = 0.1\nbatch_size = 3\nprecision = "bfloat16"\n'
    require_base_policy(say(lab, rest + options), base)
    for text, message in (
        (
            "[policy.options]\nwidth = 64\nvision_channels = [8, 8, 8]",
            "trained with width = 32, .* says width = 64",
        ),
        (
            "[policy.options]\nwidth = 32",
            r"trained with vision_channels = \[8, 8, 8\], .* says nothing of it",
        ),
        (options + "keypoints = 4", "no option keypoints, .* or take keypoints out"),
    ):
        with pytest.raises(InputError, match=message):
            require_base_policy(say(lab, text), base)


def base_of_said(lab: Lab, text: str) -> StepResult:
    say(lab, text)
    return base_of(lab)


def test_other_weights_than_the_bases_are_refused(lab: Lab, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    save_tiny_checkpoint(weights, width=32)
    said = f'[policy]\npath = "{weights}"'
    scratch = base_of(lab)
    with pytest.raises(InputError, match=r"trained from scratch, .* or take path out"):
        require_base_policy(say(lab, said), scratch)
    base = lab.store.find(published(lab, lab.graph.base(lab.snapshot())))
    assert base is not None and base.key != scratch.key
    require_base_policy(lab.settings, base)
    with pytest.raises(InputError, match=r"names no path: .* or put path back"):
        require_base_policy(say(lab, ""), base)
    settings = say(lab, said)
    (weights / "note.txt").write_text("changed")
    with pytest.raises(InputError, match="began with other weights"):
        require_base_policy(settings, base)
    shutil.rmtree(weights)
    require_base_policy(settings, base)


def published(lab: Lab, step: Step) -> Step:
    lab.publish(step)
    return step


def test_what_is_in_a_folder_that_an_option_names_changes_the_base(tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    options = {"pretrained_backbone": str(folder), "vlm": "owner/model", "state_names": [""]}
    settings = replace(FULL, policy=replace(FULL.policy, options=options))
    before = base_step(Workspace(tmp_path), settings)
    assert [given.path for given in before.inputs["option_folders"]] == [folder]  # type: ignore[union-attr]  # a list
    assert base_step(Workspace(tmp_path), settings).key == before.key
    (folder / "model.safetensors").write_bytes(b"two")
    assert base_step(Workspace(tmp_path), settings).key != before.key
    assert "option_folders" not in base_step(Workspace(tmp_path), FULL).inputs


def test_learning_rates_are_lerobots_for_every_type_but_ours(tmp_path: Path) -> None:
    presets = {}
    for name in policy_types():
        by_name: dict[str, Any] = {one.name: one.default for one in fields(config_class(name))}
        if config_class(name).__module__.startswith("lerobot.") and "optimizer_lr" in by_name:
            presets[name] = by_name["optimizer_lr"]
    presets.pop("tdmpc")  # learns from rewards
    assert presets == LEARNING_RATES
    site = load_site_config(tmp_path / "none.toml")
    for said, rates in (
        (PolicySection(type="smolvla"), (1e-4, 1e-4)),
        (PolicySection(type="smolvla", base_learning_rate=3e-4), (3e-4, 1e-4)),
        (PolicySection(type="gen3_vla"), (1e-3, 5e-4)),
        (PolicySection(), (1e-3, 5e-4)),
    ):
        policy = settings_from_site(FULL, replace(site, policy=said)).policy
        assert (policy.base_learning_rate, policy.fine_tune_learning_rate) == rates


def test_numbers_that_are_none_are_refused(lab: Lab) -> None:
    for name in ("learning_rate", "weight_decay", "gradient_clip", "ema_decay", "indicator_dropout"):
        for value in (float("nan"), float("inf")):
            wrong: dict[str, Any] = {name: value}
            with pytest.raises(InputError, match=f"{name} is (nan|inf), must be a finite number"):
                PolicyTrainingConfig(**wrong)
    for text in ("base_learning_rate = nan", "fine_tune_learning_rate = inf", "positive_share = nan"):
        with pytest.raises(InputError, match=r"recap\.toml: policy\.\w+ must be a number"):
            say(lab, f"[policy]\n{text}")


def test_a_turn_has_scenes_of_its_own_or_is_refused(tmp_path: Path) -> None:
    graph = LoopGraph(Workspace(tmp_path), FULL)
    base = base_step(Workspace(tmp_path), FULL)
    firsts = [
        step.parameters["session"]["first_scene_seed"]
        for turn in range(1, 11)
        for person in ("observer", "supervisor")
        for step in graph.rollouts(person, 10_000, base, turn=turn)[:1]
    ]
    assert firsts[:2] == [200_000, 300_000]
    ordered = sorted(firsts)
    assert all(b - a >= 10_000 for a, b in itertools.pairwise(ordered)) and ordered[-1] < 990_001
    for turn, episodes in ((11, 5), (0, 5), (1, 10_001)):
        with pytest.raises(InputError, match="the simulator has scenes for turns 1 to 10"):
            graph.rollouts("observer", episodes, base, turn=turn)

"""No field of a policy's configuration is taken and then ignored: LeRobot's own sources are the witness."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import lerobot.processor.factory
import pytest
from lerobot.configs import PreTrainedConfig

from pipeline.errors import InputError
from pipeline.policy.policy_options import config_class, decoded_options, policy_types
from pipeline.policy.training_fields import GROUP_FIELDS, instead_of, require_groups, require_rate
from workflows.policy_training_config import PolicyTrainingConfig

# Fields that act although only the configuration's own code reads them: looked at one by one.
BY_CONFIGURATION = {
    "act": {"n_obs_steps"},  # any but 1 is refused
    "diffusion": {"crop_ratio"},  # becomes crop_shape
    "eo1": {"vlm_config"},  # becomes the backbone's configuration
    "evo1": {"training_stage", "apply_training_stage_defaults"},  # become the finetune_ fields
    # Of these some become others, and some are checked only: the type is refused, it looks ahead.
    "fastwam": {"action_dim", "num_video_frames", "action_video_freq_ratio", "model_id", "base_model_id"}
    | {"fp32_attention", "use_gradient_checkpointing"},
    "groot": {"tokenizer_assets_repo"},  # any but none is refused
    "pi0": {"empty_cameras"},  # become features
    "pi05": {"empty_cameras"},
    "pi0_fast": {"empty_cameras", "chunk_size"},  # action_delta_indices
    "smolvla": {"use_delta_joint_actions_aloha"},  # any but false is refused
    "tdmpc": {"n_obs_steps"},  # any but 1 is refused
    "xvla": {"empty_cameras", "florence_config"},  # become features, and the backbone's configuration
}
# What the policy itself reads of what a preset reads too: this one counts the steps until its second phase.
BESIDE_A_PRESET = {"vqbet": {"n_vqvae_training_steps"}}
PRESETS = ("get_optimizer_preset", "get_scheduler_preset")
# LeRobot's readers of the features, of which our own are made.
READ_BUT_NOT_SET = {"input_features", "output_features", "device", "use_peft", "push_to_hub", "repo_id"} | {
    *("private", "tags", "license", "pretrained_path", "pretrained_revision", "n_obs_steps", "use_amp")
}


def read_of_configurations(tree: ast.AST) -> set[str]:
    """Names that are read of something called config or cfg, as attributes or by getattr."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_configuration(node.value):
            found.add(node.attr)
        elif _is_getattr(node) and isinstance(name := node.args[1], ast.Constant):
            found.add(str(name.value))
    return found


def _is_getattr(node: ast.AST) -> TypeGuard[ast.Call]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id == "getattr" and _is_configuration(node.args[0])


def _is_configuration(node: ast.expr) -> bool:
    last = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return "config" in last or "cfg" in last


def read_by_presets(cls: type[PreTrainedConfig]) -> set[str]:
    """Fields that decide the optimiser and the schedule of ``lerobot-train``."""
    named = {field.name for field in dataclasses.fields(cls)}
    read = set()
    for preset in PRESETS:
        tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(cls, preset))))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return read & named


@cache
def read_by_code(folder: Path) -> tuple[frozenset[str], frozenset[str]]:
    """What a policy and its processors read of the configuration, and what ``get_optim_params`` does."""
    files = [path for path in folder.rglob("*.py") if not path.name.startswith("configuration")]
    anywhere, groups = set(), set()
    for path in [*files, Path(inspect.getfile(lerobot.processor.factory))]:
        tree = ast.parse(path.read_text())
        anywhere |= read_of_configurations(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "get_optim_params":
                groups |= read_of_configurations(node)
    return frozenset(anywhere), frozenset(groups)


def ignored_fields(policy_type: str, cls: type[PreTrainedConfig]) -> set[str]:
    """Fields that somebody may set here, and that would be without effect."""
    anywhere, groups = read_by_code(Path(inspect.getfile(cls)).parent)
    preset = read_by_presets(cls) - groups - BESIDE_A_PRESET.get(policy_type, set())
    heeded = (anywhere | BY_CONFIGURATION.get(policy_type, set())) - preset
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    return {name for name in fields - heeded if instead_of(policy_type, name) is None}


@pytest.mark.parametrize("policy_type", policy_types())
def test_every_field_of_every_type_is_heeded_or_refused(policy_type: str) -> None:
    cls = config_class(policy_type)
    assert ignored_fields(policy_type, cls) == set(), "neither read by the policy nor refused here"
    anywhere, groups = read_by_code(Path(inspect.getfile(cls)).parent)
    fields = {field.name for field in dataclasses.fields(cls)}
    assert GROUP_FIELDS.get(policy_type, frozenset()) <= groups & fields
    refused = {name for name in fields if instead_of(policy_type, name)}
    assert refused & anywhere <= READ_BUT_NOT_SET, "the policy reads what is refused here"
    assert BY_CONFIGURATION.get(policy_type, set()) <= fields - refused - anywhere, "of an older LeRobot"


def test_every_refusal_is_one_line_that_says_what_to_do_or_why() -> None:
    for policy_type in policy_types():
        for field in dataclasses.fields(config_class(policy_type)):
            instead = instead_of(policy_type, field.name)
            if not field.init or instead is None:
                continue
            with pytest.raises(InputError) as caught:
                decoded_options(policy_type, {field.name: 1})
            said = str(caught.value)
            assert said == f"{field.name} is not an option of the policy here: {instead}"
            assert "\n" not in said and len(said) < 250


@pytest.mark.parametrize(
    ("policy_type", "name", "instead"),
    [
        ("groot", "warmup_ratio", "50 steps"),
        ("groot", "max_steps", "--steps"),
        ("groot", "lora_rank", "--lora-rank"),
        ("groot", "batch_size", "--batch-size"),
        ("xvla", "optimizer_soft_prompt_lr_scale", "--learning-rate"),
        ("smolvla", "scheduler_decay_steps", "--steps"),
        ("diffusion", "drop_n_last_frames", "do_mask_loss_for_padding"),
        ("pi05", "use_amp", "--precision bfloat16"),
        ("act", "push_to_hub", "uploads nothing"),
        ("pi05", "n_obs_steps", "nothing of pi05 reads it"),
    ],
)
def test_the_refusal_names_what_is_done_here(policy_type: str, name: str, instead: str) -> None:
    assert instead in str(instead_of(policy_type, name))


def test_what_acts_under_the_same_name_is_taken() -> None:
    assert decoded_options("molmoact2", {"lora_rank": 8, "optimizer_lr": 1e-5}) == {
        "lora_rank": 8,
        "optimizer_lr": 1e-5,
    }
    assert decoded_options("evo1", {"use_amp": False}) == {"use_amp": False}
    assert decoded_options("vqbet", {"n_obs_steps": 3}) == {"n_obs_steps": 3}
    with pytest.raises(InputError, match="act has no option 'warmup_ratio'"):
        decoded_options("act", {"warmup_ratio": 0.1})
    with pytest.raises(InputError, match="has no option 'batch_siz'") as caught:
        decoded_options("groot", {"batch_siz": 3})
    assert "batch_size" not in str(caught.value), "a refused field is no suggestion"


def test_the_refusals_say_the_numbers_that_are_used() -> None:
    used = PolicyTrainingConfig()
    for name, number in (
        ("optimizer_weight_decay", f"{used.weight_decay:.4f}"),
        ("optimizer_grad_clip_norm", f"norm of {used.gradient_clip:g}"),
        ("scheduler_warmup_steps", f"{used.warmup_steps} steps"),
    ):
        assert number in str(instead_of("pi05", name))


def test_settings_of_groups_of_weights_are_none_of_loras() -> None:
    require_groups("act", ["optimizer_lr_backbone", "chunk_size"], 0)
    require_groups("act", ["chunk_size"], 4)
    require_groups("pi05", ["chunk_size"], 4)
    with pytest.raises(
        InputError, match=r"--policy\.optimizer_lr_backbone has no effect on low-rank updates"
    ):
        require_groups("act", ["chunk_size", "optimizer_lr_backbone"], 4)


_NEW_TYPE = """
from dataclasses import dataclass
from typing import Any
from lerobot.configs import PreTrainedConfig


@dataclass
class NewConfig(PreTrainedConfig):
    width: int = 8
    rate_floor: float = 0.0
    ema_rate: float = 0.99
    head_rate: float = 0.1
    optimizer_lr: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate_floor < 0:
            raise ValueError("rate_floor")

    def get_optimizer_preset(self) -> Any:
        return (self.optimizer_lr, self.head_rate)

    def get_scheduler_preset(self) -> Any:
        return self.rate_floor

    observation_delta_indices = action_delta_indices = reward_delta_indices = None

    def validate_features(self) -> None: ...
"""
_NEW_MODEL = """
class NewPolicy:
    def __init__(self, config):
        self.width = config.width
        self.looks = config.rate_floor

    def get_optim_params(self):
        return [{"params": [], "lr": self.config.head_rate}]
"""


def test_a_rate_that_no_group_of_weights_would_have_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"molmoact2 has rates of its own: leave --learning-rate out, and use"
    ):
        require_rate("molmoact2", 0)
    require_rate("molmoact2", 8)
    require_rate("act", 0)


def test_a_type_with_new_settings_of_its_training_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modeling_new.py").write_text(_NEW_MODEL)
    source = tmp_path / "configuration_new.py"
    source.write_text(_NEW_TYPE)
    spec = importlib.util.spec_from_file_location("configuration_new", source)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "configuration_new", module)
    spec.loader.exec_module(module)
    # What a preset reads, though the policy looks at it too; what nothing reads, LeRobot's base among it.
    assert ignored_fields("new", module.NewConfig) == {"rate_floor", "ema_rate", "n_obs_steps"}

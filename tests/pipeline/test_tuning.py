"""LoRA that is saved as an ordinary checkpoint, and what an optimiser gets without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.factory import get_policy_class
from safetensors.torch import load_file

from pipeline.errors import InputError
from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.new_policy import new_checkpoint, table_facts
from pipeline.policy.policy_frames import PolicyFrames
from pipeline.policy.training_statistics import table_statistics
from pipeline.policy.tuning import autocast, has_adapters, lora_targets, merged_state, prepare
from pipeline.prompts import POSITIVE
from tests.policy_tables import random_table
from tests.tiny_smolvla import TINY_ACT, TINY_GEN3, build_smolvlm, smolvla_options

TABLE = random_table()


@dataclass(frozen=True)
class Tuning:
    """What of a training's configuration is read."""

    lora_rank: int = 0
    precision: str = "float32"


def fresh(policy_type: str, options: dict[str, Any]) -> Checkpoint:
    torch.manual_seed(0)
    return new_checkpoint(policy_type, table_facts(TABLE), table_statistics(TABLE), options)


@pytest.fixture(scope="module")
def smolvla(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return smolvla_options(build_smolvlm(tmp_path_factory.mktemp("vlm")))


@pytest.mark.parametrize("policy_type", ["gen3_vla", "act", "smolvla"])
def test_only_adapters_train_and_what_is_saved_is_the_sum(
    policy_type: str, smolvla: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = fresh(policy_type, {"gen3_vla": TINY_GEN3, "act": TINY_ACT, "smolvla": smolvla}[policy_type])
    policy = checkpoint.policy
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    trained = prepare(policy, Tuning(lora_rank=2))
    named = dict(policy.named_parameters())
    adapters = {name for name, parameter in named.items() if parameter.requires_grad}
    assert adapters and all(".lora_" in name for name in adapters) and len(trained) == len(adapters)
    assert has_adapters(policy)
    for name, value in merged_state(policy).items():
        assert torch.equal(value, before[name]), "B is 0, so nothing has changed yet"
    with torch.no_grad():
        for name in adapters:
            named[name].normal_(std=0.1)
    layer = next(name.partition(".lora_A")[0] for name in sorted(adapters) if ".lora_A" in name)
    a, b = (named[f"{layer}.lora_{which}.default.weight"] for which in "AB")
    checkpoint.save(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in saved)
    # Hu et al. 2021, eq. 3, with alpha = 2 r.
    torch.testing.assert_close(saved[f"{layer}.weight"], before[f"{layer}.weight"] + 2 * b @ a)
    changed = {name for name, value in saved.items() if not torch.equal(value, before[name])}
    assert changed == {f"{name.partition('.lora_')[0]}.weight" for name in adapters}
    loaded = get_policy_class(policy_type).from_pretrained(tmp_path)
    assert not loaded.config.use_peft
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, merged_state(policy)[name], msg=name)


@pytest.mark.parametrize(
    "choice",
    [
        {"action_head": "bins", "token_width": 32, "token_layers": 1},
        {"conditioning": "in_context", "bridge": "full_sequence", "token_width": 32, "token_layers": 1},
    ],
)
def test_what_is_saved_acts_as_what_was_trained(choice: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = fresh("gen3_vla", {**TINY_GEN3, "backbone": "transformer", **choice})
    prepare(checkpoint.policy, Tuning(lora_rank=2))
    with torch.no_grad():
        for name, parameter in checkpoint.policy.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
    checkpoint.save(tmp_path)
    saved = get_policy_class("gen3_vla").from_pretrained(tmp_path)
    frames = PolicyFrames(TABLE, checkpoint.policy.config)
    batch = checkpoint.preprocessor(frames.batch(np.arange(6), np.full(6, POSITIVE, np.int8)))
    losses, chunks = [], []
    for policy in (checkpoint.policy, saved):
        policy.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append(policy.forward(batch)[0])
            chunks.append(policy.predict_action_chunk(batch))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(chunks[0], chunks[1])


def test_lora_adapts_what_lerobot_names(smolvla: dict[str, Any]) -> None:
    assert "lm_expert" in str(lora_targets(fresh("smolvla", smolvla).policy))
    names = lora_targets(fresh("act", TINY_ACT).policy)
    assert isinstance(names, list) and "model.action_head" in names
    assert not any(name.endswith("out_proj") for name in names), "torch's attention reads it past its forward"


def test_without_lora_the_policy_says_what_is_trained(smolvla: dict[str, Any]) -> None:
    groups = prepare(fresh("act", TINY_ACT).policy, Tuning())
    assert [sorted(group) for group in groups if isinstance(group, dict)] == [["params"], ["lr", "params"]]
    policy = fresh("smolvla", smolvla).policy
    trained = {id(p) for p in prepare(policy, Tuning())}
    assert trained == {id(p) for p in policy.parameters() if p.requires_grad}
    assert len(trained) < len(list(policy.parameters())), "the backbone is frozen by its configuration"
    for parameter in policy.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="none of the policy's weights is trained"):
        prepare(policy, Tuning())


def test_bfloat16_is_for_the_forward_pass_alone() -> None:
    policy = fresh("act", TINY_ACT).policy
    head = policy.model.action_head
    rows = torch.zeros(2, head.in_features)
    with autocast(policy, Tuning(precision="bfloat16")):
        assert head(rows).dtype == torch.bfloat16
    with autocast(policy, Tuning()):
        assert head(rows).dtype == torch.float32
    assert head.weight.dtype == torch.float32

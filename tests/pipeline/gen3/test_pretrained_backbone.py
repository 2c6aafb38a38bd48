"""A new policy that begins with another one's backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import InputError
from tests.pipeline.gen3.choices import small_policy

ALL: dict[str, Any] = {
    "backbone": "transformer",
    "conditioning": "cross_attention",
    "bridge": "full_sequence",
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**ALL, "training": "insulated", "backbone_tokens": "fast"}, {**ALL, "training": "frozen"}),
        ({"backbone": "transformer", "action_head": "bins"}, {**ALL, "training": "frozen"}),
        ({}, {"training": "frozen", "action_head": "regression"}),
    ],
)
def test_the_backbone_is_the_others_and_the_expert_is_fresh(
    first: dict[str, Any], second: dict[str, Any], tmp_path: Path
) -> None:
    source = small_policy(seed=1, **first)
    source.save_pretrained(tmp_path)
    policy = small_policy(seed=2, **second, pretrained_backbone=str(tmp_path))
    fresh = small_policy(seed=2, **second)
    backbone = "encoder.backbone." if second.get("backbone") else "encoder."
    theirs = source.state_dict()
    for (name, value), (_, new) in zip(policy.state_dict().items(), fresh.state_dict().items(), strict=True):
        taken = name.startswith(backbone)
        assert torch.equal(value, theirs[name] if taken else new) or name == "encoder.act"
    assert policy.config.pretrained_backbone == ""
    if backbone == "encoder.backbone.":
        start = theirs.get("encoder.speaker.start")
        assert torch.equal(policy.encoder.act, start)


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    small_policy(token_width=16, **ALL).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is another"):
        small_policy(**ALL, pretrained_backbone=str(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        small_policy(**ALL, pretrained_backbone=str(tmp_path / "nowhere"))

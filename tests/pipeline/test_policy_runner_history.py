"""The runner with policies of several observations: ``act`` and ``plan`` see what training showed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.constants import ACTION

from pipeline.errors import InputError
from pipeline.policy.checkpoint import Checkpoint, load_checkpoint
from pipeline.policy.configuration_gen3_vla import gen3_features
from pipeline.policy.runner import PolicyRunner
from tests.pipeline.test_policy_runner import TASK, observation
from tests.tiny_checkpoint import HIGH, LOW, save_tiny_checkpoint


@pytest.fixture(scope="module", params=["gen3_vla", "vqbet"])
def remembering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that looks at three observations and executes four actions of a chunk."""
    folder = tmp_path_factory.mktemp("remembering")
    if request.param == "gen3_vla":
        save_tiny_checkpoint(folder, n_obs_steps=3, history="policy_head")
        loaded = load_checkpoint(folder)
        with torch.no_grad():
            for parameter in loaded.policy.parameters():  # some start at zero, which hides the past
                parameter.add_(0.05 * torch.randn_like(parameter))
        loaded.save(folder)
        return folder
    inputs, outputs = gen3_features(84)
    inputs = {key: feature for key, feature in inputs.items() if not key.endswith("wrist")}
    size = {
        "gpt_input_dim": 32,
        "gpt_output_dim": 32,
        "gpt_n_layer": 1,
        "gpt_n_head": 2,
        "gpt_hidden_dim": 32,
    }
    config = make_policy_config(
        "vqbet",
        **size,
        input_features=inputs,
        output_features=outputs,
        device="cpu",
        n_obs_steps=3,
        n_action_pred_token=3,
        action_chunk_size=4,
        pretrained_backbone_weights=None,
        vision_backbone="resnet18",
        crop_shape=None,
        sequentially_select=False,
    )
    torch.manual_seed(0)
    policy = get_policy_class("vqbet")(config)
    stats = {ACTION: {"min": LOW, "max": HIGH}}
    stats |= {
        key: {name: value * torch.ones(feature.shape) for name, value in {"min": -3.0, "max": 3.0}.items()}
        for key, feature in inputs.items()
    }
    Checkpoint(policy, *make_pre_post_processors(config, dataset_stats=stats)).save(folder)
    return folder


def test_a_plan_sees_the_frames_that_act_sees(remembering: Path) -> None:
    runner = PolicyRunner(remembering)
    assert runner.observed_steps == 3
    frames = [observation(step) for step in range(8)]
    runner.reset(TASK, 0)
    acted = np.stack([runner.act(frame) for frame in frames])
    for now in (0, 4):
        runner.reset(TASK, 0)
        for frame in frames[:now]:
            runner.act(frame)  # so that as many random numbers are drawn
        plan = runner.plan(frames[now], frames[:now])
        np.testing.assert_allclose(plan[:4], acted[now : now + 4], atol=1e-5)
    chunks = []
    for before in ([], frames[:1], frames[1:4], frames[2:4]):
        runner.reset(TASK, 0)
        chunks.append(runner.plan(frames[4], before))
    assert np.array_equal(chunks[2], chunks[3]), "no more than three frames are seen"
    assert not np.allclose(chunks[0], chunks[1], atol=1e-5)
    assert not np.allclose(chunks[1], chunks[2], atol=1e-5)
    with pytest.raises(InputError, match="looks at the last 3 control steps") as caught:
        runner.plan(frames[4])
    assert "\n" not in str(caught.value)


def test_a_dropped_plan_leaves_what_was_seen(remembering: Path) -> None:
    runner = PolicyRunner(remembering)
    frames = [observation(step) for step in range(4)]
    runner.reset(TASK, 0)
    for frame in frames[:3]:
        runner.act(frame)
    runner.drop_plan()
    anew = runner.act(frames[3])
    for before, same in ((frames[:3], True), ([], False)):
        runner.reset(TASK, 0)
        runner.plan(frames[0], [])  # draws as many random numbers as the chunk that was dropped
        assert np.allclose(anew, runner.plan(frames[3], before)[0], atol=1e-5) is same

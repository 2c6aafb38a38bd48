"""One door to every policy type: what it is built for, and how what it cannot build is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE

from pipeline.action_statistics import action_statistics
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.policy.advantage_prompt import AdvantagePromptStep, AdvantageStateStep, advantage_step
from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig, gen3_features
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.new_policy import PATH, check_policy, fits, new_checkpoint, stored_type, table_facts
from pipeline.policy.policy_frames import PolicyFrames
from pipeline.policy.policy_options import decoded_options, policy_types, read_words
from pipeline.policy.training_statistics import table_statistics
from pipeline.prompts import POSITIVE
from tests.policy_tables import random_table
from tests.tiny_smolvla import TINY_ACT, TINY_DIFFUSION, TINY_GEN3, build_smolvlm, smolvla_options

TABLE = random_table()
FACTS, STATS = table_facts(TABLE), table_statistics(TABLE)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_smolvlm(tmp_path_factory.mktemp("vlm"))


def build(policy_type: str, options: dict[str, Any] | None = None, size: int | None = None) -> Checkpoint:
    torch.manual_seed(0)
    facts = FACTS if size is None else replace(FACTS, image_size=size)
    return new_checkpoint(policy_type, facts, STATS, options)


def test_our_own_policy_is_what_it_would_be_by_hand() -> None:
    torch.manual_seed(0)
    inputs, outputs = gen3_features(FACTS.image_size)
    config = Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu", **TINY_GEN3)
    by_hand = Gen3VLAPolicy(config)
    processors = make_pre_post_processors(config, dataset_stats={ACTION: action_statistics(TABLE.action)})
    found = build("gen3_vla", TINY_GEN3)
    assert found.policy.config == config
    for name, value in by_hand.state_dict().items():
        assert torch.equal(found.policy.state_dict()[name], value), name
    actions = torch.linspace(-1, 1, 7)[None]
    assert torch.equal(found.postprocessor(actions), processors[1](actions))


def batch(checkpoint: Checkpoint, table: FrameTable = TABLE) -> dict[str, Any]:
    frames = PolicyFrames(table, checkpoint.policy.config)
    ready: dict[str, Any] = checkpoint.preprocessor(
        frames.batch(np.arange(3), np.full(3, POSITIVE, dtype=np.int8))
    )
    return ready


@pytest.mark.parametrize("policy_type", ["smolvla", "act", "diffusion"])
def test_lerobots_policies_fit_this_robot_and_learn(policy_type: str, vlm: Path) -> None:
    if policy_type == "diffusion":
        pytest.importorskip("diffusers")
    options = {"smolvla": smolvla_options(vlm), "act": TINY_ACT, "diffusion": TINY_DIFFUSION}[policy_type]
    # Its image encoder wants more than one patch of what is left.
    table = random_table(size=64) if policy_type == "diffusion" else TABLE
    checkpoint = build(policy_type, options, table_facts(table).image_size)
    reads = policy_type == "smolvla"
    step = advantage_step(checkpoint.preprocessor)
    assert isinstance(step, AdvantagePromptStep if reads else AdvantageStateStep)
    state = checkpoint.policy.config.robot_state_feature
    assert state is not None and state.shape == (15 if reads else 16,)
    ready = batch(checkpoint, table)
    if not reads:
        assert (ready[OBS_STATE][..., -1] == 1.0).all(), "no normalisation moves the indicator"
    loss, _ = checkpoint.policy.forward(ready)
    loss.backward()
    assert torch.isfinite(loss)


def test_somebody_elses_weights_get_this_robots_features(vlm: Path, tmp_path: Path) -> None:
    options = smolvla_options(vlm)
    top = {"observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 64, 64))}
    state = {OBS_STATE: PolicyFeature(FeatureType.STATE, (6,))}
    config = make_policy_config(
        "smolvla",
        input_features={**top, **state},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (6,))},
        device="cpu",
        **{**options, "resize_imgs_with_padding": (32, 32)},
    )
    torch.manual_seed(5)
    theirs = get_policy_class("smolvla")(config)
    six = {"mean": torch.zeros(6), "std": torch.ones(6)}
    Checkpoint(theirs, *make_pre_post_processors(config, dataset_stats={ACTION: six, OBS_STATE: six})).save(
        tmp_path
    )
    assert stored_type(str(tmp_path)) == "smolvla" and not fits(tmp_path, FACTS)
    ours = build("smolvla", {PATH: str(tmp_path), "num_steps": 3})
    assert list(ours.policy.config.image_features) == [f"observation.images.{c}" for c in TABLE.cameras]
    assert ours.policy.config.num_steps == 3 and ours.policy.config.output_features[ACTION].shape == (7,)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.policy.state_dict()[name], value), name
    ours.policy.train()
    ours.policy.forward(batch(ours))[0].backward()
    ours.save(tmp_path / "ours")
    assert fits(tmp_path / "ours", FACTS)
    with pytest.raises(InputError, match="holds a smolvla, not a act"):
        build("act", {PATH: str(tmp_path)})


@pytest.mark.parametrize(
    ("policy_type", "options", "message"),
    [
        ("smolvle", {}, "did you mean smolvla"),
        ("act", {"chunk_sze": 3}, "act has no option 'chunk_sze': did you mean chunk_size"),
        ("act", {"chunk_size": "many"}, "option chunk_size cannot be 'many'"),
        ("act", {"input_features": {}}, "input_features is not an option"),
        ("act", {**TINY_ACT, "n_action_steps": 9}, "policy options: .*chunk"),
        ("gen3_vla", {"n_action_steps": 9}, "n_action_steps is 9"),
        (
            "act",
            {},
            "weights ResNet18_Weights.IMAGENET1K_V1 are not on this machine: .*recap.toml",
        ),
        ("smolvla", {}, "begins with files of a hub that are not on this machine"),
        ("smolvla", {PATH: "lerobot/smolvla_base"}, "is not a folder here: to fetch .* add --allow-download"),
        ("smolvla", {PATH: "/no/such/folder"}, "there is no folder /no/such/folder"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(
    policy_type: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=message) as caught:
        build(policy_type, options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_would_be_refused_later_is_told_without_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vlm: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    check_policy("smolvla", FACTS, smolvla_options(vlm))
    check_policy("act", FACTS, {"pretrained_backbone_weights": "none"})
    check_policy("act", FACTS, {}, here=False)
    for policy_type, options, message in (
        ("act", {}, r'in recap.toml pretrained_backbone_weights = "none"'),
        ("act", {**TINY_ACT, "n_action_steps": 9}, "chunk"),
        ("tdmpc", {}, "tdmpc learns from rewards"),
        ("gaussian_actor", {}, "gaussian_actor learns from rewards"),
        ("smolvla", {"vlm_model_name": "/no/vlm"}, "option vlm_model_name: there is no folder /no/vlm"),
        ("smolvla", {}, "option vlm_model_name: the files of .* are not on this machine"),
    ):
        with pytest.raises(InputError, match=message):
            check_policy(policy_type, FACTS, options)


def test_none_is_nothing_only_where_an_option_may_be_nothing() -> None:
    found = decoded_options("act", {"pretrained_backbone_weights": "null", "use_vae": False})
    assert found == {"pretrained_backbone_weights": None, "use_vae": False}
    assert decoded_options("gen3_vla", {"backbone_tokens": "none"}) == {"backbone_tokens": "none"}


def test_weights_that_do_not_fit_an_option_blame_the_option(tmp_path: Path) -> None:
    build("act", TINY_ACT).save(tmp_path)
    with pytest.raises(InputError, match=r"made with chunk_size 4, .* leave chunk_size out"):
        build("act", {PATH: str(tmp_path), "chunk_size": 3})


def test_all_files_of_a_checkpoint_may_be_read_by_the_same_people(tmp_path: Path) -> None:
    build("act", TINY_ACT).save(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert any("step" in name for name in modes) and len(set(modes.values())) == 1, modes


def test_words_become_options() -> None:
    words = ["--policy.chunk_size=16", "--policy.use_vae", "false", "--policy.rtc_config.enabled=true"]
    assert read_words(words) == {"chunk_size": 16, "use_vae": False, "rtc_config.enabled": True}
    found = decoded_options("smolvla", {"rtc_config.enabled": True, "resize_imgs_with_padding": [64, 32]})
    assert found["rtc_config"].enabled and found["resize_imgs_with_padding"] == (64, 32)
    for wrong, message in (
        (["--steps=3"], "what is '--steps=3'"),
        (["--policy.chunk_size"], "needs a value"),
        (["--policy.a=1", "--policy.a=2"], "given twice"),
    ):
        with pytest.raises(InputError, match=message):
            read_words(wrong)
    with pytest.raises(InputError, match="as a whole and in part"):
        decoded_options("smolvla", {"rtc_config": None, "rtc_config.enabled": True})
    assert {"gen3_vla", "smolvla", "pi0", "pi05", "act", "diffusion"} <= set(policy_types())


def test_a_saved_checkpoint_needs_no_backbone_weights(tmp_path: Path) -> None:
    build("act", TINY_ACT).save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_backbone_weights"] is None


def test_the_statistics_are_those_of_the_used_frames() -> None:
    used = np.arange(len(TABLE)) % 2 == 0
    stats = table_statistics(TABLE, used)
    state = TABLE.state[used].astype(np.float64)
    for name, expected in (
        ("mean", state.mean(0)),
        ("std", state.std(0)),
        ("min", state.min(0)),
        ("max", state.max(0)),
        ("q01", np.quantile(state, 0.01, axis=0)),
        ("q90", np.quantile(state, 0.9, axis=0)),
    ):
        np.testing.assert_allclose(stats[OBS_STATE][name], expected, atol=1e-5)
    still = random_table()
    still.state[:] = 2.0
    found = table_statistics(still)[OBS_STATE]
    assert (found["std"] >= 1e-3).all() and (found["max"] - found["min"] >= 2e-3 - 1e-6).all()
    wrist = stats["observation.images.wrist"]
    assert wrist["max"].shape == (3, 1, 1) and wrist["max"].max() <= 1.0
    np.testing.assert_allclose(stats[ACTION]["q99"], action_statistics(TABLE.action[used])["q99"])

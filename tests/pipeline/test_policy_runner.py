"""The runner: any LeRobot checkpoint in front of a robot's observation."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.constants import ACTION

from pipeline.episode import ACTION_NAMES, STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig, gen3_features
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.runner import PolicyRunner
from tests.tiny_checkpoint import HIGH, LOW, STATS, save_tiny_checkpoint

TASK = "pick up the red cube"


def observation(seed: int = 0, size: int = 84) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {name: float(rng.normal()) for name in STATE_NAMES}
    for camera in ("table", "wrist"):
        values[camera] = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return values


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("runner") / "gen3_vla")


def drive(runner: PolicyRunner, seed: int, steps: int = 6, task: str = TASK) -> np.ndarray:
    runner.reset(task, seed)
    return np.stack([runner.act(observation(step)) for step in range(steps)])


def test_actions_are_float32_in_the_range_of_the_data(checkpoint: Path) -> None:
    actions = drive(PolicyRunner(checkpoint), seed=0)
    assert actions.shape == (6, 7)
    assert actions.dtype == np.float32
    assert (actions >= LOW.numpy() - 1e-6).all()
    assert (actions <= HIGH.numpy() + 1e-6).all()


def test_same_seed_same_plans_while_another_runner_plans(checkpoint: Path) -> None:
    """Each in a thread of its own, as two policies of one evaluation: torch has one generator for both."""
    mine, other = PolicyRunner(checkpoint), PolicyRunner(checkpoint)
    over = threading.Event()

    def plans(runner: PolicyRunner) -> np.ndarray:
        runner.reset(TASK, 3)
        return np.stack([runner.plan(observation()) for _ in range(20)])

    def disturb() -> None:
        other.reset(TASK, 8)
        while not over.is_set():
            other.plan(observation(1))

    alone = plans(mine)
    thread = threading.Thread(target=disturb)
    thread.start()
    beside = plans(mine)
    over.set()
    thread.join()
    assert np.array_equal(alone, beside)


def test_same_seed_same_actions_whatever_else_draws_numbers(checkpoint: Path) -> None:
    first = drive(PolicyRunner(checkpoint), seed=3)
    torch.manual_seed(99)
    runner = PolicyRunner(checkpoint)
    drive(runner, seed=4)
    before = torch.get_rng_state()
    again = drive(runner, seed=3)
    assert np.array_equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
    assert not np.array_equal(first, drive(runner, seed=4))
    assert np.array_equal(drive(PolicyRunner(checkpoint, seed=3), seed=3), first)


def test_the_indicator_and_guidance_reach_the_policy(checkpoint: Path) -> None:
    actions = [
        drive(PolicyRunner(checkpoint, indicator="positive"), seed=0),
        drive(PolicyRunner(checkpoint, indicator="negative"), seed=0),
        drive(PolicyRunner(checkpoint, indicator=None), seed=0),
        drive(PolicyRunner(checkpoint, indicator="positive", guidance=2.0), seed=0),
        drive(PolicyRunner(checkpoint), seed=0, task="pick up the blue cube"),
    ]
    assert np.array_equal(actions[0], drive(PolicyRunner(checkpoint), seed=0))
    for index, one in enumerate(actions):
        for other in actions[:index]:
            assert not np.array_equal(one, other)


def test_a_chunk_is_executed_before_the_next_is_predicted(checkpoint: Path) -> None:
    runner = PolicyRunner(checkpoint)
    runner.reset(TASK, 0)
    first = [runner.act(observation(0)) for _ in range(5)]
    runner.reset(TASK, 0)
    second = [runner.act(observation(0 if step == 0 else 7)) for step in range(5)]
    for step in range(4):
        assert np.array_equal(first[step], second[step])
    assert not np.array_equal(first[4], second[4])


def test_a_plan_is_the_whole_chunk_that_act_would_begin(checkpoint: Path) -> None:
    runner = PolicyRunner(checkpoint)
    runner.reset(TASK, 5)
    chunk = runner.plan(observation(0))
    assert chunk.shape == (8, 7) and chunk.dtype == np.float32
    assert runner.execute_steps == 4
    runner.reset(TASK, 5)
    acted = np.stack([runner.act(observation(0)) for _ in range(4)])
    np.testing.assert_allclose(chunk[:4], acted, atol=1e-6)
    runner.reset(TASK, 5)
    before = torch.get_rng_state()
    again = [runner.plan(observation(0)), runner.plan(observation(0))]
    assert np.array_equal(again[0], chunk) and not np.array_equal(again[1], chunk), "its own random numbers"
    assert torch.equal(before, torch.get_rng_state())


def test_a_dropped_plan_is_made_again_from_the_next_observation(checkpoint: Path) -> None:
    runner = PolicyRunner(checkpoint)
    runner.reset(TASK, 0)
    runner.act(observation(0))
    kept = runner.act(observation(7))
    runner.reset(TASK, 0)
    runner.act(observation(0))
    runner.drop_plan()
    anew = runner.act(observation(7))
    assert not np.array_equal(kept, anew)
    runner.reset(TASK, 0)
    runner.act(observation(0))
    runner.drop_plan()
    assert np.array_equal(runner.act(observation(7)), anew), "repeatable"


def features(**changes: Any) -> dict[str, Any]:
    robot: dict[str, Any] = dict.fromkeys(STATE_NAMES, float) | dict.fromkeys(
        ("table", "wrist"), (480, 640, 3)
    )
    return {name: kind for name, kind in {**robot, **changes}.items() if kind is not None}


def test_a_robot_that_does_not_fit_is_refused_in_one_line(checkpoint: Path) -> None:
    runner = PolicyRunner(checkpoint)
    runner.check_robot(features(left=(10, 10, 3)), dict.fromkeys(ACTION_NAMES, float))
    for robot, actions, message in (
        (features(wrist=None), None, "needs camera 'wrist', the robot has"),
        (features(**{"tool.z": None}), None, "needs 'tool.z'"),
        (features(), {"joint_1.pos": float}, "gives 'tool.vx'"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            runner.check_robot(robot, actions)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_other_actions_is_refused(tmp_path: Path) -> None:
    inputs, outputs = gen3_features(84)
    outputs = {ACTION: replace(outputs[ACTION], shape=(6,))}
    config = Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu")
    stats = {ACTION: {name: values[:6] for name, values in STATS[ACTION].items()}}
    Checkpoint(Gen3VLAPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)).save(tmp_path)
    with pytest.raises(InputError, match=r"actions of shape \(6,\)"):
        PolicyRunner(tmp_path).check_robot(features())


def test_images_of_another_size_are_resized(checkpoint: Path) -> None:
    runner = PolicyRunner(checkpoint)
    small = observation()
    large = {
        key: np.repeat(np.repeat(value, 3, 0), 3, 1) if key in ("table", "wrist") else value
        for key, value in small.items()
    }
    runner.reset(TASK, 0)
    expected = runner.act(small)
    runner.reset(TASK, 0)
    assert np.allclose(runner.act(large), expected, atol=1e-4)


def test_misuse_is_named(checkpoint: Path, tmp_path: Path) -> None:
    runner = PolicyRunner(checkpoint)
    with pytest.raises(InputError, match="reset"):
        runner.act(observation())
    runner.reset(TASK, 0)
    blind = {key: value for key, value in observation().items() if key != "wrist"}
    with pytest.raises(InputError, match="wrist"):
        runner.act(blind)
    with pytest.raises(InputError, match="not a policy checkpoint"):
        PolicyRunner(tmp_path)
    with pytest.raises(InputError, match="already ends in an indicator"):
        runner.reset(f"{TASK}. Advantage: positive", 0)


def test_another_lerobot_policy_runs_too(tmp_path: Path) -> None:
    inputs, outputs = gen3_features(84)
    config = make_policy_config(
        "act",
        input_features=inputs,
        output_features=outputs,
        device="cpu",
        pretrained_backbone_weights=None,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        chunk_size=4,
        n_action_steps=2,
        use_vae=False,
    )
    torch.manual_seed(0)
    policy = get_policy_class("act")(config)
    stats = {
        key: {"mean": torch.zeros(feature.shape), "std": torch.ones(feature.shape)}
        for key, feature in {**inputs, **outputs}.items()
    }
    Checkpoint(policy, *make_pre_post_processors(config, dataset_stats=stats)).save(tmp_path)
    assert drive(PolicyRunner(tmp_path), seed=0, steps=3).shape == (3, 7)
    runner = PolicyRunner(tmp_path)
    runner.reset(TASK)
    assert runner.plan(observation()).shape == (4, 7) and runner.execute_steps == 2
    with pytest.raises(InputError, match="guidance"):
        PolicyRunner(tmp_path, guidance=2.0)


def test_a_chunk_is_predicted_fast_enough_for_ten_hertz(checkpoint: Path) -> None:
    runner = PolicyRunner(checkpoint)
    frame = observation()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for _ in range(12):
            runner.reset(TASK, 0)  # empties the queue, so that every call predicts a chunk
            began = time.process_time()
            runner.act(frame)
            seconds.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    # 8 ms on an idle core; the bound leaves room for a busy machine.
    assert np.median(seconds) < 0.03

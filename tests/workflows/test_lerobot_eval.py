"""The real ``lerobot-eval`` command, unchanged, with our simulated arm and our own policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from collectors.lerobot_env import SimulatedGen3Env
from collectors.lerobot_env.pick_env import FIRST_SCENE, PickEnv
from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
from pipeline.episode import ACTION_NAMES
from tests.tiny_checkpoint import save_tiny_checkpoint
from tests.tiny_smolvla import TINY_GEN3
from workflows.evaluation import EvaluationConfig
from workflows.loop_graph import COMMAND_SCENES, DEMONSTRATION_SCENES, ROLLOUT_SCENES

ROOT = Path(__file__).parents[2]


def test_lerobots_own_command_judges_a_checkpoint_of_a_type_that_it_does_not_know(tmp_path: Path) -> None:
    # What it knows itself runs in its command in test_improve_policies, in this process.
    save_tiny_checkpoint(tmp_path / "policy", **TINY_GEN3)
    command = [
        str(Path(sys.executable).with_name("lerobot-eval")),
        "--env.discover_packages_path=collectors.lerobot_env",
        "--env.type=simulated_gen3",
        "--env.episode_length=3",
        f"--policy.path={tmp_path / 'policy'}",
        "--policy.device=cpu",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        f"--output_dir={tmp_path / 'out'}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]
    assert found["n_episodes"] == 1 and found["pc_success"] == 0.0


def test_the_environment_is_the_same_arm_from_the_same_seed() -> None:
    # SyncVectorEnv takes a seed for each of its environments, which gymnasium's types do not say.
    env: Any
    (env,) = SimulatedGen3Env(episode_length=4).create_envs(1)["simulated_gen3"].values()
    first, _ = env.reset(seed=[7])
    assert first["agent_pos"].shape == (1, 15) and first["pixels"]["wrist"].shape == (1, 84, 84, 3)
    down = np.zeros((1, len(ACTION_NAMES)), dtype=np.float32)
    down[0, ACTION_NAMES.index("tool.vz")] = -0.1
    seen, reward, ended, over, info = env.step(down)
    assert seen["agent_pos"][0, 9] < first["agent_pos"][0, 9], "the tool went down"
    assert (float(reward[0]), bool(ended[0]), bool(over[0]), bool(info["is_success"][0])) == (
        0,
        False,
        False,
        False,
    )
    again, _ = env.reset(seed=[7])
    assert np.array_equal(again["pixels"]["table"], first["pixels"]["table"])
    other, _ = env.reset(seed=[8])
    assert not np.array_equal(other["pixels"]["table"], first["pixels"]["table"])
    assert env.call("render")[0].shape == (240, 240, 3)
    assert env.call("task_description") == ("pick up the red cube",)
    env.close()


def test_its_scenes_are_in_no_training_set() -> None:
    # A million turns of the loop, evaluated starts, or seeds of 'recap record' and 'recap rollout'.
    many = 1_000_000
    firsts = [*DEMONSTRATION_SCENES.values(), *(first + 10_000 * many for first in ROLLOUT_SCENES.values())]
    firsts += [first + 1_000 * many for first in COMMAND_SCENES.values()]
    firsts.append(EvaluationConfig(("pick up the red cube",), many).start(many)[1])
    assert max(firsts) + many < FIRST_SCENE
    task = "pick up the red cube"
    env = PickEnv(task, rate_hz=10.0, image_size=84, max_steps=4)
    seen, _ = env.reset(seed=0)
    env.close()
    with SimulatedGen3(SimulatedGen3Config(rate_hz=10.0, image_size=84)) as robot:
        tables = []
        for scene in (0, FIRST_SCENE):
            robot.prepare(task, scene)
            tables.append(robot.get_observation()["table"])
    assert not np.array_equal(seen["pixels"]["table"], tables[0])
    assert np.array_equal(seen["pixels"]["table"], tables[1])

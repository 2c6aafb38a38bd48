"""SmolVLA, ACT and gen3_vla through the whole ``recap improve``, and into LeRobot's own commands.

All begin with the same recordings of the simulated arm, labelled by the scripted annotator. Each trains its
base policy, learns values and advantages, is fine-tuned, evaluated and decided about, and is then rolled out
under a supervisor. Meanwhile ``lerobot-eval``, unchanged, runs what was fine-tuned, and ``lerobot-rollout``'s
own code loads it, up to where that would turn to a robot.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies import get_policy_class
from lerobot.rollout import build_rollout_context
from lerobot.scripts import lerobot_eval, lerobot_rollout
from lerobot.utils.constants import OBS_STATE

from collectors.simulated_sessions import SessionConfig, run_session
from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.prompts import NEGATIVE, POSITIVE
from pipeline.workspace import Workspace
from tests.tiny_checkpoint import save_tiny_checkpoint
from tests.tiny_smolvla import TINY_ACT, TINY_GEN3, build_smolvlm, smolvla_options
from workflows.array_files import read_arrays
from workflows.cli import main
from workflows.evaluation_graph import ASKED_NEGATIVE, BASE, CANDIDATE, FILTERED
from workflows.ledger import Ledger
from workflows.local_ray import local_ray
from workflows.step_files import ADVANTAGES_FILE, CHECKPOINT
from workflows.step_store import StepResult, StepStore
from workflows.turn_labels import label_simulated

TASK = "pick up the red cube"
SMALL = ["--quick", "--policy-steps", "3", "--value-steps", "3", "--starts", "2"]


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with local_ray(2):
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of demonstrations, and of rollouts that a supervisor corrected, all labelled."""
    folder = tmp_path_factory.mktemp("recorded")
    workspace = Workspace(folder / "workspace").create()
    ids = []
    for i, person in enumerate(("skilled", "clumsy")):
        ids += run_session(workspace, SessionConfig(f"demo-{person}", person, 2, (TASK,), 0, 1000 * i))
    untrained = save_tiny_checkpoint(folder / "untrained", **TINY_GEN3)
    driven = SessionConfig("rollout-first", "supervisor", 2, (TASK,), 0, 5000, max_steps=40)
    ids += run_session(workspace, driven, untrained, "untrained/0")
    assert label_simulated(workspace, ids) == 6
    return workspace.root


def section(policy_type: str, folder: Path) -> str:
    """``[policy]`` of ``recap.toml`` for a tiny policy of that type."""
    options: dict[str, Any] = {"gen3_vla": TINY_GEN3, "act": TINY_ACT}.get(policy_type, {})
    if policy_type == "smolvla":
        options = smolvla_options(build_smolvlm(folder / "vlm"))
    # Long chunks: a network is asked five times an episode.
    options = {**options, "chunk_size": 16, "n_action_steps": 16}
    said = {key: "none" if value is None else value for key, value in options.items()}
    lines = [f"{key} = {json.dumps(value)}" for key, value in said.items()]
    return "\n".join(
        ["[policy]", f'type = "{policy_type}"', "batch_size = 2", "[policy.options]", *lines, ""]
    )


@pytest.mark.parametrize("policy_type", ["gen3_vla", "smolvla", "act"])
def test_the_whole_loop_and_lerobots_commands_take_what_comes_out(
    policy_type: str,
    recorded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    shutil.copytree(recorded, workspace.root)
    workspace.config_path.write_text(section(policy_type, tmp_path))
    assert main(["improve", "--workspace", str(workspace.root), *SMALL]) == 0
    said = capsys.readouterr().out
    assert "Iteration 1: " in said and "Decision: kept base: " in said, "two starts prove nothing"
    candidate = turn_of(workspace, policy_type)
    positive = asked_in_lerobot_eval(candidate.path / CHECKPOINT, tmp_path / "eval", monkeypatch)
    assert positive == {True}, "nobody said so but the checkpoint's own preprocessor"
    loaded_by_lerobot_rollout(candidate.path / CHECKPOINT, policy_type, monkeypatch)
    rolled_out_and_taken_in(workspace, candidate, capsys)


def turn_of(workspace: Workspace, policy_type: str) -> StepResult:
    """Looks at every part of the turn that was made; gives its candidate."""
    published = StepStore(workspace.steps).published()
    one = {step.name: step for step in published}
    arrays = read_arrays(one["advantages"].path / ADVANTAGES_FILE)
    corrected = arrays["source"] == Source.INTERVENTION
    assert corrected.any() and (arrays["indicator"][corrected] == POSITIVE).all()
    assert (arrays["indicator"] == NEGATIVE).any()
    trained = [one[name] for name in ("train_base", "fine_tune_filtered", "fine_tune_recap")]
    for step in trained:
        config = json.loads((step.path / CHECKPOINT / "config.json").read_text())
        assert config["type"] == policy_type, step.name
        assert json.loads((step.path / CHECKPOINT / "training.json").read_text())["config"]["steps"] == 3
    frames = [step.result["frames"] for step in trained]
    assert frames[2] == len(corrected) > max(frames[:2]), "RECAP alone learns from everything"
    assert one["fine_tune_recap"].manifest["inputs"]["base"] == f"train_base/{one['train_base'].key}"
    judged = [step for step in published if step.name == "evaluate"]
    assert sum(step.result["attempts"] for step in judged) == 2 * 4, "four policies on the same two starts"
    (iteration,) = Ledger(workspace).iterations()
    assert set(iteration.summary["performances"]) == {BASE, FILTERED, CANDIDATE, ASKED_NEGATIVE}
    assert (workspace.reports / "iteration-1.html").is_file()
    assert (workspace.datasets / "iteration-1/meta/info.json").is_file()
    return one["fine_tune_recap"]


@contextmanager
def logging_kept() -> Iterator[None]:
    """LeRobot's commands set the process's logging up for themselves."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def asked_in_lerobot_eval(checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> set[bool]:
    """Runs the command; whether the policy was asked for positive, over all its steps."""
    asked: set[bool] = set()
    config = json.loads((checkpoint / "config.json").read_text())
    policy_class = get_policy_class(config["type"])
    select = policy_class.select_action

    def watched(policy: Any, batch: dict[str, Any], **options: Any) -> torch.Tensor:
        asked.add(positive(config["type"], batch))
        return select(policy, batch, **options)

    words = ["lerobot-eval", "--env.discover_packages_path=collectors.lerobot_env"]
    words += ["--env.type=simulated_gen3", "--env.episode_length=3", f"--policy.path={checkpoint}"]
    words += ["--policy.device=cpu", "--eval.n_episodes=1", "--eval.batch_size=1", f"--output_dir={out}"]
    with monkeypatch.context() as within, logging_kept(), torch.random.fork_rng(devices=[]):
        within.setattr(policy_class, "select_action", watched)
        within.setattr(sys, "argv", words)
        lerobot_eval.main()
    assert json.loads((out / "eval_info.json").read_text())["overall"]["n_episodes"] == 1
    return asked


def positive(policy_type: str, batch: dict[str, Any]) -> bool:
    """Whether a preprocessed batch of one asks for positive, in the way of the policy's type."""
    if policy_type == "act":
        return batch[OBS_STATE].shape == (1, 16) and float(batch[OBS_STATE][0, -1]) == 1.0
    return [text.strip() for text in batch["task"]] == [f"{TASK}. Advantage: positive"]


def loaded_by_lerobot_rollout(checkpoint: Path, policy_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the command to where it would begin to drive: policy, arm and processors are ready then."""

    class ReadyToDrive(Exception):
        """All that the command has made."""

    def ready(*given: Any) -> Any:
        raise ReadyToDrive(build_rollout_context(*given))

    words = ["lerobot-rollout", f"--policy.path={checkpoint}", "--policy.device=cpu", f"--task={TASK}"]
    with monkeypatch.context() as within, logging_kept():
        within.setattr(sys, "argv", [*words, "--robot.type=simulated_gen3", "--play_sounds=false"])
        within.setattr(lerobot_rollout, "build_rollout_context", ready)
        with pytest.raises(ReadyToDrive) as reached:
            lerobot_rollout.main()
    (context,) = reached.value.args
    policy, before, after = context.policy.policy, context.policy.preprocessor, context.policy.postprocessor
    context.hardware.robot_wrapper.inner.disconnect()
    assert policy.config.type == policy_type
    seen = {name: torch.rand(1, *feature.shape) for name, feature in policy.config.image_features.items()}
    batch = before({**seen, OBS_STATE: torch.zeros(1, 15), "task": TASK, "robot_type": ""})
    assert positive(policy_type, batch)
    action = after(policy.select_action(batch))
    assert action.shape == (1, 7) and torch.isfinite(action).all()


def rolled_out_and_taken_in(
    workspace: Workspace, candidate: StepResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """The candidate as champion drives under a supervisor; the next turn learns from that."""
    Ledger(workspace).promote(candidate.name, candidate.key, 1, "for its rollouts")
    at = ["--workspace", str(workspace.root)]
    assert main(["rollout", *at, "--task", TASK, "--episodes", "1"]) == 0
    name = f"{candidate.name}/{candidate.key}"
    (entry,) = [one for one in workspace.list_episodes() if one.info.policy_checkpoint == name]
    with EpisodeReader(entry.path) as reader:
        assert Source.POLICY in reader.sources
        proposed = np.asarray(reader.policy_actions)
    assert np.isfinite(proposed).all(), "the policy was asked in every frame"
    assert label_simulated(workspace, [entry.id]) == 1
    capsys.readouterr()
    assert main(["improve", *at, *SMALL, "--dry-run"]) == 0
    assert "iteration 2, 7 episodes" in capsys.readouterr().out

"""Evaluations in rounds and parts, watched by a supervisor who does nothing, killed and continued."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collectors.collection_loop import LoopConfig, run_episode
from collectors.scripted_operators import ScriptedOperator, SkilledSkill
from collectors.scripted_supervisor import Trouble
from collectors.shadow_supervisor import ShadowSupervisor
from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
from collectors.simulated_sessions import observer
from pipeline.policy.runner import PolicyRunner
from tests.tiny_checkpoint import save_tiny_checkpoint
from workflows.comparison import Attempt
from workflows.evaluation import EvaluationConfig, evaluate, read_attempts, write_attempts
from workflows.recording_settings import PICK_TASKS

STARTS = EvaluationConfig(PICK_TASKS, starts=6, max_steps=20)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that knows nothing."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "checkpoint")


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> list[Attempt]:
    """Its evaluation in one go."""
    return evaluate(checkpoint, STARTS)


def test_rounds_and_parts_are_the_evaluation_in_one_go(
    checkpoint: Path, whole: list[Attempt], tmp_path: Path
) -> None:
    folders = []
    for first, end, part in ((0, 4, (0, 2)), (0, 4, (1, 2)), (4, 6, (0, 1))):
        config = EvaluationConfig(PICK_TASKS, starts=end, first=first, max_steps=20)
        folders.append(tmp_path / f"{first}-{part[0]}")
        folders[-1].mkdir()
        write_attempts(evaluate(checkpoint, config, part), folders[-1])
    assert read_attempts(*reversed(folders)) == whole
    assert [a.start_seed for a in whole] == [1_000_000 + i for i in range(6)]
    assert [a.task for a in whole] == [*PICK_TASKS] * 3


def test_a_part_without_starts_is_empty_and_loads_nothing(tmp_path: Path) -> None:
    one = EvaluationConfig(PICK_TASKS, starts=5, first=4)
    assert evaluate(tmp_path / "no checkpoint here", one, (1, 2)) == []
    with pytest.raises(ValueError, match="no start from 5 on to before 5"):
        EvaluationConfig(PICK_TASKS, starts=5, first=5)


def test_what_a_kill_left_is_not_run_again(checkpoint: Path, whole: list[Attempt], tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "attempts.jsonl"
    told: list[tuple[int, int]] = []
    assert evaluate(checkpoint, STARTS, kept=kept) == whole
    lines = kept.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    # Two whole attempts and half of the third, then what belongs to another start.
    for damaged in (b"".join(lines[:2]) + lines[2][:20], b"".join(lines[:2]) + lines[4] + lines[5], b"x\n"):
        kept.write_bytes(damaged)
        told.clear()
        assert (
            evaluate(checkpoint, STARTS, progress=lambda done, of: told.append((done, of)), kept=kept)
            == whole
        )
        assert told[0] == ((2, 6) if damaged != b"x\n" else (1, 6)) and told[-1] == (6, 6)
        assert kept.read_bytes() == b"".join(lines)
    # All there: nothing is loaded.
    assert evaluate(tmp_path / "no checkpoint here", STARTS, kept=kept) == whole


def test_a_killed_evaluation_goes_on_and_ends_the_same(
    checkpoint: Path, whole: list[Attempt], tmp_path: Path
) -> None:
    """SIGKILL in the middle; in the end there is what an undisturbed one gives."""
    kept = tmp_path / "attempts.jsonl"
    script = """
import sys
from pathlib import Path
from workflows.evaluation import EvaluationConfig, evaluate
from workflows.recording_settings import PICK_TASKS
evaluate(Path(sys.argv[1]), EvaluationConfig(PICK_TASKS, starts=6, max_steps=20), kept=Path(sys.argv[2]))
"""
    with subprocess.Popen([sys.executable, "-c", script, str(checkpoint), str(kept)]) as process:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if kept.exists() and len(kept.read_bytes().splitlines()) >= 2:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert len(kept.read_bytes().splitlines()) >= 2
    assert evaluate(checkpoint, STARTS, kept=kept) == whole


def test_attempts_from_before_interventions_were_counted_are_read(tmp_path: Path) -> None:
    old = {"task": "t", "start_seed": 3, "success": True, "steps": 30, "seconds": 3.0}
    (tmp_path / "evaluation.json").write_text(json.dumps([old]))
    assert read_attempts(tmp_path) == [Attempt("t", 3, True, 30, 3.0, interventions=0)]


def test_the_supervisor_who_only_watches_changes_nothing(checkpoint: Path, whole: list[Attempt]) -> None:
    """Without anybody to take note, every attempt ends the same, after as many steps."""
    policy = PolicyRunner(checkpoint)
    with SimulatedGen3(SimulatedGen3Config(rate_hz=STARTS.rate_hz)) as robot:
        for i, attempt in enumerate(whole):
            task, seed = STARTS.start(i)
            robot.prepare(task, seed)
            policy.reset(task, seed=seed)
            person = observer(robot)
            person.begin(task)
            loop = LoopConfig(STARTS.rate_hz, STARTS.max_steps, real_time=False)
            summary = run_episode(robot, person, loop, policy=policy)
            assert summary.take_overs == 0
            assert (robot.task_succeeded(), summary.steps, summary.seconds) == (
                attempt.success,
                attempt.steps,
                attempt.seconds,
            )
    # A policy that knows nothing makes no progress: a person would have taken over.
    assert sum(attempt.interventions for attempt in whole) >= 4


def test_it_would_not_have_taken_over_from_who_knows_the_task() -> None:
    """A skilled person's hand, as a policy, is left alone; one that stands still is not."""
    import numpy as np

    loop = LoopConfig(10.0, 80, real_time=False)
    noted = []
    with SimulatedGen3(SimulatedGen3Config(rate_hz=10.0)) as robot:
        for seed, still in ((5, False), (6, False), (5, True)):
            robot.prepare(PICK_TASKS[0], seed)
            hand = ScriptedOperator(robot, SkilledSkill(), np.random.default_rng(seed))
            hand.begin(PICK_TASKS[0])

            class Driver:
                """The hand, or nobody's."""

                def act(
                    self, observation: dict[str, object], hand: ScriptedOperator = hand, still: bool = still
                ) -> np.ndarray:
                    """This step's action, float32 (7,)."""
                    action = np.array(list(hand.get_action().values()), np.float32)
                    return np.zeros(7, np.float32) if still else action

            person = ShadowSupervisor(robot)
            person.begin(PICK_TASKS[0])
            run_episode(robot, person, loop, policy=Driver())
            noted.append((robot.task_succeeded(), person.trouble))
    assert noted == [(True, None), (True, None), (False, Trouble.STUCK)]

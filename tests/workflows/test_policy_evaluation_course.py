"""An evaluation as a session: who drives when, what counts, what is run again, what a kill leaves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors import collection_session
from collectors.episode_log import End
from collectors.operator_keys import OperatorKey
from collectors.recording import record_episode
from collectors.telemetry import Phase
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import MovingArm, ScriptedKeys
from tests.collectors.test_collection_session import Screen
from tests.workflows.killed_evaluation import (
    AGAIN,
    FAILURE,
    PLAN,
    SETTINGS,
    SPEEDS,
    START,
    STOP,
    SUCCESS,
    Upwards,
    go_on,
    steadily,
    typing,
)
from workflows.comparison import paired_share
from workflows.policy_evaluation import difference
from workflows.policy_evaluation_course import outcome_of
from workflows.policy_evaluation_runs import Run, film, results, runs_of, settle
from workflows.recorded_evaluation import recorded_policies

NAMES = ("old", "new")
TWO_STARTS = replace(PLAN, starts=2)


def outcomes(runs: Sequence[Run]) -> list[str | None]:
    return [run.outcome for run in runs]


def test_policies_take_turns_and_words_become_labels(workspace: Workspace) -> None:
    """Also a word that is said, or taken back, between two attempts; and nobody is told who drives."""
    screen = Screen()
    keys = typing(
        *(START, SUCCESS),
        *(START, AGAIN),
        *(START, FAILURE, SUCCESS),  # a wrong key, put right
        *(START, SUCCESS, AGAIN),  # and one that does not count after all
        *(START, FAILURE),
        *(START, SUCCESS, FAILURE, SUCCESS),  # the last one can be put right too
        START,
    )

    def patient(arm: MovingArm) -> ScriptedKeys:
        pressed = keys(arm)
        # The screen shows what is new a few times a second, and this person reads it before the last ENTER.
        pressed.script[-1] = (lambda: _all_done(screen), START)
        return pressed

    summary = go_on(workspace, patient, plan=TWO_STARTS, telemetry=screen)
    runs = runs_of(workspace, TWO_STARTS)
    assert outcomes(runs) == ["success", "exclude", "success", "exclude", "failure", "success"]
    first, second, third, fourth = TWO_STARTS.attempts
    assert [run.attempt for run in runs] == [first, second, second, third, third, fourth]
    assert len(summary.episodes) == 6 and summary.discarded == 0
    for run in runs:
        with EpisodeReader(run.entry.path) as episode:
            driven = episode.policy_actions[np.isfinite(episode.policy_actions[:, 2]), 2]
            assert np.allclose(driven, SPEEDS[run.attempt.policy]), "this policy drove, and no other"
    assert runs[1].entry.info.extra["ended"]["by"] == "discarded by the operator"
    with LabelStore(workspace.labels_path) as store:
        said = [event.outcome for event in store.history(runs[2].entry.id)]
        assert said == ["failure", "success"], "nothing that was said is lost"
        assert store.current()[runs[0].entry.id].note == "evaluation kept, start 1"
    told = "\n".join(shown.message for shown in screen.shown)
    assert (
        f"start 1 of 2, first of two: {PLAN.tasks[0]}; lay out the scene as for start 1, then ENTER" in told
    )
    assert "all attempts are done: S F D to correct the last, Q ends" in told
    assert any(run.entry.id in told for run in runs)
    assert any(shown.can_correct for shown in screen.shown) and not screen.shown[0].can_correct
    assert "old" not in told and "new/" not in told


def test_nothing_goes_on_before_it_was_said_how_it_ended(workspace: Workspace) -> None:
    one = replace(TWO_STARTS, starts=1, policies=TWO_STARTS.policies[:1])
    screen = Screen()
    keys = typing(START, OperatorKey.EMERGENCY_STOP, OperatorKey.CLEAR_FAULTS, START, FAILURE, START)

    def waiting(arm: MovingArm) -> ScriptedKeys:
        pressed = keys(arm)
        # A stopped arm takes no commands, and START then starts nothing: what is pressed goes by the screen.
        pressed.script[2] = (lambda: _shows(screen, Phase.STOPPED), OperatorKey.CLEAR_FAULTS)
        pressed.script[4] = (lambda: _shows(screen, Phase.WAITING), FAILURE)
        return pressed

    summary = go_on(workspace, waiting, plan=one, telemetry=screen)
    (run,) = runs_of(workspace, one)
    assert run.outcome == "failure" and run.entry.info.operator_mark is None and len(summary.episodes) == 1
    assert any("how did it end?" in shown.message for shown in screen.shown)


def _shows(screen: Screen, phase: Phase) -> bool:
    return bool(screen.shown) and screen.shown[-1].phase is phase


def _all_done(screen: Screen) -> bool:
    return bool(screen.shown) and "all attempts are done" in screen.shown[-1].message


def test_time_that_runs_out_is_a_failure(workspace: Workspace) -> None:
    one = replace(TWO_STARTS, starts=1, policies=TWO_STARTS.policies[:1], max_seconds=0.2)
    screen = Screen()

    def keys(arm: MovingArm) -> ScriptedKeys:
        return ScriptedKeys((lambda: bool(arm.sent), START), (lambda: _all_done(screen), START))

    go_on(workspace, keys, plan=one, settings=replace(SETTINGS, max_seconds=0.2), telemetry=screen)
    (run,) = runs_of(workspace, one)
    assert run.outcome == "failure" and run.entry.length == 20


def test_what_was_broken_off_does_not_count_and_what_was_marked_does(workspace: Workspace) -> None:
    """A fault before the label, then a stop in mid-attempt: the next process sees to both."""

    def fail(*_: Any) -> None:
        raise RuntimeError("no labels today")

    with pytest.raises(RuntimeError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelStore, "set", fail)
        go_on(workspace, typing(START, SUCCESS, STOP), plan=TWO_STARTS)
    assert outcomes(runs_of(workspace, TWO_STARTS)) == [None]
    go_on(workspace, typing(START, STOP), plan=TWO_STARTS)
    settle(workspace, TWO_STARTS)
    runs = runs_of(workspace, TWO_STARTS)
    assert outcomes(runs) == ["success", "exclude"]
    assert [run.attempt for run in runs] == list(TWO_STARTS.attempts[:2])
    with LabelStore(workspace.labels_path) as store:
        assert store.current()[runs[1].entry.id].note == "evaluation kept, start 1, cut short"


def test_figures_and_test_are_those_of_the_same_recorded_episodes(
    workspace: Workspace, tmp_path: Path
) -> None:
    three = replace(PLAN, starts=3)
    words = [SUCCESS, FAILURE, AGAIN, SUCCESS, SUCCESS, SUCCESS]  # and the last one is not run
    go_on(workspace, typing(*(key for word in words for key in (START, word)), STOP), plan=three)
    runs = runs_of(workspace, three)
    found = results(three, runs, NAMES)
    by_name = {one.checkpoint: one for one in recorded_policies(workspace)}
    for number, policy in enumerate(three.policies):
        expected = by_name[policy.recorded].as_json()
        mine = found["policies"][number]
        assert {name: mine[name] for name in expected["figures"]} == expected["figures"]
        assert mine["left_out"] == expected["left_out"]
    # Three starts were begun, two of them by both: these are compared, B with A.
    pairs = {
        (run.attempt.start, run.attempt.policy): run.as_attempt() for run in runs if run.outcome != "exclude"
    }
    a, b = ([pairs[start, policy] for start in (1, 2)] for policy in (0, 1))
    assert found["difference"] == difference(b, a) and found["difference"]["starts"] == 2
    gained, lost = found["difference"]["gained"], found["difference"]["lost"]
    assert found["difference"]["success_rate"]["low"] == paired_share(gained, lost, 2).low
    assert (found["left"], found["judged_by"]) == (1, {"ana": 5})
    # A label that is corrected later corrects the evaluation.
    with LabelStore(workspace.labels_path) as store:
        store.set(runs[0].entry.id, "exclude", "bob")
    again = results(three, runs_of(workspace, three), NAMES)
    assert again["left"] == 2 and again["difference"]["starts"] == 1
    with pytest.raises(InputError, match="no film"):
        film(tmp_path / "film.gif", runs[:1], NAMES)


def test_an_evaluation_that_is_killed_again_and_again_goes_on_to_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.workflows.killed_evaluation", str(tmp_path), "4", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 2, "killed, not ended by itself"
    workspace = Workspace(tmp_path)
    assert workspace.unfinished() == []
    runs = runs_of(workspace, PLAN)
    assert None not in outcomes(runs), "everything that was recorded is labelled"
    counted = Counter(run.attempt for run in runs if run.counts)
    assert counted == Counter(PLAN.attempts), "every attempt counts once, none was run twice for a kill"
    assert results(PLAN, runs, NAMES)["left"] == 0
    for run in runs:
        assert run.counts == (run.entry.info.operator_mark is not None)


def test_a_policy_that_fails_is_not_named_before_the_end(workspace: Workspace) -> None:
    screen, two = Screen(), replace(TWO_STARTS, starts=1)

    class Broken(Upwards):
        """Fails when it is asked again."""

        def plan(self, observation: dict[str, Any]) -> np.ndarray:
            chunk = super().plan(observation)
            self.speed = np.nan
            return chunk

    keys = typing(START, AGAIN, STOP)

    def waiting(arm: MovingArm) -> ScriptedKeys:
        pressed = keys(arm)
        pressed.script[1] = (
            lambda: bool(screen.shown) and "the policy failed" in screen.shown[-1].message,
            AGAIN,
        )
        return pressed

    summary = go_on(workspace, waiting, plan=two, telemetry=screen, policies=Broken)
    assert summary.problems == ("the policy gave an action that is not finite",)
    (run,) = runs_of(workspace, two)
    assert run.outcome == "exclude" and run.entry.info.extra["ended"]["by"] == "the policy failed"
    assert not any("not finite" in shown.message for shown in screen.shown)
    told = "".join(shown.message for shown in screen.shown)
    assert "the policy failed; D tries it again" in told and "ENTER tries" not in told, "ENTER waits for D"


class FailsAtTheSecond(Upwards):
    """Whichever policy is reset as the second gives no plan."""

    resets = 0

    def reset(self, task: str, seed: int | None = None) -> None:
        """Counts, over all policies."""
        FailsAtTheSecond.resets += 1
        self.fails = FailsAtTheSecond.resets == 2

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Sixteen steps, or none."""
        if self.fails:
            raise RuntimeError("CUDA out of memory")
        return super().plan(observation)


class Slow(Upwards):
    """Looks for a while."""

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Sixteen steps."""
        time.sleep(0.3)
        return super().plan(observation)


@pytest.mark.parametrize("case", ["the policy fails", "emergency stop", "fault"])
def test_a_word_after_an_attempt_that_left_nothing_is_not_about_the_one_before(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    screen = Screen()
    arms: list[MovingArm] = []
    attempts: list[int] = []
    FailsAtTheSecond.resets = 0

    def record(*words: Any, **more: Any) -> Any:
        attempts.append(len(attempts))
        if case == "fault" and len(attempts) == 2:  # before its first frame
            arms[0].fault_at = len(arms[0].sent)
        return record_episode(*words, **more)

    monkeypatch.setattr(collection_session, "record_episode", record)

    def told(words: str) -> bool:
        return bool(screen.shown) and words in screen.shown[-1].message

    def keys(arm: MovingArm) -> ScriptedKeys:
        arms.append(arm)
        after = {
            "the policy fails": [(lambda: told("the policy failed"), AGAIN)],
            "emergency stop": [
                (lambda: told("looks at the scene"), OperatorKey.EMERGENCY_STOP),
                (lambda: _shows(screen, Phase.STOPPED), FAILURE),
            ],
            "fault": [(lambda: _shows(screen, Phase.STOPPED), AGAIN)],
        }[case]
        first = [(steadily(arm, False), START), (steadily(arm, True), SUCCESS), (steadily(arm, False), START)]
        return ScriptedKeys(*first, *after, (lambda: told("counts when an attempt has been run"), STOP))

    policies = (
        FailsAtTheSecond if case == "the policy fails" else Slow if case == "emergency stop" else Upwards
    )
    go_on(workspace, keys, plan=TWO_STARTS, policies=policies, telemetry=screen)
    (run,) = runs_of(workspace, TWO_STARTS)
    assert run.outcome == "success"
    with LabelStore(workspace.labels_path) as store:
        assert len(store.history(run.entry.id)) == 1
    if case == "the policy fails":
        assert any("failed; ENTER tries it again" in shown.message for shown in screen.shown)


@pytest.mark.parametrize("end", [End.EMERGENCY_STOP, End.ARM_STOPPED])
def test_a_mark_of_the_moment_of_a_stop_is_asked_for_again(end: End) -> None:
    assert outcome_of(end, "success") is None
    assert outcome_of(End.OPERATOR, "success") == "success"

"""Sessions of several episodes: keys, discards, faults, Ctrl-C, a full disk, what the screen is told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.arm_interface import ArmStopped
from collectors.collection_session import SessionSettings, SessionSummary, run_session
from collectors.episode_log import End
from collectors.operator_keys import OperatorKey
from collectors.session_settings import new_episode_id
from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
from collectors.telemetry import Phase, Snapshot
from pipeline.durable_files import publish
from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import TASK, Hand, MovingArm, ScriptedKeys, after_commands

START, SUCCESS, FAILURE, DISCARD, PAUSE, STOP, EMERGENCY_STOP, CLEAR = OperatorKey
QUICK = SessionSettings(TASK, "ana", rate_hz=100.0, max_seconds=5.0, min_free_bytes=0, reserve_bytes=0)


class Screen:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.shown: list[Snapshot] = []
        self.cameras: set[str] = set()

    def update(self, snapshot: Snapshot) -> None:
        """One more."""
        self.shown.append(snapshot)

    def images(self, observation: Mapping[str, Any]) -> None:
        """Which cameras there were."""
        self.cameras |= {name for name, value in observation.items() if isinstance(value, np.ndarray)}


def test_the_screen_follows_why_the_arm_is_stopped(workspace: Workspace) -> None:
    """A driver that died is followed by a process that stops the arm, or cannot: the person has to know."""
    arm, screen = MovingArm(), Screen()
    arm.fault_at = 20

    class Keys:
        """Starts, and once the arm stopped and its words became others and were shown, ends."""

        def take_keys(self) -> list[OperatorKey]:
            if arm.stopped is None:
                return [START] if len(arm.sent) == 5 else []
            if any(shown.stopped == arm.stopped for shown in screen.shown):
                changed, arm.stopped = arm.stopped.startswith("USE"), "USE THE EMERGENCY STOP"
                return [STOP] if changed else []
            return []

    summary = run_session(workspace, arm, Hand(), Keys(), QUICK, telemetry=screen)
    assert summary.arm_stopped == "USE THE EMERGENCY STOP"


def script(arm: Any, *keys: OperatorKey | tuple[int, OperatorKey]) -> ScriptedKeys:
    """Keys one after the other, each 10 commands (or as many as said) after the one before."""
    timed = [(10, key) if isinstance(key, OperatorKey) else key for key in keys]
    return ScriptedKeys(*((after_commands(arm, count), key) for count, key in timed))


def run(
    workspace: Workspace,
    arm: MovingArm,
    keys: ScriptedKeys | None,
    settings: SessionSettings = QUICK,
    **more: Any,
) -> SessionSummary:
    """A session of the hand that pushes upwards."""
    return run_session(workspace, arm, Hand(), keys, settings, **more)


def test_a_whole_session_on_the_simulated_arm_in_real_time(workspace: Workspace) -> None:
    """Start, success, discard, again, pause, failure, stop: 20 steps a second by the clock on the wall."""

    class Counted(SimulatedGen3):
        sent: list[Any] = []  # noqa: RUF012 - one robot in this test

        def send_action(self, action: Mapping[str, Any]) -> dict[str, float]:
            self.sent.append(dict(action))
            return super().send_action(action)

    screen = Screen()
    with Counted(SimulatedGen3Config(rate_hz=20.0, image_size=32)) as robot:
        keys = script(
            robot,
            *[(4, START), (14, SUCCESS)],
            *[(3, START), (5, DISCARD)],
            *[(3, START), (6, PAUSE), (8, PAUSE), (4, FAILURE)],
            (3, STOP),
        )
        settings = replace(QUICK, rate_hz=20.0)
        summary = run_session(
            workspace,
            robot,
            Hand(),
            keys,
            settings,
            telemetry=screen,
            prepare=lambda number: robot.prepare(TASK, number),
        )
        assert not any(list(robot.sent[-1].values())[:6])
    assert [episode.summary.mark for episode in summary.episodes] == ["success", "failure"]
    assert (summary.discarded, summary.problems, summary.arm_stopped) == (1, (), None)
    entries = workspace.list_episodes()
    assert [entry.id for entry in entries] == [episode.id for episode in summary.episodes]
    assert [entry.length for entry in entries] == [episode.summary.steps for episode in summary.episodes]
    assert workspace.unfinished() == []
    assert "pauses" in entries[1].info.extra and entries[0].info.extra["pace"]["rate_hz"] > 5
    with EpisodeReader(entries[0].path) as episode:
        assert np.median(np.diff(episode.timestamps_ns)) == pytest.approx(5e7, rel=0.2)
        assert (episode.sources == Source.TELEOP).all() and episode.state("tool_pose")[-1, 2] > 0
    phases = [snapshot.phase for snapshot in screen.shown]
    assert {Phase.WAITING, Phase.RUNNING, Phase.PAUSED} <= set(phases) and phases[-1] is Phase.ENDED
    assert screen.shown[-1].done == 2 and screen.cameras == {"table", "wrist"}
    found = {finding.kind.value for finding in workspace.check() if finding.severity == "fatal"}
    assert not found


def test_a_fault_in_mid_motion_keeps_the_episode_and_waits_for_the_operator(workspace: Workspace) -> None:
    arm = MovingArm()
    arm.fault_at = 25
    screen = Screen()
    moments: list[tuple[Callable[[], bool], OperatorKey]] = [
        (after_commands(arm, 10), START),
        (
            lambda: (
                arm.stopped is not None and bool(screen.shown) and screen.shown[-1].phase is Phase.STOPPED
            ),
            START,
        ),
        (lambda: not arm.is_moving(), CLEAR),
        (after_commands(arm, 5), START),
        (after_commands(arm, 5), SUCCESS),
        (after_commands(arm, 2), STOP),
    ]
    summary = run(workspace, arm, ScriptedKeys(*moments), telemetry=screen)
    first, second = workspace.list_episodes()
    assert first.info.truncated and "joint 3 is too hot" in first.info.extra["ended"]["why"]
    assert not second.info.truncated and second.info.operator_mark == "success"
    assert len(summary.problems) == 1 and "\n" not in summary.problems[0]
    stopped = [snapshot for snapshot in screen.shown if snapshot.phase is Phase.STOPPED]
    assert stopped and stopped[-1].stopped == summary.problems[0]
    assert summary.arm_stopped is None


def test_an_emergency_stop_while_nothing_is_recorded_stops_the_arm(workspace: Workspace) -> None:
    arm = MovingArm()
    hand = Hand()
    hand.driving = True  # moves the arm between the episodes
    keys = ScriptedKeys((after_commands(arm, 10), EMERGENCY_STOP), (lambda: not arm.is_moving(), STOP))
    summary = run_session(workspace, arm, hand, keys, QUICK)
    assert arm.position[2] > 0 and arm.emergency_stops == 1 and not arm.is_moving()
    assert summary.arm_stopped is not None and summary.episodes == ()


def test_an_emergency_stop_in_an_episode_says_that_it_was_kept(workspace: Workspace) -> None:
    arm, screen = MovingArm(), Screen()

    def stopped_and_said(words: str) -> Callable[[], bool]:
        return lambda: (
            bool(screen.shown)
            and screen.shown[-1].phase is Phase.STOPPED
            and words in screen.shown[-1].message
        )

    keys = ScriptedKeys(
        (after_commands(arm, 10), START),
        (after_commands(arm, 10), EMERGENCY_STOP),
        (stopped_and_said("episode 1 ended by the emergency stop, and kept, marked as cut short"), SUCCESS),
        (stopped_and_said("mark what is over in labelling"), STOP),
    )
    summary = run(workspace, arm, keys, telemetry=screen)
    (entry,) = workspace.list_episodes()
    assert entry.info.truncated and entry.info.operator_mark is None and len(summary.episodes) == 1


def test_a_silent_arm_without_anybody_to_ask_ends_the_session_in_one_line(workspace: Workspace) -> None:
    arm = MovingArm()
    silence = ArmStopped("the arm has not answered for 0.5 s: check the cable, then start again")
    arm.fails_after = {30: silence}
    with pytest.raises(ArmStopped, match="has not answered") as caught:
        run(workspace, arm, None, replace(QUICK, auto_start_s=0.05))
    assert "\n" not in str(caught.value)
    (entry,) = workspace.list_episodes()
    assert entry.info.truncated and entry.length > 5
    assert entry.info.extra["ended"] == {"by": "the arm stopped", "why": str(silence)}
    assert not arm.is_moving()


def test_ctrl_c_holds_the_arm_and_keeps_the_open_episode(workspace: Workspace) -> None:
    arm = MovingArm()
    arm.fails_after = {30: KeyboardInterrupt()}  # type: ignore[dict-item]  # as the signal handler raises it
    ended: list[SessionSummary] = []
    with pytest.raises(KeyboardInterrupt):
        run(workspace, arm, script(arm, START), at_end=ended.append)
    (entry,) = workspace.list_episodes()
    (kept,) = ended[0].episodes
    assert (kept.id, kept.summary.steps) == (entry.id, entry.length), "what was broken off counts"
    assert entry.info.truncated and entry.length >= 15 and entry.info.extra["ended"]["why"] == "Ctrl-C"
    assert not arm.is_moving() and arm.sent[-1][6] == 1.0, "what the gripper holds is not let go"


def test_a_camera_that_is_unplugged_ends_nothing(workspace: Workspace) -> None:
    arm, screen = MovingArm(), Screen()
    arm.lost_from = {"wrist": 20}
    summary = run(workspace, arm, script(arm, START, (40, SUCCESS), STOP), telemetry=screen)
    (entry,) = workspace.list_episodes()
    assert entry.length >= 35 and not entry.info.truncated
    lost = entry.info.extra["cameras_lost"]
    assert list(lost) == ["wrist"] and 5 <= lost["wrist"]["first_frame"] <= 15
    assert screen.shown[-1].lost_cameras == {"wrist": "unplugged"}
    assert len(summary.problems) == 1 and "'wrist' was lost: unplugged" in summary.problems[0]


def test_too_little_disk_refuses_to_begin_and_ends_a_recording_in_time(
    workspace: Workspace,
) -> None:
    arm = MovingArm()
    with pytest.raises(Failure, match="free some space before you record"):
        run(workspace, arm, script(arm, START), replace(QUICK, min_free_bytes=10**18))
    assert not any(command[:6].any() for command in arm.sent)
    with pytest.raises(Failure, match="recording ended") as caught:
        run(workspace, arm, script(arm, START), replace(QUICK, reserve_bytes=10**18))
    assert "\n" not in str(caught.value) and not arm.is_moving()
    (entry,) = workspace.list_episodes()
    assert (
        entry.info.truncated and entry.length == 1 and "recording ended" in entry.info.extra["ended"]["why"]
    )


def test_episodes_follow_each_other_by_themselves_until_enough_are_kept(workspace: Workspace) -> None:
    settings = replace(QUICK, auto_start_s=0.02, episodes=3, max_seconds=0.1)
    numbers: list[int] = []
    summary = run(workspace, MovingArm(), None, settings, prepare=numbers.append)
    entries = workspace.list_episodes()
    assert [entry.length for entry in entries] == [10, 10, 10] and numbers == [1, 2, 3]
    assert [episode.summary.end for episode in summary.episodes] == [End.TIME] * 3
    assert len({entry.id for entry in entries}) == 3


def test_a_disk_that_is_slow_to_finish_an_episode_does_not_hold_up_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(temporary: Path, final: Path) -> None:
        time.sleep(1.5)
        publish(temporary, final)

    monkeypatch.setattr("pipeline.episode_writer.publish", slowly)
    arm = MovingArm()
    summary = run(workspace, arm, script(arm, START, SUCCESS, START, FAILURE, STOP))
    assert max(np.diff(arm.sent_at_s)) < 1.0
    assert [entry.id for entry in workspace.list_episodes()] == [episode.id for episode in summary.episodes]
    assert len(summary.episodes) == 2


def test_the_arm_holds_between_the_start_key_and_the_first_step(workspace: Workspace) -> None:
    arm, hand = MovingArm(), Hand()
    hand.driving = True  # the operator's hand is still on the stick
    moving: list[bool] = []
    keys = script(arm, START, SUCCESS, STOP)
    run_session(workspace, arm, hand, keys, QUICK, prepare=lambda _: moving.append(arm.is_moving()))
    assert moving == [False] and arm.position[2] > 0


def test_an_automatic_start_waits_again_after_a_fault(workspace: Workspace) -> None:
    cleared: list[float] = []
    began: list[float] = []

    class Noting(MovingArm):
        def clear_faults(self) -> None:
            cleared.append(time.monotonic())
            super().clear_faults()

    arm = Noting()
    arm.fault_at = 5
    moments: list[tuple[Callable[[], bool], OperatorKey]] = [
        (lambda: arm.stopped is not None, CLEAR),
        (lambda: bool(began), STOP),
    ]
    run(
        workspace,
        arm,
        ScriptedKeys(*moments),
        replace(QUICK, auto_start_s=0.3),
        prepare=lambda _: began.append(time.monotonic()),
    )
    assert began[0] - cleared[0] >= 0.29


def test_a_screen_that_hangs_delays_nothing(workspace: Workspace) -> None:
    class Hanging(Screen):
        def update(self, snapshot: Snapshot) -> None:
            threading.Event().wait(0.7)

    arm = MovingArm()
    summary = run(workspace, arm, script(arm, START, (60, SUCCESS), STOP), telemetry=Hanging())
    (episode,) = summary.episodes
    assert episode.summary.steps >= 55 and max(np.diff(arm.sent_at_s)) < 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_hz": 0.0}, "rate is 0 Hz"),
        ({"rate_hz": float("nan")}, "rate is nan"),
        ({"task": "  "}, "task is empty"),
        ({"episodes": 0}, "episodes is 0"),
        ({"max_seconds": 0.0}, "has no step"),
        ({"auto_start_s": -1.0}, "negative"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(QUICK, **changes)


def test_ids_sort_by_time_and_never_meet() -> None:
    now = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    ids = {new_episode_id(now) for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(r"20250304-050607-[0-9a-f]{6}", episode_id) for episode_id in ids)

"""A session: one person records several episodes on one robot, with time between them to set up the scene.

Between episodes nothing is recorded: the arm follows the operator's input and otherwise holds still, until
START (or the set time). Each episode then runs in the collection loop and is finished in the background.
Inputs: a connected robot and operator, keys, perhaps a policy that plans chunks. Output: episode files and
a :class:`SessionSummary`.

When something happens: an arm that stops by itself ends its episode, which is kept and marked; the session
then waits for the operator to clear the fault and start again, or to stop (where there are no keys it ends
with ``ArmStopped``). A policy that fails ends its episode likewise; the next start asks it again (where
there are no keys, or episodes start by themselves, the session ends with ``PolicyFailed``). Too little disk,
Ctrl-C and any other exception end the session: the arm holds still, the open episode is closed as truncated,
files that are being finished are waited for, and the exception leaves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from collectors.collection_loop import LoopConfig
from collectors.episode_log import End, EpisodeLog, EpisodeSummary
from collectors.free_space import FreeSpace
from collectors.loop_interface import OperatorLike, still
from collectors.operator_keys import KeySource
from collectors.policy_thread import Planner, PolicyFailed, RunAhead
from collectors.recording import Closer, record_episode
from collectors.session_reset import KeyQueue, Reset
from collectors.session_screen import counted, end_words, snapshot_of
from collectors.session_settings import KeptEpisode, SessionSettings, SessionSummary, new_episode_info
from collectors.telemetry import UPDATES_PER_S, NoTelemetry, Phase, Telemetry, TelemetryFeed
from pipeline.episode_file import EpisodeWriter
from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace

__all__ = ["KeptEpisode", "SessionSettings", "SessionSummary", "run_session"]

POLICY_TIMEOUT_S = 120.0  # for a policy's first actions: a large one may be compiled by its first call


def run_session(
    workspace: Workspace,
    robot: Any,
    operator: OperatorLike,
    keys: KeySource | None,
    settings: SessionSettings,
    *,
    policy: Planner | None = None,
    telemetry: Telemetry | None = None,
    prepare: Callable[[int], None] | None = None,
    at_end: Callable[[SessionSummary], object] | None = None,
) -> SessionSummary:
    """Runs a session to its end: as many episodes as wanted were kept, or the operator stops it.

    ``robot`` (LeRobot ``Robot``) and ``operator`` are connected and stay so. ``prepare`` is called with
    each episode's number, from 1, before it begins: for a simulated scene. Keys of the operator's own
    device count too. The features of a policy that can tell are checked against the robot's first.
    ``at_end`` gets the summary of a session however it ended, also where an exception is about to leave.
    Raises ``InputError`` before the arm moves, ``Failure`` (``ArmStopped`` is one) where it had to end
    early, and whatever else happened; everything that was recorded is kept.
    """
    check_robot = getattr(policy, "check_robot", None)
    if check_robot is not None:
        check_robot(robot.observation_features, robot.action_features)
    workspace.create()
    with contextlib.ExitStack() as outer, contextlib.ExitStack() as stack:
        feed = stack.enter_context(TelemetryFeed(telemetry or NoTelemetry()))
        disk = stack.enter_context(FreeSpace(workspace.episodes))
        closer = stack.enter_context(Closer())
        ahead = None
        if policy is not None:
            ahead = RunAhead(
                policy,
                settings.rate_hz,
                execute_steps=settings.execute_steps,
                blend_steps=settings.blend_steps,
            )
            stack.enter_context(ahead)
        session = _Session(workspace, robot, operator, keys, settings, ahead, feed, disk, closer, prepare)
        if at_end is not None:  # called last: when all files are finished
            outer.callback(lambda: at_end(session.summary()))
        try:
            session.run()
        except BaseException:
            session.hold_still()
            raise
        finally:
            session.say_ended()
    return session.summary()


class _Session:
    """The state of one session."""

    def __init__(
        self,
        workspace: Workspace,
        robot: Any,
        operator: OperatorLike,
        keys: KeySource | None,
        settings: SessionSettings,
        policy: RunAhead | None,
        feed: TelemetryFeed,
        disk: FreeSpace,
        closer: Closer,
        prepare: Callable[[int], None] | None,
    ) -> None:
        self.workspace, self.robot, self.operator, self.settings = workspace, robot, operator, settings
        self.policy, self.feed, self.disk, self.closer, self.prepare = policy, feed, disk, closer, prepare
        sources: list[Any] = [keys, operator]
        self.keys = KeyQueue(source for source in sources if hasattr(source, "take_keys"))
        self.reset = Reset(
            robot,
            operator,
            self.keys,
            settings.rate_hz,
            problem=self.note_problem,
            message=self.say,
            each_period=self.show_reset,
        )
        self.kept: list[KeptEpisode] = []
        self.discarded = 0
        self.problems: list[str] = []
        self.message = ""
        self.number = 1
        self.episode_id: str | None = None
        self.log = EpisodeLog()
        self.dropped = 0
        self.shown_s = 0.0

    def run(self) -> None:
        settings = self.settings
        while settings.episodes is None or len(self.kept) < settings.episodes:
            self.closer.check()
            self.check_disk()
            if not self.reset.wait_for_start(settings.auto_start_s):
                break
            self.closer.check()
            self.check_disk()
            if self.prepare is not None:
                self.prepare(self.number)
            if self.policy is not None and not self.plan_ahead(self.policy):
                continue
            self.record()
            if self.log.stop_asked:
                break
        self.hold_still()

    def check_disk(self) -> None:
        free = self.disk.ask()
        if free < self.settings.min_free_bytes:
            raise Failure(
                f"{self.disk.folder} has only {free / 1e9:.2f} GB left and an episode wants "
                f"{self.settings.min_free_bytes / 1e9:.2f}: free some space before you record"
            )

    def plan_ahead(self, policy: RunAhead) -> bool:
        """Whether the policy has its first actions, so that the episode does not begin with a wait."""
        self.say("the policy looks at the scene")
        policy.reset(self.settings.task, self.settings.seed + self.number)
        try:
            ready = self.reset.wait_for_plan(policy.is_ready, POLICY_TIMEOUT_S)
        except (PolicyFailed, InputError) as error:
            if self.is_unattended:
                raise
            self.note_problem(str(error))
            return False
        self.say("")
        return ready

    @property
    def is_unattended(self) -> bool:
        """Whether nobody may be there to decide what to do about a problem."""
        return not self.keys.has_sources or self.settings.auto_start_s is not None

    def record(self) -> None:
        info = new_episode_info(self.settings, self.robot, has_policy=self.policy is not None)
        self.episode_id = info.id
        self.dropped = 0
        self.log = EpisodeLog(gripper_target=self.reset.gripper_target)
        self.say("")
        try:
            summary = record_episode(
                self.workspace,
                info,
                self.robot,
                self.operator,
                LoopConfig(self.settings.rate_hz, self.settings.max_steps),
                policy=self.policy,
                keys=self.keys,
                log=self.log,
                on_step=self.show_step,
                closer=self.closer,
            )
        except BaseException:
            if self.log.steps and self.workspace.episode_path(info.task, info.id).exists():
                self.keep(info.id, self.log.summary(self.settings.rate_hz))
            raise
        finally:
            self.reset.gripper_target = self.log.gripper_target
        self.take_result(info.id, summary)

    def take_result(self, episode_id: str, summary: EpisodeSummary) -> None:
        """Counts the episode, tells the operator what was unusual, and notes an arm or policy that failed."""
        number, words = self.number, end_words(self.number, episode_id, summary)
        self.episode_id = None
        self.number = number + 1
        if summary.end is End.DISCARDED:
            self.discarded += 1
        elif summary.steps:
            before = len(self.problems)
            self.keep(episode_id, summary)
            words = "; ".join([words, *self.problems[before:]])
        if summary.end in (End.ARM_STOPPED, End.EMERGENCY_STOP):
            self.reset.arm_stopped(summary.why or "emergency stop by the operator")
        elif summary.end is End.POLICY_FAILED:
            why = summary.why or "the policy failed"
            self.problems.append(why)
            if self.is_unattended:
                raise PolicyFailed(why)
            words = f"{why}; {words}"
        self.say(words)

    def keep(self, episode_id: str, summary: EpisodeSummary) -> None:
        """Counts an episode that is in its file, and notes what it lost."""
        self.kept.append(KeptEpisode(episode_id, summary, self.dropped, tuple(self.log.cameras_lost)))
        for camera, known in self.log.cameras_lost.items():
            self.note_problem(f"{episode_id}: camera {camera!r} was lost: {known['why']}")
        if self.dropped:
            lost = counted(self.dropped, "frame")
            self.note_problem(f"{episode_id}: {lost} dropped, the disk was too slow")

    def note_problem(self, line: str) -> None:
        self.problems.append(line)
        self.say(line)

    def say(self, line: str) -> None:
        self.message = line

    def show_step(self, observation: Mapping[str, Any], writer: EpisodeWriter) -> None:
        """Called by the loop in every step; ends the episode, kept, before the disk is full."""
        self.dropped = writer.dropped
        if self.disk.free_bytes < self.settings.reserve_bytes:
            raise Failure(
                f"recording ended: {self.disk.folder} has only {self.disk.free_bytes / 1e6:.0f} MB left; "
                f"{self.episode_id} is kept as far as it went, free some space and start again"
            )
        self.show(Phase.PAUSED if self.log.paused else Phase.RUNNING, observation)

    def show_reset(self, observation: Mapping[str, Any] | None) -> None:
        self.closer.check()
        self.show(Phase.WAITING if self.reset.stopped is None else Phase.STOPPED, observation)

    def show(self, phase: Phase, observation: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        if now - self.shown_s < 1 / UPDATES_PER_S and phase is not Phase.ENDED:
            return
        self.shown_s = now
        snapshot = snapshot_of(
            phase,
            self.robot,
            self.operator,
            self.settings,
            self.log,
            episode=self.number,
            episode_id=self.episode_id,
            done=len(self.kept),
            dropped=self.dropped,
            stopped=self.reset.stopped,
            disk_free_bytes=self.disk.free_bytes,
            last_mark=self.kept[-1].summary.mark if self.kept else None,
            message=self.message,
        )
        self.feed.put(snapshot, observation)

    def say_ended(self) -> None:
        self.show(Phase.ENDED)

    def hold_still(self) -> None:
        with contextlib.suppress(Exception):
            self.robot.send_action(still(self.robot.get_observation(), self.reset.gripper_target))

    def summary(self) -> SessionSummary:
        return SessionSummary(tuple(self.kept), self.discarded, tuple(self.problems), self.reset.stopped)

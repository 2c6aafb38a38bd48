"""A session: one person records several episodes on one robot, with time between them to set up the scene.

Between episodes nothing is recorded: the arm follows the operator's input and otherwise holds still, until
START (or the set time). Each episode then runs in the collection loop and is finished in the background.
Inputs: a connected robot and operator, keys, perhaps a policy that plans chunks. Output: episode files and
a :class:`SessionSummary`.

When something happens: an arm that stops by itself ends its episode, which is kept and marked; the session
then waits for the operator to clear the fault and start again, or to stop (where there are no keys it ends
with ``ArmStopped``). Too little disk, a policy that fails, Ctrl-C and any other exception end the session:
the arm holds still, the open episode is closed as truncated, files that are being finished are waited for,
and the exception leaves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from collectors.arm_interface import condition_of, lost_cameras
from collectors.collection_loop import LoopConfig
from collectors.episode_log import End, EpisodeLog, EpisodeSummary
from collectors.free_space import FreeSpace
from collectors.loop_interface import OperatorLike, still
from collectors.operator_keys import KeySource
from collectors.policy_thread import Planner, RunAhead
from collectors.recording import Closer, record_episode
from collectors.session_reset import KeyQueue, Reset
from collectors.session_settings import KeptEpisode, SessionSettings, SessionSummary, new_episode_id
from collectors.telemetry import UPDATES_PER_S, NoTelemetry, Phase, Snapshot, Telemetry, TelemetryFeed
from pipeline.episode import EpisodeInfo
from pipeline.episode_file import EpisodeWriter
from pipeline.errors import Failure
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
) -> SessionSummary:
    """Runs a session to its end: as many episodes as wanted were kept, or the operator stops it.

    ``robot`` (LeRobot ``Robot``) and ``operator`` are connected and stay so. ``prepare`` is called with
    each episode's number, from 1, before it begins: for a simulated scene. Keys of the operator's own
    device count too. The features of a policy that can tell are checked against the robot's first.
    Raises ``InputError`` before the arm moves, ``Failure`` (``ArmStopped`` is one) where it had to end
    early, and whatever else happened; everything that was recorded is kept.
    """
    check_robot = getattr(policy, "check_robot", None)
    if check_robot is not None:
        check_robot(robot.observation_features, robot.action_features)
    workspace.create()
    with contextlib.ExitStack() as stack:
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
        ready = self.reset.wait_for_plan(policy.is_ready, POLICY_TIMEOUT_S)
        self.say("")
        return ready

    def record(self) -> None:
        info = self.new_info()
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
        finally:
            self.reset.gripper_target = self.log.gripper_target
        self.take_result(info.id, summary)

    def new_info(self) -> EpisodeInfo:
        features = self.robot.observation_features
        now = datetime.now(UTC)
        return EpisodeInfo(
            id=new_episode_id(now),
            task=self.settings.task,
            operator=self.settings.operator,
            robot=self.robot.name,
            rate_hz=self.settings.rate_hz,
            cameras=tuple(name for name, kind in features.items() if isinstance(kind, tuple)),
            created=now.isoformat(timespec="milliseconds"),
            software_version=version("kinova-recap"),
            policy_checkpoint=self.settings.policy_name if self.policy is not None else None,
            extra=dict(self.settings.extra),
        )

    def take_result(self, episode_id: str, summary: EpisodeSummary) -> None:
        """Counts the episode, tells the operator what was unusual, and notes an arm that stopped."""
        self.episode_id = None
        self.number += 1
        if summary.end is End.DISCARDED:
            self.discarded += 1
            self.say("discarded; once more")
        elif summary.steps:
            lost = tuple(self.log.cameras_lost)
            self.kept.append(KeptEpisode(episode_id, summary, self.dropped, lost))
            mark = "no mark" if summary.mark is None else summary.mark.value
            self.say(f"kept {episode_id}: {summary.seconds:.1f} s, {mark}, {summary.end.value}")
            for camera, known in self.log.cameras_lost.items():
                self.note_problem(f"{episode_id}: camera {camera!r} was lost: {known['why']}")
            if self.dropped:
                self.note_problem(f"{episode_id}: {self.dropped} frames dropped, the disk was too slow")
        if summary.end in (End.ARM_STOPPED, End.EMERGENCY_STOP):
            self.reset.arm_stopped(summary.why or "emergency stop by the operator")

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
        log, condition = self.log, condition_of(self.robot)
        running = phase in (Phase.RUNNING, Phase.PAUSED)
        snapshot = Snapshot(
            phase=phase,
            task=self.settings.task,
            episode=self.number,
            episode_id=self.episode_id,
            done=len(self.kept),
            wanted=self.settings.episodes,
            seconds=log.steps / self.settings.rate_hz,
            frames=log.steps,
            rate_hz=log.rate_hz,
            wanted_rate_hz=self.settings.rate_hz,
            overruns=log.overruns,
            dropped=self.dropped,
            starved=log.starved_steps,
            driver=log.driver if running else None,
            limits=condition.limits,
            stopped=condition.stopped if self.reset.stopped is None else self.reset.stopped,
            lost_cameras=lost_cameras(self.robot),
            lost_device=getattr(self.operator, "lost", None),
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

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collectors.collection_loop import LoopConfig
from collectors.episode_log import End, EpisodeLog, EpisodeSummary
from collectors.free_space import FreeSpace
from collectors.loop_interface import OperatorLike, still
from collectors.operator_keys import KeySource, OperatorKey
from collectors.policy_thread import Planner, PolicyFailed, RunAhead
from collectors.recording import Closer, record_episode
from collectors.session_course import Course, Turn
from collectors.session_reset import KeyQueue, Reset
from collectors.session_screen import end_words, lost_words, snapshot_of, starving_words
from collectors.session_settings import KeptEpisode, SessionSettings, SessionSummary, new_episode_info
from collectors.telemetry import UPDATES_PER_S, NoTelemetry, Phase, Telemetry, TelemetryFeed
from pipeline.episode_file import EpisodeWriter
from pipeline.errors import InputError
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
    course: Course | None = None,
    telemetry: Telemetry | None = None,
    prepare: Callable[[int], None] | None = None,
    at_end: Callable[[SessionSummary], object] | None = None,
) -> SessionSummary:
    """Runs a session to its end: as many episodes as wanted were kept, or the operator stops it.

    ``robot`` (LeRobot ``Robot``) and ``operator`` are connected and stay so. ``prepare`` is called with
    each episode's number, from 1, before it begins: for a simulated scene. Keys of the operator's own
    device count too. The features of a policy that can tell are checked against the robot's first.
    ``course`` says instead of ``policy`` and ``settings`` what each episode is, and when there are no more.
    ``at_end`` gets the summary of a session however it ended, also where an exception is about to leave.
    Raises ``InputError`` before the arm moves, ``Failure`` (``ArmStopped`` is one) where it had to end
    early, and whatever else happened; everything that was recorded is kept.
    """
    planners = course.planners if course is not None else [] if policy is None else [policy]
    for check_robot in filter(None, (getattr(planner, "check_robot", None) for planner in planners)):
        check_robot(robot.observation_features, robot.action_features)
    workspace.create()
    with contextlib.ExitStack() as outer, contextlib.ExitStack() as stack:
        feed = stack.enter_context(TelemetryFeed(telemetry or NoTelemetry()))
        disk = stack.enter_context(FreeSpace(workspace.episodes))
        closer = stack.enter_context(Closer())
        rate, execute, blend = settings.rate_hz, settings.execute_steps, settings.blend_steps
        runs = [RunAhead(planner, rate, execute_steps=execute, blend_steps=blend) for planner in planners]
        policies = [stack.enter_context(run) for run in runs]
        session = _Session(
            workspace, robot, operator, keys, settings, policies, course, feed, disk, closer, prepare
        )
        if at_end is not None:  # called last: when all files are finished
            outer.callback(lambda: at_end(session.summary()))
        try:
            session.run()
        except BaseException:
            session.hold_still()
            raise
        finally:
            session.show(Phase.ENDED)
    return session.summary()


@dataclass
class _Session:
    """The state of one session; see :func:`run_session`."""

    workspace: Workspace
    robot: Any
    operator: OperatorLike
    own_keys: KeySource | None
    settings: SessionSettings
    policies: Sequence[RunAhead]
    course: Course | None
    feed: TelemetryFeed
    disk: FreeSpace
    closer: Closer
    prepare: Callable[[int], None] | None
    kept: list[KeptEpisode] = field(default_factory=list)
    discarded: int = 0
    problems: list[str] = field(default_factory=list)
    message: str = ""
    number: int = 1
    episode_id: str | None = None
    log: EpisodeLog = field(default_factory=EpisodeLog)
    dropped: int = 0
    shown_s: float = 0.0

    def __post_init__(self) -> None:
        self.policy = self.policies[0] if self.policies else None
        sources: list[Any] = [self.own_keys, self.operator]
        self.keys = KeyQueue(source for source in sources if hasattr(source, "take_keys"))
        self.reset = Reset(
            self.robot,
            self.operator,
            self.keys,
            self.settings.rate_hz,
            problem=self.note_problem,
            message=self.say,
            each_period=self.show_reset,
            judge=None if self.course is None else self.judge,
            refusal=(lambda: None) if self.course is None else self.course.refusal,
        )

    def run(self) -> None:
        while self.next_turn() is not None or (self.course is not None and self.course.last() is not None):
            self.check_files()
            if not self.reset.wait_for_start(self.settings.auto_start_s):
                break
            self.check_files()
            turn = self.next_turn()  # once more: what was said of the last episode may have changed it
            if turn is None:
                break  # the last one's outcome stays as it was said
            if self.course is not None:
                self.course.began()
            if self.prepare is not None:
                self.prepare(turn.scene)
            if self.policy is not None and not self.plan_ahead(self.policy, turn.scene):
                continue
            self.record()
            if self.log.stop_asked:
                break
        self.hold_still()

    def next_turn(self) -> Turn | None:
        """What the next episode is, which the settings and the policy then are; ``None``: no more."""
        settings = self.settings
        if self.course is None:
            return Turn(settings.task, self.number) if settings.wants_more(len(self.kept)) else None
        turn = self.course.turn()
        if turn is not None:
            self.settings, self.policy = turn.settings(settings), self.policies[turn.policy]
        return turn

    def check_files(self) -> None:
        self.closer.check()
        self.disk.require(self.settings.min_free_bytes)

    def judge(self, key: OperatorKey) -> None:
        """What the person says between two episodes about the last one."""
        assert self.course is not None  # without one nobody asks
        self.say(self.course.judge(key, self.closer.submit))

    def plan_ahead(self, policy: RunAhead, scene: int) -> bool:
        """Whether the policy has its first actions, so that the episode does not begin with a wait."""
        self.say("the policy looks at the scene")
        policy.reset(self.settings.task, self.settings.seed + scene)
        try:
            ready = self.reset.wait_for_plan(policy.is_ready, POLICY_TIMEOUT_S)
        except (PolicyFailed, InputError) as error:
            if self.is_unattended:
                raise
            self.say(self.policy_problem(str(error), "ENTER"))
            return False
        self.say("")
        return ready

    @property
    def is_unattended(self) -> bool:
        """Whether nobody may be there to decide what to do about a problem."""
        return not self.keys.has_sources or self.settings.auto_start_s is not None

    def record(self) -> None:
        info = new_episode_info(self.settings, self.robot, has_policy=self.policy is not None)
        self.episode_id, self.dropped = info.id, 0
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
                keep_discarded=self.course is not None,
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
        words = end_words(self.number, episode_id, summary)
        self.episode_id, self.number = None, self.number + 1
        if summary.end is End.DISCARDED and self.course is None:
            self.discarded += 1
        elif summary.steps:
            told = self.keep(episode_id, summary)
            if self.course is not None:
                words = self.course.ended(episode_id, summary, self.closer.submit)
            words = "; ".join([words, *told])
        if summary.end in (End.ARM_STOPPED, End.EMERGENCY_STOP):
            self.reset.arm_stopped(summary.why or "emergency stop by the operator")
        elif summary.end is End.POLICY_FAILED:
            why = summary.why or "the policy failed"
            if self.is_unattended:
                self.problems.append(why)
                raise PolicyFailed(why)
            again = "D" if summary.steps else "ENTER"  # a course first asks how what was recorded ended
            words = f"{self.policy_problem(why, again)}; {words}"
        self.say(words)

    def keep(self, episode_id: str, summary: EpisodeSummary) -> list[str]:
        """Counts an episode that is in its file, and notes what it lost or waited for; what to tell of it."""
        self.kept.append(KeptEpisode(episode_id, summary, self.dropped, tuple(self.log.cameras_lost)))
        lost, starved = lost_words(episode_id, self.log, self.dropped), starving_words(episode_id, summary)
        self.problems += [*lost, *starved]
        return lost if self.course is not None else [*lost, *starved]  # a slow policy could be told by it

    def policy_problem(self, why: str, again: str) -> str:
        """Notes it; the words for now: why may name the policy, which a course's person is not to know."""
        self.problems.append(why)
        blind = f"the policy failed; {again} tries it again, Q ends and says why"
        return why if self.course is None else blind

    def note_problem(self, line: str) -> None:
        self.problems.append(line)
        self.say(line)

    def say(self, line: str) -> None:
        self.message = line

    def show_step(self, observation: Mapping[str, Any], writer: EpisodeWriter) -> None:
        """Called by the loop in every step; ends the episode, kept, before the disk is full."""
        self.dropped = writer.dropped
        self.disk.require_reserve(self.settings.reserve_bytes, self.episode_id)
        self.show(Phase.PAUSED if self.log.paused else Phase.RUNNING, observation)

    def show_reset(self, observation: Mapping[str, Any] | None) -> None:
        self.closer.check()
        self.show(Phase.WAITING if self.reset.stopped is None else Phase.STOPPED, observation)

    def show(self, phase: Phase, observation: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        if now - self.shown_s < 1 / UPDATES_PER_S and phase is not Phase.ENDED:
            return
        self.shown_s = now
        lines = [self.message]
        if self.course is not None and phase in (Phase.WAITING, Phase.STOPPED):
            lines.append(self.course.words())
        state = snapshot_of(
            phase,
            self.robot,
            self.operator,
            self.settings,
            self.log,
            episode=self.number,
            episode_id=self.episode_id,
            kept=self.kept,
            dropped=self.dropped,
            stopped=self.reset.stopped,
            disk_free_bytes=self.disk.free_bytes,
            message="\n".join(dict.fromkeys(filter(None, lines))),
            course=self.course,
        )
        self.feed.put(state, observation)

    def hold_still(self) -> None:
        with contextlib.suppress(Exception):
            self.robot.send_action(still(self.robot.get_observation(), self.reset.gripper_target))

    def summary(self) -> SessionSummary:
        return SessionSummary(tuple(self.kept), self.discarded, tuple(self.problems), self.reset.stopped)

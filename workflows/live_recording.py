"""``recap record`` and ``recap rollout`` with a person at a device: from ``recap.toml`` to a session.

Everything that can be wrong is looked at before the arm moves, cheapest first: settings, robot, device,
checkpoint; then the device is connected, then the arm.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from collectors.arm_interface import StoppableArm
from collectors.collection_session import SessionSettings, SessionSummary, run_session
from collectors.idle_operator import IdleOperator
from collectors.live_view import LiveView
from collectors.operator_keys import KEY_HELP, KeysFromNow, TerminalInput, TerminalUser
from collectors.policy_thread import Planner
from collectors.rerun_view import RerunView
from collectors.session_course import Course
from collectors.site_devices import make_operator, make_robot
from collectors.telemetry import Telemetry
from collectors.teleoperators.keyboard import MOVE_HELP, Gen3Keyboard
from pipeline.counted_words import counted
from pipeline.episode import Outcome
from pipeline.errors import Failure, InputError
from pipeline.policy.channel import read_token
from pipeline.policy.remote import RemotePolicy
from pipeline.prompts import Indicator
from pipeline.site_config import SIMULATED_ROBOT, SiteConfig, load_site_config
from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.loop_graph import COMMAND_SCENES
from workflows.recording_settings import RecordingSettings, recording_with
from workflows.step_files import CHECKPOINT

NOBODY = "none"
_IMAGE_SIZE = 224  # pixels, side of the simulated arm's images: for eyes as well


@dataclass(frozen=True)
class LiveOptions:
    """What the command line says; ``None`` leaves it to ``recap.toml``.

    ``device`` is the operator's input device, :data:`NOBODY` for a rollout that is only watched;
    ``policy`` a checkpoint's folder, ``tcp://host:port`` or ``champion``, ``None`` for demonstrations.
    """

    task: str
    device: str | None = None
    person: str | None = None
    episodes: int | None = None
    rate_hz: float | None = None
    max_seconds: float = 300.0
    auto_start_s: float | None = None
    view: bool = False
    seed: int = 0
    policy: str | None = None
    token_file: Path | None = None
    indicator: Indicator | None = "positive"


@dataclass(frozen=True)
class LiveCourse:
    """A session whose policies take turns, as an evaluation's do; in place of ``LiveOptions.policy``.

    ``load`` makes the course, before anything is connected; what it enters ends with the session. ``scene``
    says for a turn's number how the simulated arm lays it out: task and seed. ``at_end`` is called when the
    arm was let go and every file is finished, however the session ended. ``stream`` gets the live view.
    """

    load: Callable[[contextlib.ExitStack], Course]
    scene: Callable[[int], tuple[str, int]]
    at_end: Callable[[SessionSummary], None]
    stream: TextIO | None = None


def device_of(site: SiteConfig, device: str | None) -> str | None:
    """The input device: the one asked for, else that of ``recap.toml``; ``None`` where none is named."""
    return device or site.operator.type or None


def record_live(root: Path, options: LiveOptions, course: LiveCourse | None = None) -> None:
    """Runs the session and prints what it gave, or calls the course's ``at_end``, however it ended.

    Raises ``InputError`` before the arm moves, later ``Failure``, and what else ended the session.
    """
    workspace = Workspace(root)
    site = load_site_config(workspace.config_path)
    settings = _settings(site, options)
    if site.robot.type == SIMULATED_ROBOT:
        seen = recording_with(RecordingSettings(), site.defaults).rendered_size
        arm = {"image_size": max(_IMAGE_SIZE, seen), **site.robot.options, "rate_hz": settings.rate_hz}
        site = replace(site, robot=replace(site.robot, options=arm))
    report = partial(_report, workspace) if course is None else course.at_end
    robot = make_robot(site)
    operator = _operator(site, options, robot.action_features)
    _make_writable(workspace)
    with contextlib.ExitStack() as reports, contextlib.ExitStack() as stack:
        turns = None if course is None else course.load(stack)
        policy, name = _policy(workspace, options, stack) if turns is None else (None, None)
        planners: Sequence[Any] = turns.planners if turns is not None else [policy] if policy else []
        for planner in planners:
            planner.check_robot(robot.observation_features, robot.action_features)
        if planners:
            stack.enter_context(_a_core_for_the_loop())
        stop = _emergency_stop(robot)
        keys = TerminalInput(stop)
        if hasattr(operator, "on_emergency_stop"):
            # From the device's own thread, at once: the loop asks for its other buttons when it comes round.
            operator.on_emergency_stop = stop
        if isinstance(operator, TerminalUser):
            operator.use_terminal(keys)
        stack.enter_context(keys)
        if turns is not None and not (keys.is_reading or hasattr(operator, "take_keys")):
            raise InputError("nobody could say what came of it: use a terminal, or a device with keys")
        operator.connect()
        stack.callback(operator.disconnect)
        robot.connect()
        stack.callback(robot.disconnect)
        summary = run_session(
            workspace,
            robot,
            operator,
            # The session asks the device for its own keys: only what it has by now is dealt with here.
            KeysFromNow(keys, others=[operator] if hasattr(operator, "take_keys") else []),
            replace(settings, policy_name=name),
            policy=policy,
            course=turns,
            telemetry=stack.enter_context(_Views(_live_view(operator, course), options.view)),
            prepare=_scenes(robot, options, course),
            # Printed when the arm is let go and the live view is closed, also before an exception goes on.
            at_end=lambda ended: reports.callback(report, ended),
        )
    finished = turns is not None and turns.turn() is None
    if summary.arm_stopped is not None and not finished:
        raise Failure(f"the arm stopped: {summary.arm_stopped}")


def _settings(site: SiteConfig, options: LiveOptions) -> SessionSettings:
    return SessionSettings(
        task=options.task,
        operator=options.person or site.defaults.operator,
        rate_hz=float(site.defaults.rate_hz if options.rate_hz is None else options.rate_hz),
        episodes=options.episodes,
        max_seconds=options.max_seconds,
        auto_start_s=options.auto_start_s,
        seed=options.seed,
    )


def _operator(site: SiteConfig, options: LiveOptions, action_features: Mapping[str, Any]) -> Any:
    kind = device_of(site, options.device)
    if kind == NOBODY:
        if options.policy is None:
            raise InputError("--operator none: without a policy nobody would drive")
        return IdleOperator()
    if kind is None:
        raise InputError(
            "no input device: name one with --operator (gamepad, spacemouse, keyboard, phone) or in "
            "recap.toml under [operator]"
        )
    own = site.operator.type.removeprefix("gen3_") == kind.removeprefix("gen3_")
    if not own:
        return make_operator(kind, {}, action_features)
    with site.named_in_errors():
        return make_operator(kind, site.operator.options, action_features)


def _policy(
    workspace: Workspace, options: LiveOptions, stack: contextlib.ExitStack
) -> tuple[Any, str | None]:
    """The policy and the name that episodes keep of it."""
    if options.policy is None:
        return None, None
    if "://" in options.policy:
        remote = stack.enter_context(RemotePolicy(options.policy, read_token(options.token_file)))
        return remote, remote.checkpoint_name
    from pipeline.policy.runner import PolicyRunner

    folder, name, indicator = Path(options.policy), options.policy, options.indicator
    if options.policy == "champion":
        champion = Ledger(workspace).champion()
        if champion is None:
            raise InputError(
                "there is no champion to roll out: train one with 'recap improve', or name --policy DIR"
            )
        folder, name = champion.path / CHECKPOINT, f"{champion.name}/{champion.key}"
        # A base policy was never trained on prompts with an advantage.
        indicator = indicator if champion.iteration > 0 else None
    runner: Planner = PolicyRunner(folder, indicator=indicator)
    return runner, name


@contextlib.contextmanager
def _a_core_for_the_loop() -> Iterator[None]:
    """Meanwhile plans are made by one thread less than there are cores.

    The threads of a plan wait for each other, and must not wait for the loop and the cameras: on two busy
    cores a plan in two threads can take many times as long as in one.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, cores - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _make_writable(workspace: Workspace) -> None:
    workspace.create()
    if not os.access(workspace.episodes, os.W_OK):
        raise InputError(f"cannot write to {workspace.episodes}: change its permissions, or use --workspace")


def _emergency_stop(robot: Any) -> Callable[[], None] | None:
    return robot.emergency_stop if isinstance(robot, StoppableArm) else None


def _scenes(robot: Any, options: LiveOptions, course: LiveCourse | None) -> Callable[[int], None] | None:
    """Puts the simulated arm's cubes into place before each episode; on a real table people do it."""
    if robot.name != SIMULATED_ROBOT:
        return None
    if course is not None:
        return lambda number: robot.prepare(*course.scene(number))
    first = COMMAND_SCENES["record" if options.policy is None else "rollout"] + 1_000 * options.seed

    def prepare(number: int) -> None:
        robot.prepare(options.task, first + number)

    return prepare


def _live_view(operator: Any, course: LiveCourse | None) -> LiveView:
    keys = KEY_HELP if course is None else KEY_HELP.replace("d discard", "d again")
    keys = f"{keys}\n{MOVE_HELP}" if isinstance(operator, Gen3Keyboard) else keys
    stream = sys.stdout if course is None or course.stream is None else course.stream
    return LiveView(Console(file=stream, highlight=False), key_help=keys)


class _Views:
    """The terminal view and, where asked for, Rerun, as one telemetry and one context."""

    def __init__(self, live_view: LiveView, rerun: bool) -> None:
        self._views: list[Any] = [live_view, *([RerunView()] if rerun else [])]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Telemetry:
        for view in self._views:
            self._stack.enter_context(view)
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.__exit__(*problem)

    def update(self, snapshot: Any) -> None:
        for view in self._views:
            view.update(snapshot)

    def images(self, observation: Mapping[str, Any]) -> None:
        for view in self._views:
            view.images(observation)


def _report(workspace: Workspace, summary: SessionSummary) -> None:
    for line in summary.problems:
        print(f"note: {line}")
    marks = [episode.summary.mark for episode in summary.episodes]
    dropped = sum(episode.dropped_frames for episode in summary.episodes)
    print(
        f"{counted(len(marks), 'episode')} in {workspace.episodes}: "
        f"{marks.count(Outcome.SUCCESS)} marked success, {marks.count(Outcome.FAILURE)} failure; "
        f"{summary.discarded} discarded, {counted(dropped, 'frame')} dropped"
    )
    if marks:
        print(f"next: recap label --workspace {workspace.root}")

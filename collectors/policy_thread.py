"""Lets a policy think in a thread of its own, so that a slow one never delays the control loop.

The loop gives :meth:`RunAhead.act` each observation and gets the action for that step at once; meanwhile the
thread asks the planner for the next chunk, from the newest observation. A chunk that was planned from the
observation of step ``k`` says what to do at steps ``k``, ``k + 1``, ...: when it arrives at step ``m``, the
actions before ``m`` are past and are skipped. The next chunk is asked for so early that, at the latency
measured lately, it arrives when ``execute_steps`` actions of the present one are done. Where that is nearly
the whole chunk it is asked for earlier, by a quarter of a second or of the chunk: a machine may be that late.

Where no action is left the loop holds the arm still. Such steps do not count: an arm that stood still is
where the plan believes it to be, so a chunk that comes too late is begun where it was left off, and a policy
slower than its own chunks moves the arm by fits and starts rather than never.

Two chunks are joined by sliding linearly, over ``blend_steps`` steps, from what the old one says for a step
to what the new one says for it (the twist; the gripper switches at once, since half-closed is neither).
With 0 it is a plain switch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from collectors.policy_timing import PlanReport, PlanTimes
from pipeline.episode import ACTION_NAMES
from pipeline.errors import Failure, InputError

_LOG = logging.getLogger(__name__)
_LATENCIES = 20  # of so many latest calls the slowest is expected of the next
_RESERVE_S = 0.25  # of a chunk, left when the next one comes, for a call that is slower still than expected
_STOP_TIMEOUT_S = 5.0  # for a call that is going on; the thread ends with the process at the latest


class PolicyFailed(Failure):
    """A policy has no actions to give: it failed, or its server is gone. ``reset`` may bring it back."""


class Planner(Protocol):
    """A policy that gives whole chunks of actions; all calls come from one thread.

    One whose attribute ``observed_steps`` is above 1 looks at so many successive observations: its ``plan``
    gets, after the newest, the list of those of the steps before it, oldest first.
    """

    def reset(self, task: str, seed: int | None = None) -> None:
        """Starts an episode of ``task`` (bare text)."""
        ...

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Float32 ``(n, 7)``: the actions for this control step and those that follow, ``n`` ≥ 1."""
        ...


@dataclass(frozen=True)
class _Chunk:
    """Actions (n, 7) for the steps from ``first_step`` on; wanted again from ``renew_step`` on.

    ``asked_s`` is when the observation that they were planned from was handed in (monotonic), ``subtask``
    what the planner said they are for.
    """

    first_step: int
    actions: np.ndarray
    renew_step: int
    asked_s: float
    subtask: str | None

    def left(self, step: int) -> int:
        """How many actions there are for ``step`` and those after it."""
        return max(0, self.first_step + len(self.actions) - step)

    def at(self, step: int) -> np.ndarray | None:
        """The action for ``step``, if it has one."""
        index = step - self.first_step
        return self.actions[index] if 0 <= index < len(self.actions) else None


class RunAhead:
    """A :class:`Planner` as a policy for the collection loop; a context manager that owns the thread.

    Nothing here waits for the planner. What it raises comes out of the next :meth:`act`.
    """

    def __init__(
        self, planner: Planner, rate_hz: float, *, execute_steps: int | None = None, blend_steps: int = 0
    ) -> None:
        """``rate_hz`` is the loop's. Starts nothing yet.

        ``execute_steps`` of each chunk are executed before the next one replaces it: by default as many
        as the planner says of itself (an attribute of that name), else half of the chunk.
        """
        if execute_steps is not None and execute_steps < 1:
            raise InputError(f"execute_steps is {execute_steps}; it must be at least 1")
        if blend_steps < 0:
            raise InputError(f"blend_steps is {blend_steps}; it must not be negative")
        self.planner = planner
        self.calls = 0
        self.last_latency_s = 0.0
        self.subtask: str | None = None
        """What the action given last is for, of a planner that says so (an attribute of that name)."""
        self._rate_hz = rate_hz
        self._execute_steps = execute_steps or getattr(planner, "execute_steps", None)
        self._blend_steps = blend_steps
        self._remembers = getattr(planner, "observed_steps", 1) > 1
        # Of the steps of this episode, this one included; what the arm did before a dropped plan counts too.
        self._seen: deque[dict[str, Any]] = deque(maxlen=max(1, getattr(planner, "observed_steps", 1)))
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES)
        self._changed = threading.Condition()
        self._step = 0  # the next step that has an action
        self._times: PlanTimes | None = None  # of this episode, from its first step on
        self._plans = 0  # counts resets and dropped plans: what was planned for an earlier one is void
        # Step, its time, observation and those before it; not asked about yet.
        self._newest: tuple[int, float, dict[str, Any], list[dict[str, Any]]] | None = None
        self._new_task: tuple[str, int | None] | None = None
        self._asked = self._stopping = False
        self._chunk: _Chunk | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)

    def reset(self, task: str, seed: int | None = None) -> None:
        """Starts an episode of ``task``; the planner is told before it plans again."""
        with self._changed:
            self._new_task = (task, seed)
            self._error = None
            self._times = self.subtask = None
            self._seen.clear()
            self.drop_plan()

    def drop_plan(self) -> None:
        """Forgets every action that was planned; the next plan starts from the next observation."""
        with self._changed:
            self._plans += 1
            self._chunk = self._newest = None
            self._asked = False

    def act(self, observation: dict[str, Any]) -> np.ndarray | None:
        """The action for this step, float32 (7,); ``None`` while there is none. Call it once a step.

        Raises what the planner raised meanwhile: an ``InputError`` as it is, anything else as a
        ``PolicyFailed`` of one line.
        """
        with self._changed:
            self._raise_error()
            self._seen.append(observation)
            now = time.monotonic()
            self._times = self._times or PlanTimes()
            action = None if self._chunk is None else self._chunk.at(self._step)
            if self._is_due():
                self._newest = (self._step, now, observation, list(self._seen)[:-1])
                self._asked = True
                self._changed.notify_all()
            if action is None:
                return None
            assert self._chunk is not None  # it has the action
            self._times.executed(now - self._chunk.asked_s)
            self.subtask = self._chunk.subtask
            self._step += 1
            return action

    def report(self) -> PlanReport:
        """How the plans of this episode kept up with its steps."""
        with self._changed:
            return PlanReport() if self._times is None else self._times.report()

    def is_ready(self, observation: dict[str, Any]) -> bool:
        """Whether a plan is there for a first step; asks for one from ``observation`` where not.

        For the time before an episode, in which no steps are counted and the arm does not move. Raises
        as :meth:`act` does.
        """
        with self._changed:
            self._raise_error()
            if self._chunk is None and not self._asked:
                self._newest = (self._step, time.monotonic(), observation, [])
                self._asked = True
                self._changed.notify_all()
            return self._chunk is not None

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the thread; a call that goes on is waited for a few seconds only."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            _LOG.warning("the policy did not answer within %g s; left behind", _STOP_TIMEOUT_S)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if isinstance(error, InputError):
            raise error
        if isinstance(error, Failure):
            raise PolicyFailed(str(error)) from error
        if error is not None:
            raise PolicyFailed(f"the policy failed: {type(error).__name__}: {error}") from error

    def _is_due(self) -> bool:
        """Whether a plan asked for now would come none too early."""
        if self._chunk is None:
            return True
        expected = int(np.ceil(max(self._latencies_s, default=0.0) * self._rate_hz))
        return self._step + expected >= self._chunk.renew_step

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or (self._asked and self._newest is not None))
                if self._stopping:
                    return
                assert self._newest is not None  # by the condition that was waited for
                (step, asked_s, observation, before), self._newest = self._newest, None
                plans, task, self._new_task = self._plans, self._new_task, None
            began_s = time.monotonic()
            try:
                if task is not None:
                    self.planner.reset(*task)
                planner: Any = self.planner  # of a policy that looks at one observation plan takes but that
                more = (before,) if self._remembers else ()
                actions = _checked(planner.plan(observation, *more))
            except Exception as error:
                self._fail(error, plans, task is not None)
            else:
                self.last_latency_s = time.monotonic() - began_s
                self._install(step, asked_s, actions, plans)

    def _fail(self, error: Exception, plans: int, was_reset: bool) -> None:
        with self._changed:
            # An error about a plan that nobody wants any more is nobody's; one about the task is.
            if plans == self._plans or (was_reset and self._new_task is None):
                self._error = error
                self._asked = False

    def _install(self, step: int, asked_s: float, actions: np.ndarray, plans: int) -> None:
        with self._changed:
            latency_s = time.monotonic() - asked_s  # with the time until this thread had its turn
            if self._times is not None:
                self._times.came(latency_s)
            self.calls += 1
            self._latencies_s.append(latency_s)
            if plans != self._plans:
                return
            execute = self._execute_steps or (len(actions) + 1) // 2
            spare = max(len(actions) - execute - 1, len(actions) // 4)
            reserve = min(int(np.ceil(_RESERVE_S * self._rate_hz)), spare)
            renew_step = min(self._step + execute, step + len(actions) - reserve)
            chunk = _Chunk(step, actions, renew_step, asked_s, getattr(self.planner, "subtask", None))
            if chunk.at(self._step) is not None:
                if self._chunk is not None and self._times is not None:
                    self._times.followed(self._chunk.left(self._step))
                self._join(chunk)
            self._asked = self._newest is not None and self._is_due()
            if not self._asked:
                self._newest = None

    def _join(self, chunk: _Chunk) -> None:
        """Puts ``chunk`` in place of the present one, which its first actions slide away from."""
        for i in range(self._blend_steps):
            before = None if self._chunk is None else self._chunk.at(self._step + i)
            action = chunk.at(self._step + i)
            if before is None or action is None:
                break
            share = (i + 1) / (self._blend_steps + 1)
            action[:-1] = before[:-1] + (action - before)[:-1] * share
        self._chunk = chunk


def _checked(actions: np.ndarray) -> np.ndarray:
    """A copy, float32 (n, 7). Raises ``Failure`` for another shape and for what is not finite."""
    chunk = np.array(actions, dtype=np.float32)
    if chunk.ndim != 2 or chunk.shape[1] != len(ACTION_NAMES) or not len(chunk):
        raise Failure(f"the policy gave a chunk of shape {chunk.shape}, expected (n, {len(ACTION_NAMES)})")
    if not np.isfinite(chunk).all():
        raise Failure("the policy gave an action that is not finite")
    return chunk

"""Records one episode: the loop runs, the frames go to a crash-safe file in the workspace.

Input: a connected and prepared robot, a person, perhaps a policy. Output: a finished episode file
under its final name, with what happened in its ``extra``. A killed recording leaves a ``.h5.part`` that
the workspace recovers; an exception closes the file as truncated; neither is ever taken for a finished
episode. In real time the disk never delays the loop: frames that do not fit in the writer's queue are
dropped and counted, and a :class:`Closer` finishes files while the next episode is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from collectors.collection_loop import LoopConfig, run_episode
from collectors.episode_log import End, EpisodeLog, EpisodeSummary
from collectors.loop_interface import OperatorLike, PolicyLike, Recorder, RobotLike
from collectors.operator_keys import KeySource
from pipeline.episode import EpisodeInfo, Frame
from pipeline.episode_file import EpisodeWriter
from pipeline.errors import Failure
from pipeline.workspace import Workspace

# A kill loses what was not flushed: half a second of it, and the time that the flush itself takes.
REAL_TIME_FLUSH_S = 0.5


class Closer:
    """Finishes episode files in a thread of its own; a context manager that waits for all of them."""

    def __init__(self) -> None:
        """Starts nothing yet: the thread comes with the first file."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="closing")
        self._closing: list[Future[Path | None]] = []

    def submit(self, close: Callable[[], Path | None]) -> None:
        """Has ``close`` called; what it raises comes out of :meth:`check` or on leaving."""
        self._closing.append(self._pool.submit(close))

    def check(self, wait: bool = False) -> None:
        """Raises what a finished call raised; with ``wait`` all of them are finished first."""
        going_on = []
        for future in self._closing:
            if wait or future.done():
                future.result()
            else:
                going_on.append(future)
        self._closing = going_on

    def __enter__(self) -> Self:
        """Returns the closer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for every file. An error of theirs is raised, or added to the exception that is leaving."""
        self._pool.shutdown(wait=True)
        try:
            self.check(wait=True)
        except Failure as second:
            if error is None:
                raise
            error.add_note(f"and an episode could not be closed: {second}")


class _WithoutWaiting:
    """Gives frames to a writer that may drop them, as a control loop needs."""

    def __init__(self, writer: EpisodeWriter) -> None:
        self._writer = writer

    def append(self, frame: Frame) -> None:
        self._writer.append(frame, block=False)


def record_episode(
    workspace: Workspace,
    info: EpisodeInfo,
    robot: RobotLike,
    operator: OperatorLike,
    loop: LoopConfig,
    *,
    policy: PolicyLike | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    before_close: Callable[[EpisodeSummary], None] | None = None,
    replace_unfinished: bool = False,
    keep_discarded: bool = False,
    keys: KeySource | None = None,
    log: EpisodeLog | None = None,
    on_step: Callable[[Mapping[str, Any], EpisodeWriter], None] | None = None,
    closer: Closer | None = None,
) -> EpisodeSummary:
    """Records ``info.id`` and returns what happened; ``before_close`` sees the end before it is published.

    ``replace_unfinished`` starts over where a killed recording left a part of this very episode. An
    episode that the operator discards leaves nothing, unless ``keep_discarded``. ``log`` is kept up to
    date meanwhile; ``on_step`` sees each step's observation and the writer. With a ``closer`` the file is
    finished in the background after this returns, except after an exception.
    """
    path = workspace.episode_path(info.task, info.id)
    log = EpisodeLog() if log is None else log
    flush_s = REAL_TIME_FLUSH_S if loop.real_time else 1.0
    writer = EpisodeWriter(path, info, flush_s, replace_unfinished=replace_unfinished)
    recorder: Recorder = _WithoutWaiting(writer) if loop.real_time else writer
    try:
        summary = run_episode(
            robot,
            operator,
            loop,
            policy=policy,
            recorder=recorder,
            clock_ns=clock_ns,
            keys=keys,
            log=log,
            on_step=None if on_step is None else lambda observation: on_step(observation, writer),
        )
        if before_close is not None:
            before_close(summary)
    except BaseException as error:
        _keep_what_there_is(writer, log, error)
        raise

    def close() -> Path | None:
        if summary.end is End.DISCARDED and not keep_discarded:
            writer.discard()
            return None
        mark = None if summary.mark is None else summary.mark.value
        return writer.close(mark, summary.truncated, log.extra())

    if closer is None:
        close()
    else:
        closer.submit(close)
    return summary


def _keep_what_there_is(writer: EpisodeWriter, log: EpisodeLog, error: BaseException) -> None:
    """Closes the episode as cut short, marked with what happened; ``error`` is about to leave."""
    if log.end is None or not log.extra().get("ended"):  # it came after the loop's own end
        log.end, log.why = End.ERROR, str(error) or type(error).__name__
    mark = None if log.mark is None else log.mark.value
    try:
        writer.close(mark, truncated=True, extra=log.extra())
    except Failure as second:
        if str(second) != str(error):
            error.add_note(f"and the episode could not be closed: {second}")

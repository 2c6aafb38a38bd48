"""Records one episode: the loop runs, the frames go to a crash-safe file in the workspace.

Input: a connected and prepared robot, a person, perhaps a policy. Output: a finished episode file
under its final name. A killed recording leaves a ``.h5.part`` that the workspace recovers; an
exception closes the file as truncated; neither is ever taken for a finished episode.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from collectors.collection_loop import (
    EpisodeSummary,
    LoopConfig,
    OperatorLike,
    PolicyLike,
    RobotLike,
    run_episode,
)
from pipeline.episode import EpisodeInfo
from pipeline.episode_file import EpisodeWriter
from pipeline.workspace import Workspace


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
) -> EpisodeSummary:
    """Records ``info.id`` and returns what happened; ``before_close`` sees the end before it is published.

    ``replace_unfinished`` starts over where a killed recording left a part of this very episode.
    """
    path = workspace.episode_path(info.task, info.id)
    with EpisodeWriter(path, info, replace_unfinished=replace_unfinished) as writer:
        summary = run_episode(robot, operator, loop, policy=policy, recorder=writer, clock_ns=clock_ns)
        if before_close is not None:
            before_close(summary)
        writer.close(operator_mark=None if summary.mark is None else summary.mark.value)
    return summary

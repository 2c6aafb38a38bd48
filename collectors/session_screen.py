"""What a session tells its views: the state of arm, operator, disk and episode as one :class:`Snapshot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collectors.arm_interface import condition_of, lost_cameras
from collectors.episode_log import End, EpisodeLog, EpisodeSummary
from collectors.idle_operator import IdleOperator
from collectors.session_course import Course
from collectors.session_settings import KeptEpisode, SessionSettings
from collectors.telemetry import Phase, Snapshot
from pipeline.counted_words import counted

_ENDED_BY = {
    End.EMERGENCY_STOP: "the emergency stop",
    End.ARM_STOPPED: "the arm, which stopped",
    End.POLICY_FAILED: "the policy, which failed",
}


def snapshot_of(
    phase: Phase,
    robot: Any,
    operator: Any,
    settings: SessionSettings,
    log: EpisodeLog,
    *,
    episode: int,
    episode_id: str | None,
    kept: Sequence[KeptEpisode],
    dropped: int,
    stopped: str | None,
    disk_free_bytes: int,
    message: str,
    course: Course | None,
) -> Snapshot:
    """The present state; ``log`` is of the current or latest episode, ``stopped`` why the session waits.

    With a ``course`` it leaves out what tells policies apart: the sub-task, and how often one was late.
    """
    condition = condition_of(robot)
    blind = course is not None
    running = phase in (Phase.RUNNING, Phase.PAUSED)
    return Snapshot(
        phase=phase,
        task=settings.task,
        episode=episode,
        episode_id=episode_id,
        done=len(kept),
        wanted=settings.episodes,
        seconds=log.steps / settings.rate_hz,
        frames=log.steps,
        rate_hz=log.rate_hz,
        wanted_rate_hz=settings.rate_hz,
        overruns=log.overruns,
        dropped=dropped,
        starved=0 if blind else log.starved_steps - log.replanning_steps,
        driver=log.driver if running else None,
        subtask=log.subtask if running and not blind else None,
        limits=condition.limits,
        stopped=condition.stopped if stopped is None else stopped,
        lost_cameras=lost_cameras(robot),
        lost_device=getattr(operator, "lost", None),
        disk_free_bytes=disk_free_bytes,
        last_mark=kept[-1].summary.mark if kept else None,
        message=message,
        can_correct=course is not None and course.last() is not None and not running,
        can_take_over=not isinstance(operator, IdleOperator),
    )


def starving_words(episode_id: str, summary: EpisodeSummary) -> list[str]:
    """What to tell of a policy that was too slow for its episode: a line, or none."""
    if not summary.empty_queue_steps:
        return []
    plans = summary.plans
    took = ""
    if plans is not None:
        took = f" (plans took {plans.p50_latency_ms:.0f} ms, the slowest {plans.max_latency_ms:.0f} ms)"
    return [
        f"{episode_id}: the policy had no action for {summary.empty_queue_steps} of "
        f"{counted(summary.steps, 'step')}, and the arm held still{took}: use a lower --rate, a faster "
        "machine ('recap policy serve'), or a policy with longer chunks"
    ]


def lost_words(episode_id: str, log: EpisodeLog, dropped: int) -> list[str]:
    """What a kept episode lost, a line each; ``dropped`` counts frames."""
    lines = [
        f"{episode_id}: camera {camera!r} was lost: {known['why']}"
        for camera, known in log.cameras_lost.items()
    ]
    if dropped:
        lines.append(f"{episode_id}: {counted(dropped, 'frame')} dropped, the disk was too slow")
    return lines


def end_words(number: int, episode_id: str, summary: EpisodeSummary) -> str:
    """The end of episode ``number`` in one line for the operator."""
    if summary.end is End.DISCARDED:
        return "discarded; once more"
    if not summary.steps:
        return f"episode {number} ended before its first frame ({summary.end.value}): nothing was kept"
    if summary.end in _ENDED_BY:
        return (
            f"episode {number} ended by {_ENDED_BY[summary.end]}, and kept, marked as cut short; "
            "success or failure can be said in labelling"
        )
    mark = "no mark" if summary.mark is None else summary.mark.value
    return f"kept {episode_id}: {summary.seconds:.1f} s, {mark}, {summary.end.value}"

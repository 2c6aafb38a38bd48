"""Writes an imported episode's file: its times, its frames, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import numpy as np

from pipeline.durable_files import publish
from pipeline.episode import EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeWriter
from pipeline.errors import InputError
from pipeline.exchange.foreign_episode import ForeignEpisode
from pipeline.exchange.mapped_fields import MappedFields
from pipeline.file_lock import locked
from pipeline.workspace import Workspace

_QUEUE_FRAMES = 8  # images of a large camera would fill the memory
_TIME_TOLERANCE_S = 1e-3
_LOCK_TIMEOUT_S = 60.0


@contextmanager
def importing_alone(workspace: Workspace, episode_id: str) -> Iterator[None]:
    """Holds the right to write one id; waits while another process does, such as a killed import's child.

    Raises ``InputError`` if that takes more than a minute.
    """
    lock = importing_folder(workspace) / f"{episode_id}.lock"
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    with ExitStack() as held:
        while True:
            # Not there: the folder has just been tidied away.
            with suppress(BlockingIOError, FileNotFoundError):
                held.enter_context(locked(lock, wait=False))
                break
            if time.monotonic() > deadline:
                raise InputError(
                    f"another process has been importing episode {episode_id} for a minute: wait for it"
                )
            time.sleep(0.1)
        yield


def importing_folder(workspace: Workspace) -> Path:
    """Where episodes lie until they are whole: what a killed import leaves nobody takes for a recording."""
    return workspace.root / "importing"


def write_imported(
    episode: ForeignEpisode,
    info: EpisodeInfo,
    fields: MappedFields,
    cameras: Mapping[str, str],
    workspace: Workspace,
) -> None:
    """Writes the episode aside and publishes it; ``cameras`` gives the recording's name for ours.

    Raises ``InputError`` for an image or a time that is damaged; then nothing is left of it.
    """
    final = workspace.episode_path(info.task, info.id)
    aside = importing_folder(workspace) / final.name
    aside.unlink(missing_ok=True)
    foreign = {name: values for name, values in episode.columns.items() if name not in episode.own_columns}
    writer = EpisodeWriter(aside, info, queue_size=_QUEUE_FRAMES, replace_unfinished=True, foreign=foreign)
    try:
        for frame in _frames(episode, info, fields, cameras):
            writer.append(frame)
        writer.close()
    except BaseException:
        writer.discard()
        raise
    final.parent.mkdir(parents=True, exist_ok=True)
    publish(aside, final)


def _frames(
    episode: ForeignEpisode, info: EpisodeInfo, fields: MappedFields, cameras: Mapping[str, str]
) -> Iterator[Frame]:
    times = _times_ns(episode, info)
    if times.min() < 0:
        raise InputError("a time lies before 1970: the recording's clock was wrong")
    taken = {
        ours: np.asarray(episode.camera_times_ns.get(theirs, times), dtype=np.int64)
        for ours, theirs in cameras.items()
    }
    wanted = episode.restored.get("policy_action")
    streams = {ours: episode.cameras[theirs]() for ours, theirs in cameras.items()}
    for i in range(episode.length):
        shown = {}
        for camera, stream in streams.items():
            image = next(stream, None)
            if image is None:
                raise InputError(f"camera {camera!r} has only {i} of {episode.length} images")
            shown[camera] = image
        yield Frame(
            state={name: values[i] for name, values in fields.state.items()},
            images=shown,
            action=fields.action[i],
            source=Source(int(episode.sources[i])) if episode.sources is not None else Source.TELEOP,
            timestamp_ns=int(times[i]),
            camera_timestamp_ns={camera: int(values[i]) for camera, values in taken.items()},
            policy_action=None if wanted is None else wanted[i],
        )


def _times_ns(episode: ForeignEpisode, info: EpisodeInfo) -> np.ndarray:
    """When each step began: as recorded, else from the start and the recorded or the nominal steps."""
    if episode.times_ns is not None:
        return np.asarray(episode.times_ns, dtype=np.int64)
    began = datetime.fromisoformat(info.created)
    start = round(began.timestamp() * 1000) * 1_000_000
    nominal = np.arange(episode.length) / info.rate_hz
    steps = episode.step_times_s
    if steps is not None and steps.shape == nominal.shape and np.isfinite(steps).all():
        since = steps.astype(np.float64) - float(steps[0])
        # Times kept as float32 are the nominal ones but for rounding: those are better exact.
        if (np.diff(since) > 0).all() and np.abs(since - nominal).max() > _TIME_TOLERANCE_S:
            nominal = since
    return start + np.round(nominal * 1e9).astype(np.int64)

"""Reads the videos of other projects' recordings as a stream of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError, one_line

_ERRORS = (OSError, ValueError, IndexError, RuntimeError, TypeError, AttributeError, MemoryError)


def video_length(path: Path) -> int:
    """How many frames the video says it has. Raises ``InputError`` for a file that is no video."""
    import av

    try:
        with av.open(str(path)) as container:
            frames = int(_stream(container, path).frames)
    except InputError:
        raise
    except _ERRORS as error:
        raise InputError(f"{path} cannot be read as a video: {one_line(error, None)}") from error
    return frames


def video_images(
    path: Path, length: int, *, start_s: float = 0.0, rate_hz: float | None = None
) -> Iterator[np.ndarray]:
    """``length`` images of a video, H×W×3 uint8 RGB, from the one shown at ``start_s``.

    With ``rate_hz`` each image must be shown at its time, to half a period; else they are taken in order,
    whatever the video's own rate. Raises ``InputError`` if one is missing or damaged.
    """
    import av

    av.logging.set_level(None)  # what FFmpeg says of a damaged file is one line of ours
    try:
        with av.open(str(path)) as container:
            stream = _stream(container, path)
            stream.codec_context.thread_count = 1  # the importers share the cores
            yield from _images(container, stream, path, length, start_s, rate_hz)
    except InputError:
        raise
    except _ERRORS as error:
        raise InputError(f"{path} is damaged: {one_line(error, None)}") from error


def _images(
    container: Any, stream: Any, path: Path, length: int, start_s: float, rate_hz: float | None
) -> Iterator[np.ndarray]:
    half = 0.5 / rate_hz if rate_hz else 0.0
    if start_s > 0:
        container.seek(int(start_s / stream.time_base), stream=stream)
    count = 0
    for frame in container.decode(stream):
        if rate_hz:
            due = start_s + count / rate_hz
            if frame.time is None:
                raise InputError(f"{path} does not say when its frames are shown")
            if frame.time < due - half:
                continue  # before the episode's first, or between two of its frames
            if frame.time > due + half:
                break
        if frame.is_corrupt:
            raise InputError(f"{path} is damaged in frame {count}")
        yield frame.to_ndarray(format="rgb24")
        count += 1
        if count == length:
            return
    raise InputError(f"{path} lacks frame {count} of {length}: the video is cut short or damaged")


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise InputError(f"{path} holds no video")
    return container.streams.video[0]

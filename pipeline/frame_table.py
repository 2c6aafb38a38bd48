"""Many cached episodes as one table of frames: what training code indexes.

A frame's *index* is its row in the table, 0 to N−1, episode after episode in the order given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.frame_cache import CachedEpisode, FrameCache, read_scores
from pipeline.mapped_arrays import map_file, write_rows

# The rate of a table that is made by hand and says nothing of it; the simulator's default.
DEFAULT_RATE_HZ = 10.0


def _no_rates() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True)
class FrameTable:
    """N frames of E episodes; every array is read-only by agreement.

    ``tasks``, ``starts`` (E,) int64, ``lengths`` (E,) int64 and ``rates`` (E,) float64 in Hz are per
    episode; ``episode_index`` (N,) int32, ``frame_index`` (N,) int32, ``source`` (N,) uint8, ``state``
    (N, 15) float32 and ``action`` (N, 7) float32 are per frame. Episodes may differ in their rates: a
    frame of one then lasts longer than a frame of another. Without ``rates`` all have
    ``DEFAULT_RATE_HZ``; ``InputError`` is raised when they are not E positive numbers.

    ``contents`` (E,) are the episodes' content keys (:mod:`pipeline.cache_layout`): two ids with one key
    are copies of one recording. Without them, every id stands for frames of its own.

    A pickled table takes its images along only where they are in no file: a process that unpickles one
    maps the same files again.
    """

    episode_ids: list[str]
    tasks: list[str]
    cameras: tuple[str, ...]
    starts: np.ndarray
    lengths: np.ndarray
    episode_index: np.ndarray
    frame_index: np.ndarray
    source: np.ndarray
    state: np.ndarray
    action: np.ndarray
    _episode_images: list[np.ndarray] = field(repr=False)
    _preloaded: np.ndarray | None = field(default=None, repr=False)
    _image_files: list[Path] = field(default_factory=list, repr=False)
    rates: np.ndarray = field(default_factory=_no_rates)
    contents: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rates = np.asarray(self.rates, dtype=np.float64)
        if rates.shape == (0,):
            rates = np.full(len(self.episode_ids), DEFAULT_RATE_HZ)
        if rates.shape != (len(self.episode_ids),) or not (np.isfinite(rates) & (rates > 0)).all():
            raise InputError(f"rates {rates} of {len(self.episode_ids)} episodes: give each a number above 0")
        object.__setattr__(self, "rates", rates)
        contents = list(self.contents) or list(self.episode_ids)
        if len(contents) != len(self.episode_ids):
            raise InputError(f"{len(contents)} content keys for {len(self.episode_ids)} episodes")
        object.__setattr__(self, "contents", contents)

    @classmethod
    def load(cls, cache: FrameCache, episode_ids: Sequence[str], *, preload: bool = False) -> FrameTable:
        """Concatenates cached episodes; images stay memory-mapped unless ``preload`` copies them to RAM.

        A preloaded table takes N × cameras × S × S × 3 bytes (42 kB a frame for two cameras of 84×84)
        for each process; a mapped one shares the operating system's cache with all other processes.
        Raises ``InputError`` for no episodes, for one named twice, for one that is not cached, for one
        that lacks what a policy reads or imitates, and for episodes that differ in their cameras.
        """
        if not episode_ids:
            raise InputError("a table of frames needs one episode or more")
        if len(set(episode_ids)) != len(episode_ids):
            raise InputError("an episode is named twice in a table of frames")
        episodes = [cache.open(episode_id) for episode_id in episode_ids]
        for episode in episodes:
            _check_trainable(episode)
        _check_cameras(episodes)
        lengths = np.array([e.length for e in episodes], dtype=np.int64)
        images = [e.images for e in episodes]
        return cls(
            episode_ids=list(episode_ids),
            tasks=[e.task for e in episodes],
            cameras=episodes[0].info.cameras,
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            episode_index=np.repeat(np.arange(len(episodes), dtype=np.int32), lengths),
            frame_index=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
            source=np.concatenate([e.source for e in episodes]),
            state=np.concatenate([e.state for e in episodes]),
            action=np.concatenate([e.action for e in episodes]),
            _episode_images=images,
            _preloaded=np.concatenate(images) if preload else None,
            _image_files=[e.image_file for e in episodes],
            rates=np.array([e.info.rate_hz for e in episodes], dtype=np.float64),
            contents=[e.content for e in episodes],
        )

    def __getstate__(self) -> dict[str, Any]:
        """The fields; instead of images that are in files, their shapes."""
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        if self._image_files:
            state["_episode_images"] = [images.shape for images in self._episode_images]
            state["_preloaded"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps the images again. Raises ``InputError`` where they have been evicted meanwhile."""
        files = state["_image_files"]
        if files:
            shapes = state["_episode_images"]
            try:
                state["_episode_images"] = [
                    map_file(file, shape, "uint8") for file, shape in zip(files, shapes, strict=True)
                ]
            except OSError as error:
                raise InputError(
                    f"a cached episode is gone ({error}): build the frame cache again"
                ) from error
        self.__dict__.update(state)

    def in_files(self, folder: Path) -> FrameTable:
        """This table with its images in files, for other processes to map: itself where they are already.

        Otherwise one that maps the files which this writes into ``folder``, as large as the images are.
        """
        if self._image_files:
            return self
        folder.mkdir(parents=True)
        files = [folder / str(number) for number in range(len(self._episode_images))]
        for file, images in zip(files, self._episode_images, strict=True):
            write_rows(file, [images])
        mapped = [
            map_file(file, images.shape, "uint8")
            for file, images in zip(files, self._episode_images, strict=True)
        ]
        return replace(self, _episode_images=mapped, _preloaded=None, _image_files=files)

    def __len__(self) -> int:
        """N, the number of frames."""
        return len(self.frame_index)

    def frames_of(self, episode: int) -> slice:
        """The rows of the episode at that position of ``episode_ids``."""
        start = int(self.starts[episode])
        return slice(start, start + int(self.lengths[episode]))

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """The shape of one frame's images: cameras, S, S, 3."""
        cameras, height, width, channels = self._episode_images[0].shape[1:]
        return cameras, height, width, channels

    def images(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The images of B frames: ``(B, cameras, S, S, 3)`` uint8, in the order asked for.

        In a new array, or in ``out`` of that shape, which is then returned.
        """
        if self._preloaded is not None and out is None:
            return self._preloaded[indices]
        indices = np.asarray(indices)
        if out is None:
            out = np.empty((len(indices), *self.image_shape), dtype=np.uint8)
        if self._preloaded is not None:
            for row, index in enumerate(indices.tolist()):
                out[row] = self._preloaded[index]
            return out
        rows = zip(self.episode_index[indices].tolist(), self.frame_index[indices].tolist(), strict=True)
        for row, (episode, frame) in enumerate(rows):
            out[row] = self._episode_images[episode][frame]
        return out

    def action_chunks(self, indices: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """The actions of B frames and of those that follow, within each one's episode.

        Returns ``actions`` (B, horizon, 7) float32 and ``is_pad`` (B, horizon) bool. Past the end of
        the episode the last action repeats and ``is_pad`` is True.
        """
        indices = np.asarray(indices, dtype=np.int64)
        episode = self.episode_index[indices]
        last = (self.starts[episode] + self.lengths[episode] - 1)[:, None]
        wanted = indices[:, None] + np.arange(horizon)
        return self.action[np.minimum(wanted, last)], wanted > last

    def scores(self, cache: FrameCache, scoring_run: str, name: str) -> np.ndarray:
        """One score of every frame, ``(N,)`` float32.

        Raises ``InputError`` when an episode lacks it or has another number of frames: an unscored
        frame is never taken for a zero.
        """
        parts = []
        for episode_id, length in zip(self.episode_ids, self.lengths.tolist(), strict=True):
            scores = read_scores(cache, scoring_run, episode_id)
            if name not in scores or len(scores[name]) != length:
                raise InputError(
                    f"run {scoring_run} has no {name!r} for each of the {length} frames of episode "
                    f"{episode_id}: score it again"
                )
            parts.append(scores[name])
        return np.concatenate(parts)


def _check_trainable(episode: CachedEpisode) -> None:
    missing = episode.info.missing_for_training
    if missing:
        raise InputError(
            f"episode {episode.info.id} was recorded without {' and '.join(missing)}: it can be shown and "
            f"labelled but not trained on, so leave it out ('recap label set {episode.info.id} exclude')"
        )


def _check_cameras(episodes: list[CachedEpisode]) -> None:
    first = episodes[0].info
    for episode in episodes[1:]:
        if episode.info.cameras != first.cameras:
            raise InputError(
                f"episode {episode.info.id} has cameras {episode.info.cameras} and episode {first.id} has "
                f"{first.cameras}: training needs the same in all, so leave one kind out "
                "('recap label set ID exclude')"
            )

"""Many cached episodes as one table of frames: what training code indexes.

A frame's *index* is its row in the table, 0 to N−1, episode after episode in the order given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import InputError
from pipeline.frame_cache import CachedEpisode, FrameCache, read_scores


@dataclass(frozen=True)
class FrameTable:
    """N frames of E episodes; every array is read-only by agreement.

    ``tasks``, ``starts`` (E,) int64 and ``lengths`` (E,) int64 are per episode; ``episode_index`` (N,)
    int32, ``frame_index`` (N,) int32, ``source`` (N,) uint8, ``state`` (N, 15) float32 and ``action``
    (N, 7) float32 are per frame.
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

    @classmethod
    def load(cls, cache: FrameCache, episode_ids: Sequence[str], *, preload: bool = False) -> FrameTable:
        """Concatenates cached episodes; images stay memory-mapped unless ``preload`` copies them to RAM.

        A preloaded table takes N × cameras × S × S × 3 bytes (42 kB a frame for two cameras of 84×84)
        for each process; a mapped one shares the operating system's cache with all other processes.
        Raises ``InputError`` for no episodes, for one named twice, for one that is not cached, and for
        episodes that differ in their cameras.
        """
        if not episode_ids:
            raise InputError("a table of frames needs one episode or more")
        if len(set(episode_ids)) != len(episode_ids):
            raise InputError("an episode is named twice in a table of frames")
        episodes = [cache.open(episode_id) for episode_id in episode_ids]
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
        )

    def __len__(self) -> int:
        """N, the number of frames."""
        return len(self.frame_index)

    def frames_of(self, episode: int) -> slice:
        """The rows of the episode at that position of ``episode_ids``."""
        start = int(self.starts[episode])
        return slice(start, start + int(self.lengths[episode]))

    def images(self, indices: np.ndarray) -> np.ndarray:
        """The images of B frames: a new ``(B, cameras, S, S, 3)`` uint8 array, in the order asked for."""
        if self._preloaded is not None:
            return self._preloaded[indices]
        indices = np.asarray(indices)
        out = np.empty((len(indices), *self._episode_images[0].shape[1:]), dtype=np.uint8)
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


def _check_cameras(episodes: list[CachedEpisode]) -> None:
    first = episodes[0].info
    for episode in episodes[1:]:
        if episode.info.cameras != first.cameras:
            raise InputError(
                f"episode {episode.info.id} has cameras {episode.info.cameras} and episode {first.id} has "
                f"{first.cameras}: a table of frames needs the same in all"
            )

"""One worker of the scoring pool: holds the models, scores episodes, publishes each when it is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.frame_cache import FrameCache
from pipeline.frame_scores import ScoreWriter
from pipeline.stored_frames import StoredFrames
from workflows.value_ensemble import ValueEnsemble

if TYPE_CHECKING:
    from pipeline.errors import InputError
    from value_model.scoring import ScoringModels
    from value_model.scoring_pass import EpisodeScores
    from value_model.training_config import ValueTrainingConfig

VALUE, SPREAD = "value", "value_spread"
# Episodes that wait to be published, at most.
_PENDING = 32


@dataclass(frozen=True)
class ScoringJob:
    """What every worker of one call needs to know; picklable."""

    cache: Path
    run: str
    members: tuple[Path, ...]
    ensemble: ValueEnsemble

    def config(self) -> ValueTrainingConfig:
        """How the models were trained, and so how they are used."""
        from value_model.training_config import ValueTrainingConfig

        return ValueTrainingConfig.from_parameters(self.ensemble.training)


class ScoringWorker:
    """Scores episodes in this process, with one thread for the networks and one that reads ahead."""

    def __init__(self, job: ScoringJob) -> None:
        """Loads nothing yet."""
        self._job = job
        self._models: ScoringModels | None = None

    def models(self) -> ScoringModels:
        """The ensemble; its records are read the first time. Raises ``InputError`` where they cannot be."""
        from value_model.scoring import ScoringModels

        if self._models is None:
            self._models = ScoringModels.of_folders(self._job.members, self._job.config())
        return self._models

    def score(
        self, episodes: Sequence[StoredFrames], report: Callable[[StoredFrames, str | None], None]
    ) -> None:
        """Scores these episodes and publishes their values; reports each, with what was wrong with it."""
        from value_model.scoring import score_episodes

        source = _Stored({frames.episode_id: frames for frames in episodes})
        cache = FrameCache(self._job.cache, self._job.ensemble.image_size)
        with ScoreWriter(cache, self._job.run) as writer, _Publishing(writer, report) as publishing:

            def publish(episode_id: str, scores: EpisodeScores) -> None:
                publishing.add(source.episode(episode_id), scores)

            def fail(episode_id: str, error: InputError) -> None:
                report(source.episode(episode_id), str(error))

            ids = [frames.episode_id for frames in episodes]
            with _one_thread():
                score_episodes(source, ids, self.models(), self._job.config(), publish, fail)


class _Publishing:
    """Publishes in a thread, so that the networks do not wait for the disk; a context manager.

    What was added is published when the block ends, and reported by the thread that adds, in its turn.
    """

    def __init__(self, writer: ScoreWriter, report: Callable[[StoredFrames, str | None], None]) -> None:
        self._writer, self._report = writer, report
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish-scores")
        self._pending: deque[tuple[StoredFrames, Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._settle(0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def add(self, frames: StoredFrames, scores: EpisodeScores) -> None:
        """Publishes one episode's scores soon. Waits where many are to be published before it."""
        found = {VALUE: scores.value, SPREAD: scores.spread}
        task = self._pool.submit(self._writer.publish, frames.episode_id, found, content=frames.scored_from)
        self._pending.append((frames, task))
        self._settle(_PENDING)

    def _settle(self, most: int) -> None:
        while self._pending and (len(self._pending) > most or self._pending[0][1].done()):
            frames, task = self._pending.popleft()
            task.result()
            self._report(frames, None)


@dataclass(frozen=True)
class _Stored:
    """The episodes at hand as a source of frames."""

    frames: dict[str, StoredFrames]

    def episode(self, episode_id: str) -> StoredFrames:
        return self.frames[episode_id]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within: torch computes with one thread, so that results do not depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

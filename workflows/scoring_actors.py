"""The scoring pool on Ray: actors that hold the models and take work items until there are none left.

An actor that is lost (killed, out of memory) is replaced, and what it had is given to another; an item
that keeps losing its actor is given up and named, so that one episode cannot stop the rest. Actors die
with their driver.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import Failure, InputError
from pipeline.stored_frames import StoredFrames
from workflows.cluster_place import require_code, require_place
from workflows.gpu_share import device_here
from workflows.local_ray import LOST_WORKER_RETRIES, die_with_parent, local_ray
from workflows.scoring_worker import ScoringJob, ScoringWorker
from workflows.step_code import SCORING
from workflows.step_recipe import code_version

Report = Callable[[StoredFrames, str | None], None]

# Items that an actor has at hand: with two it never waits for the driver.
_AT_HAND = 2
_POLL_S = 1.0


@dataclass(eq=False)
class _Item:
    """Some episodes that are scored together, and how often their actor was lost."""

    episodes: list[StoredFrames]
    losses: int = 0


@dataclass(eq=False)
class _Member:
    """One actor and the items it has, in the order in which it works on them."""

    handle: Any
    starting: Any
    items: deque[tuple[Any, _Item]] = field(default_factory=deque)


class ScoringActor:
    """What runs in an actor: a :class:`ScoringWorker` in a process that does not outlive the driver."""

    def __init__(self, job: ScoringJob, code: Mapping[str, str]) -> None:
        """Loads nothing yet. ``code``: the driver's digest of each part of the source that decides values."""
        die_with_parent()
        self._code = code
        # What Ray hides is found by no number.
        training = {**job.ensemble.training, "device": device_here(job.config().device)}
        self._worker = ScoringWorker(replace(job, ensemble=replace(job.ensemble, training=training)))

    def start(self) -> int:
        """Reads the models' records; the process's number.

        Raises ``InputError`` where that fails, and on a machine that does not see the driver's workspace.
        """
        require_place()
        require_code(self._code)
        self._worker.models()
        return os.getpid()

    def score(self, episodes: list[StoredFrames]) -> list[str | None]:
        """Scores and publishes these episodes; for each, what was wrong with it."""
        found: dict[str, str | None] = {}
        self._worker.score(episodes, lambda frames, error: found.__setitem__(frames.episode_id, error))
        return [found[frames.episode_id] for frames in episodes]


def score_in_actors(job: ScoringJob, episodes: Sequence[StoredFrames], workers: int, report: Report) -> None:
    """Scores and publishes ``episodes`` in ``workers`` processes; reports each, with what was wrong.

    Uses the Ray that runs in this process, or starts one for the time of the call. Raises what the
    models' loading raises, and ``Failure`` where no actor stays alive.
    """
    from value_model.scoring import work_items

    models = ScoringWorker(job).models()
    known = []
    for frames in episodes:
        try:
            models.allowed(frames.episode_id, frames.content)
            known.append(frames)
        except InputError as error:
            report(frames, str(error))
    numbers = work_items(known, models)
    items = [_Item([known[i] for i in item]) for item in numbers]
    with local_ray():
        pool = _Pool(job, items, min(workers, len(items)), report)
        try:
            pool.run()
        finally:
            pool.close()


class _Pool:
    """The actors at work, and the items that wait."""

    def __init__(self, job: ScoringJob, items: list[_Item], workers: int, report: Report) -> None:
        self._job, self._report = job, report
        self._code = {name: code_version((name,)) for name in SCORING}
        self._waiting = deque(items)
        self._left = len(items)
        self._lost = 0
        self._members: list[_Member] = []
        for _ in range(workers):
            self._hire()

    def run(self) -> None:
        """Returns when every item has been scored or given up."""
        import ray

        while self._left:
            for member in self._members:
                self._supply(member)
            references = [m.items[0][0] if m.items else m.starting for m in self._members]
            references = [reference for reference in references if reference is not None]
            ready, _ = ray.wait(references, timeout=_POLL_S)
            for member in list(self._members):
                if member.starting in ready or (member.items and member.items[0][0] in ready):
                    self._hear(member)

    def close(self) -> None:
        """Ends the actors."""
        import ray

        for member in self._members:
            ray.kill(member.handle)

    def _hire(self) -> None:
        import ray

        on_gpu = self._job.config().device.startswith("cuda")
        actor = ray.remote(ScoringActor).options(
            num_cpus=1, num_gpus=1 if on_gpu else 0, max_restarts=0, scheduling_strategy="SPREAD"
        )
        handle: Any = actor.remote(self._job, self._code)
        self._members.append(_Member(handle, handle.start.remote()))

    def _supply(self, member: _Member) -> None:
        """Gives an actor work, if it has started: before that it may be waiting for a core for long."""
        while member.starting is None and self._waiting and len(member.items) < _AT_HAND:
            item = self._waiting.popleft()
            member.items.append((member.handle.score.remote(item.episodes), item))

    def _hear(self, member: _Member) -> None:
        """Takes what an actor has done, or notices that it is gone."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        reference = member.starting if member.starting is not None else member.items[0][0]
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (
                cause
                if isinstance(cause, InputError | Failure)
                else Failure(f"scoring failed: {' '.join(str(error.cause or error).split())[:300]}")
            ) from error
        except RayError:  # killed, crashed, out of memory
            self._replace(member)
            return
        if member.starting is not None:
            member.starting = None
            return
        _, item = member.items.popleft()
        for frames, wrong in zip(item.episodes, result, strict=True):
            self._report(frames, wrong)
        self._left -= 1

    def _replace(self, member: _Member) -> None:
        """Puts back what a lost actor had, and starts another in its place."""
        import ray

        self._members.remove(member)
        ray.kill(member.handle)  # where it is only unheard of
        if member.starting is not None:
            # Nothing to blame but the machine.
            self._lost += 1
            if self._lost > LOST_WORKER_RETRIES:
                raise Failure("scoring: its processes end before they begin; is there enough memory?")
        for place, (_, item) in enumerate(member.items):
            # Only the one it was at work on may be to blame.
            item.losses += place == 0
            if item.losses <= LOST_WORKER_RETRIES:
                self._waiting.appendleft(item)
                continue
            for frames in item.episodes:
                self._report(
                    frames,
                    f"episode {frames.episode_id}: the process that scored it and its neighbours was lost "
                    f"{item.losses} times; is there enough memory?",
                )
            self._left -= 1
        self._hire()

"""Scores a workspace's episodes with a value ensemble: what is new or changed, on as many workers as pay.

What is scored is published episode by episode, by the worker that scored it, under a name that follows
from the models (:func:`scoring_run_of`) and with what it was computed from: the content key of the frames
and the task's text. So nothing is ever scored twice: a driver that is killed loses the episodes at work, and
the next call goes on. Work goes out in items of some hundred frames whose make-up depends on the list of
episodes alone, so that any number of workers gives equal numbers. One worker needs no Ray.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import Failure, InputError
from pipeline.frame_cache import FrameCache
from pipeline.frame_scores import VALUES_PREFIX, remove_unfinished_scores, scored_content
from pipeline.stored_frames import StoredFrames, current_frames
from pipeline.workspace import Workspace
from workflows.gpu_share import gpus_of_ray, require_gpu
from workflows.scoring_worker import ScoringJob, ScoringWorker
from workflows.step_code import SCORING
from workflows.step_recipe import canonical_json, code_version, content_digest
from workflows.step_store import MANIFEST
from workflows.value_ensemble import ValueEnsemble

Progress = Callable[[int, int], None]

# Fewer frames than this are scored sooner than Ray, or a few of its workers, have started.
_WORTH_RAY = {"small": 100_000, "vlm": 400}
_WORTH_ACTORS = {"small": 20_000, "vlm": 100}


@dataclass(frozen=True)
class ScoringResult:
    """What one call did.

    run: the scoring run's name, see :mod:`pipeline.frame_scores`. scored, reused: episodes. frames: how
    many were scored. seconds: all of it, and workers: in how many processes. failed: episodes that have
    no values, and why.
    """

    run: str
    scored: int
    reused: int
    frames: int
    seconds: float
    workers: int
    failed: dict[str, str] = field(default_factory=dict)

    def require_all(self) -> None:
        """Raises ``InputError`` unless every episode has its values."""
        if self.failed:
            first = next(iter(self.failed.values()))
            more = len(self.failed) - 1
            names = ", ".join(list(self.failed)[1:6]) + (", …" if more > 5 else "")
            raise InputError(
                f"{len(self.failed)} of {self.scored + self.reused + len(self.failed)} episodes cannot be "
                f"scored: {first}" + (f" (and {more} more: {names})" if more else "")
            )


def scoring_run_of(ensemble: ValueEnsemble) -> str:
    """The name under which the ensemble's values are published: the models, how they are used, the code.

    Which episodes they score, and the labels, have no part in it. Raises ``InputError`` where a model is
    gone.
    """
    from value_model.training_config import ValueTrainingConfig

    recipe = {
        "members": [_model_digest(folder) for folder in ensemble.members],
        # Complete, however much of it was written down.
        "training": ValueTrainingConfig.from_parameters(ensemble.training).to_parameters(),
        "image_size": ensemble.image_size,
        "code": code_version(SCORING),
    }
    return VALUES_PREFIX + hashlib.sha256(canonical_json(recipe).encode()).hexdigest()[:16]


def score_workspace(
    workspace: Workspace,
    ensemble: ValueEnsemble,
    episode_ids: Sequence[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cluster: str | None = None,
) -> ScoringResult:
    """Gives every frame of these episodes a value and a spread, in the run :func:`scoring_run_of`.

    Episodes that the frame cache lacks are decoded first. ``workers``: processes; ``None``: as many as
    pay, one for each GPU where the models are on one. ``cluster``: the address of a Ray cluster to use where
    that pays (:mod:`workflows.cluster`). ``progress(done, total)`` counts frames. An
    episode that cannot be read or scored is named in the result and stops no other. Raises
    ``InputError`` for models that are gone or on a GPU that is not there, ``Failure`` where no worker process
    stays alive.
    """
    began = time.monotonic()
    run = scoring_run_of(ensemble)
    cache = FrameCache(workspace.cache, ensemble.image_size)
    with cache.held(), ExitStack() as stack:
        found, failed = _cached(workspace, cache, episode_ids)
        stale = [frames for frames in found if not _is_scored(cache, run, frames)]
        job = ScoringJob(cache.root.absolute(), run, tuple(m.absolute() for m in ensemble.members), ensemble)
        if stale and cluster is not None and _worth_a_cluster(job, stale, workers):
            from workflows.cluster import ray_cluster

            stack.enter_context(ray_cluster(cluster, workspace))
        if stale:
            require_gpu(job.config().device)
        workers = (workers or _fitting_workers(job, stale)) if stale else 0
        remove_unfinished_scores(cache, run)
        scored = _Tally(sum(frames.length for frames in stale), progress)
        if workers == 1 and not _only_elsewhere(job):
            ScoringWorker(job).score(stale, scored.add)
        elif workers:
            # Loads Ray.
            from workflows.scoring_actors import score_in_actors

            score_in_actors(job, stale, workers, scored.add)
    failed |= scored.failed
    return ScoringResult(
        run,
        scored=scored.episodes,
        reused=len(found) - len(stale),
        frames=scored.frames,
        seconds=time.monotonic() - began,
        workers=workers,
        failed=failed,
    )


@dataclass
class _Tally:
    """What has been scored so far, in episodes and frames."""

    total: int
    progress: Progress | None
    episodes: int = 0
    frames: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, frames: StoredFrames, error: str | None) -> None:
        self.done += frames.length
        if error is None:
            self.episodes += 1
            self.frames += frames.length
        else:
            self.failed[frames.episode_id] = error
        if self.progress is not None:
            self.progress(self.done, self.total)


def _cached(
    workspace: Workspace, cache: FrameCache, episode_ids: Sequence[str]
) -> tuple[list[StoredFrames], dict[str, str]]:
    """The cached frames of the episodes, decoded where they were not; and which cannot be, and why."""
    paths = {path.stem: path for path in workspace.episodes.glob("*/*.h5")}
    failed = {
        episode_id: f"there is no episode {episode_id!r} in {workspace.episodes}: see 'recap episodes list'"
        for episode_id in episode_ids
        if episode_id not in paths
    }
    wanted = [episode_id for episode_id in dict.fromkeys(episode_ids) if episode_id in paths]
    found: dict[str, StoredFrames | None] = {}
    for again in (False, True):
        missing = [episode_id for episode_id in wanted if found.get(episode_id) is None]
        for episode_id in missing:
            try:
                found[episode_id] = current_frames(cache, paths[episode_id])
            except InputError as error:
                failed[episode_id] = str(error)
        missing = [i for i in missing if i not in failed and found[i] is None]
        if missing and not again:
            _decode(cache, {i: paths[i] for i in missing}, failed)
    return [frames for i in wanted if i not in failed and (frames := found[i]) is not None], failed


def _decode(cache: FrameCache, paths: dict[str, Path], failed: dict[str, str]) -> None:
    """Decodes these episodes into the cache, one damaged file at a time where there are some."""
    from workflows.local_ray import available_cpus

    try:
        cache.build_many(list(paths.values()), workers=available_cpus())
    except InputError:
        for episode_id, path in paths.items():
            try:
                cache.build_many([path])
            except InputError as error:
                failed[episode_id] = str(error)


def _is_scored(cache: FrameCache, run: str, frames: StoredFrames) -> bool:
    return scored_content(cache, run, frames.episode_id) == frames.scored_from


def _fitting_workers(job: ScoringJob, stale: Sequence[StoredFrames]) -> int:
    """As many processes as make the work end sooner; one where it is little."""
    from workflows.local_ray import available_cpus

    config = job.config()
    if config.device.startswith("cuda"):
        import torch

        return gpus_of_ray() or max(1, torch.cuda.device_count())
    import sys

    ray: Any = sys.modules.get("ray")
    running = ray is not None and ray.is_initialized()
    limits = _WORTH_ACTORS if running else _WORTH_RAY
    if sum(frames.length for frames in stale) < limits[config.network.kind]:
        return 1
    return max(1, int(ray.cluster_resources().get("CPU", 1)) if running else available_cpus())


def _worth_a_cluster(job: ScoringJob, stale: Sequence[StoredFrames], workers: int | None) -> bool:
    config = job.config()
    if workers is not None or config.device.startswith("cuda"):
        return workers != 1 or config.device.startswith("cuda")
    return sum(frames.length for frames in stale) >= _WORTH_ACTORS[config.network.kind]


def _only_elsewhere(job: ScoringJob) -> bool:
    """Whether the models are on a GPU, and only other machines of the cluster have one."""
    if not job.config().device.startswith("cuda") or not gpus_of_ray():
        return False
    import torch

    return not torch.cuda.is_available()


def _model_digest(folder: Path) -> str:
    """What the model in a checkpoint folder is: its hash in its step's manifest, or computed now."""
    try:
        manifest = json.loads((folder.parent / MANIFEST).read_text())
        files = {n: f["sha256"] for n, f in manifest["files"].items() if n.startswith(f"{folder.name}/")}
        if files:
            return hashlib.sha256(canonical_json(files).encode()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    try:
        return content_digest(folder)
    except FileNotFoundError:
        raise InputError(f"the value model {folder} is gone: train one with 'recap value train'") from None


__all__ = ["Failure", "Progress", "ScoringResult", "score_workspace", "scoring_run_of"]

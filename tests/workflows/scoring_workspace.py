"""Workspaces for tests of scoring: tiny real episodes, and value models with random weights that say what
they have seen. A model need not be good to be scored with, and training one would take far longer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.episode import Source
from pipeline.workspace import EpisodeEntry, Workspace
from tests.tiny_episodes import TASK, EpisodeMaker
from value_model.checkpoint import ModelRecord, save_checkpoint
from value_model.network import SmallNetworkConfig, build_network
from value_model.training_config import ValueTrainingConfig
from workflows.scoring_pool import score_workspace
from workflows.value_ensemble import ValueEnsemble, load_ensemble, save_ensemble

SIZE = 24
NETWORK = SmallNetworkConfig(
    cameras=2, image_size=SIZE, state_size=15, patch=4, channels=(8, 8, 8), width=16, dropout=0.1
)
# Takes a few milliseconds a frame, so that there is time to kill who works with it.
SLOW_NETWORK = SmallNetworkConfig(
    cameras=2, image_size=SIZE, state_size=15, patch=2, channels=(256, 256, 256), width=64
)
TASKS = (TASK, "pick up the blue cube")


def make_workspace(root: Path, lengths: Sequence[int]) -> tuple[Workspace, list[EpisodeEntry]]:
    """A workspace with an episode of each length: two tasks in turn, the end of every third corrected."""
    workspace = Workspace(root).create()
    make = EpisodeMaker(workspace)
    entries = []
    for number, length in enumerate(lengths):
        sources = [Source.TELEOP if number % 3 else Source.POLICY] * length
        if number % 3 == 0:
            sources[length // 2 :] = [Source.INTERVENTION] * (length - length // 2)
        entries.append(make(TASKS[number % 2], sources, size=(SIZE, SIZE)))
    return workspace, entries


def make_ensemble(
    workspace: Workspace,
    episode_ids: Sequence[str],
    *,
    folds: int = 2,
    members: int = 1,
    seed: int = 0,
    shape: SmallNetworkConfig = NETWORK,
) -> ValueEnsemble:
    """Saves an ensemble whose fold k has not seen every ``folds``-th episode, the k-th first.

    Its heads are scaled up, so that values differ well between frames and models.
    """
    config = ValueTrainingConfig(network=shape, folds=folds, members=members)
    folders = []
    for fold in range(folds):
        for member in range(members):
            torch.manual_seed(1000 * seed + 10 * fold + member)
            network = build_network(shape)
            with torch.no_grad():
                for weights in network.parameters():
                    weights.mul_(2.0)
            seen = tuple(sorted(i for n, i in enumerate(episode_ids) if n % folds != fold))
            folder = workspace.root / "models" / f"{seed}-{fold}-{member}" / "checkpoint"
            record = ModelRecord(fold, member, seen, shape, config.to_parameters(), 1, 1.0, None)
            save_checkpoint(folder, network, record)
            folders.append(folder)
    ensemble = ValueEnsemble(tuple(folders), config.to_parameters(), SIZE, "d" * 64)
    save_ensemble(workspace, ensemble)
    return ensemble


def main() -> None:
    """Scores a workspace's episodes, for tests that kill this process. Arguments: the workspace, workers."""
    workspace = Workspace(Path(sys.argv[1]))
    ids = [entry.id for entry in workspace.list_episodes()]
    result = score_workspace(workspace, load_ensemble(workspace), ids, workers=int(sys.argv[2]))
    print(f"scored {result.scored} reused {result.reused} failed {len(result.failed)}")


if __name__ == "__main__":
    main()

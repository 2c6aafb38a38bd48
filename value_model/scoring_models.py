"""The models of an ensemble as scoring uses them: which may score an episode, and their networks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from pipeline.errors import InputError
from value_model.bins import ValueBins
from value_model.checkpoint import load_network, read_record
from value_model.frame_feed import EpisodeFrames
from value_model.network import ValueNetwork
from value_model.training_config import ValueTrainingConfig

# (fold, member, folder written by ``train_fold``)
FoldCheckpoint = tuple[int, int, Path]


class ScoringModels:
    """Every (fold, member) of an ensemble. Building it reads their records; weights are loaded when used."""

    def __init__(self, checkpoints: Sequence[FoldCheckpoint], config: ValueTrainingConfig) -> None:
        """Raises ``InputError`` when one is missing, or is not the fold and member it is said to be."""
        _check_complete(checkpoints, config)
        self._paths = [path for _, _, path in checkpoints]
        self._records = [read_record(path) for path in self._paths]
        for (fold, member, path), record in zip(checkpoints, self._records, strict=True):
            if (record.fold, record.member) != (fold, member):
                raise InputError(
                    f"{path} holds fold {record.fold}, member {record.member}, not fold {fold}, "
                    f"member {member}"
                )
        self._seen = [frozenset(record.seen) for record in self._records]
        self._contents = [frozenset(record.seen_contents) for record in self._records]
        self._networks: dict[int, ValueNetwork] = {}
        self._precision = getattr(config, "precision", "float32")
        self.device = torch.device(config.device)
        self.bins = ValueBins(self._records[0].network.bins)

    @classmethod
    def of_folders(cls, folders: Sequence[Path], config: ValueTrainingConfig) -> ScoringModels:
        """The models in these folders, each the fold and member that its record says."""
        records = [read_record(folder) for folder in folders]
        return cls([(r.fold, r.member, f) for r, f in zip(records, folders, strict=True)], config)

    def allowed(self, episode_id: str, content: str) -> tuple[int, ...]:
        """The numbers of the models that have seen neither the episode nor a copy of it.

        ``content`` is its content key. Raises ``InputError`` for none.
        """
        known = zip(self._seen, self._contents, strict=True)
        found = tuple(
            i for i, (ids, keys) in enumerate(known) if episode_id not in ids and content not in keys
        )
        if not found:
            raise InputError(
                f"episode {episode_id} was seen by every value model: score it with all folds' models"
            )
        return found

    def network(self, model: int) -> ValueNetwork:
        """The model of that number, loaded the first time."""
        if model not in self._networks:
            self._networks[model] = load_network(self._paths[model], self._records[model], str(self.device))
        return self._networks[model]

    def autocast(self) -> AbstractContextManager[None]:
        """Within: the precision that the models were trained for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._precision == "bfloat16")

    def check(self, episode: EpisodeFrames) -> None:
        """Raises ``InputError`` unless the episode's frames have the shapes of the networks' inputs."""
        network = self._records[0].network
        wanted = (network.cameras, network.image_size, network.image_size, 3)
        where = f"episode {episode.episode_id}"
        if episode.image_shape != wanted:
            raise InputError(
                f"{where}: frames have images of shape {episode.image_shape}, the value network takes "
                f"{wanted}"
            )
        if network.state_size and episode.state_size != network.state_size:
            raise InputError(
                f"{where}: frames have {episode.state_size} state values, the value network takes "
                f"{network.state_size}"
            )


def _check_complete(checkpoints: Sequence[FoldCheckpoint], config: ValueTrainingConfig) -> None:
    given = sorted((fold, member) for fold, member, _ in checkpoints)
    wanted = [(fold, member) for fold in range(config.folds) for member in range(config.members)]
    if given != wanted:
        raise InputError(
            f"value models for (fold, member) {given}, but {wanted} are needed: train the others"
        )

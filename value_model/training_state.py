"""A training that was interrupted, on disk: one safetensors file that is replaced at each evaluation."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.durable_files import publish
from pipeline.frame_table import FrameTable
from value_model.training_config import ValueTrainingConfig

_LOG = logging.getLogger(__name__)
_FORMAT = 1
# Frames whose images are hashed to tell one data set from another.
_IMAGES_HASHED = 64


@dataclass
class TrainingState:
    """Tensors by name (on the CPU) and plain JSON facts, all that a training needs to go on."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def put(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        """Adds copies of ``tensors`` under ``prefix``."""
        for name, tensor in tensors.items():
            self.tensors[f"{prefix}/{name}"] = tensor.detach().to("cpu", copy=True).contiguous()

    def take(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix``, by the rest of their names."""
        start = f"{prefix}/"
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def save_state(path: Path, state: TrainingState, fingerprint: str) -> None:
    """Replaces ``path`` by ``state``, atomically. Only one process may write ``path`` at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    document = json.dumps({"format": _FORMAT, "fingerprint": fingerprint, "facts": state.facts})
    save_file(state.tensors, aside, metadata={"recap": document})
    publish(aside, path)


def load_state(path: Path, fingerprint: str) -> TrainingState | None:
    """The state in ``path``; ``None`` where there is none, or where it is of another training.

    Which of the two is logged: a training then begins anew, and replaces the file at its first evaluation.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            document = json.loads((stored.metadata() or {})["recap"])
            if (document["format"], document["fingerprint"]) != (_FORMAT, fingerprint):
                _LOG.warning("%s is of a training with other settings or data: beginning anew", path)
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no dict
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s cannot be read (%s): beginning anew", path, error)
        return None
    return TrainingState(tensors, document["facts"])


def training_fingerprint(
    table: FrameTable,
    returns: np.ndarray,
    config: ValueTrainingConfig,
    job: tuple[int, int],
    episodes: tuple[list[str], list[str]],
) -> str:
    """SHA-256 over what decides a training: settings, fold and member, episodes, returns, states, images.

    ``job`` is (fold, member), ``episodes`` those trained on and those held out. Of the images, a few
    spread over the table: a data set with the same episodes, states and returns does not differ in one.
    """
    said = [config.to_parameters(), list(job), *episodes, table.episode_ids, table.tasks, torch.__version__]
    hasher = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    some = np.unique(np.linspace(0, len(returns) - 1, _IMAGES_HASHED).astype(np.int64))
    for array in (table.lengths, returns, table.state, table.images(some)):
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()

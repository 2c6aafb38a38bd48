"""Work that was interrupted, on disk: one safetensors file with all that it takes to go on.

The file is replaced in one rename, so a kill leaves the one before; a digest over everything in it tells
a damaged one. What does not fit the work at hand is no error: that work then begins anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.durable_files import publish

_LOG = logging.getLogger(__name__)
_FORMAT = 2
# Names the one entry of the file's metadata.
_METADATA = "recap"

KEEP_EVERY_S = 5.0
"""Seconds of work between two states: what a kill may cost."""
LARGEST_SHARE = 0.03
"""Of the time, at most, that keeping states may take."""


@dataclass
class ResumeState:
    """Tensors by name (on the CPU) and plain JSON facts, all that a training needs to go on."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Adds copies of ``tensors`` under ``prefix``."""
        for name, tensor in tensors.items():
            self.tensors[f"{prefix}/{name}"] = tensor.detach().to("cpu", copy=True).contiguous()

    def take(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix``, by the rest of their names."""
        start = f"{prefix}/"
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def save_state(path: Path, state: ResumeState, fingerprint: str) -> bool:
    """Replaces ``path`` by ``state``, atomically. Only one process may write ``path`` at a time.

    ``fingerprint`` says of which work the state is. Where that fails, as on a full disk, the state before is
    left, which is logged, and ``False`` returned: only a kill would then cost more.
    """
    document = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "facts": state.facts,
        "digest": _digest(state.tensors, state.facts),
    }
    aside = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state.tensors, aside, metadata={_METADATA: json.dumps(document)})
        publish(aside, path)
    except (OSError, SafetensorError) as error:
        _LOG.warning("%s could not be written (%s): a kill would now cost more work", path, error)
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        return False
    return True


def load_state(path: Path, fingerprint: str) -> ResumeState | None:
    """The state in ``path``; ``None`` where there is none, or where it is damaged or of other work.

    Which of them is logged: the work then begins anew, and replaces the file when it next keeps its state.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            document = json.loads((stored.metadata() or {})[_METADATA])
            if (document["format"], document["fingerprint"]) != (_FORMAT, fingerprint):
                _LOG.warning("%s is of a training with other settings or data: beginning anew", path)
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no dict
        facts = document["facts"]
        if _digest(tensors, facts) != document["digest"]:
            _LOG.warning("%s is damaged: beginning anew", path)
            return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s cannot be read (%s): beginning anew", path, error)
        return None
    return ResumeState(tensors, facts)


def remove_state(path: Path) -> None:
    """Removes the state, and what a kill left of one that was being written."""
    path.unlink(missing_ok=True)
    _aside(path).unlink(missing_ok=True)


class Keeper:
    """Says when to keep a state: every few seconds, but never so often that it costs a real share of them."""

    def __init__(
        self,
        every_s: float = KEEP_EVERY_S,
        share: float = LARGEST_SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``share`` bounds the time that :meth:`keep` takes of all time; counting begins now."""
        self._every_s, self._share, self._clock = every_s, share, clock
        self._since = clock()
        self._cost_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time: so long after the last that the next, as dear as that one, is worth it."""
        return self._clock() - self._since >= max(self._every_s, self._cost_s / self._share)

    def keep(self, write: Callable[[], object]) -> None:
        """Calls ``write`` and notes what it took."""
        began = self._clock()
        write()
        self._since = self._clock()
        self._cost_s = self._since - began


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """SHA-256 over the facts and every tensor's name, type, shape and bytes."""
    hasher = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # As bytes: numpy has no bfloat16.
        hasher.update(np.ascontiguousarray(tensor.reshape(-1).view(torch.uint8).numpy()))
    return hasher.hexdigest()

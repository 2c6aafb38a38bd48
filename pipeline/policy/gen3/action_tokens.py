"""Chunks of actions as tokens and back: bins of single numbers, and FAST's compressed cosine transform."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.choices import fast_alphabet, fast_bound

# Coefficients as letters, for the library that learns and applies the merges: a block without spaces,
# accents or cases.
_FIRST_LETTER = 0x4E00


class ActionTokens(ABC):
    """A chunk (T, A) in [-1, 1] as token numbers 0..``size`` - 1.

    ``numbers``: how many of a chunk's T x A numbers each token stands for; a whole chunk's tokens add up to
    T x A. ``per_step``: whether a step's tokens say nothing of later steps.
    """

    size: int
    numbers: Tensor
    per_step: bool

    def __init__(self, chunk: int, width: int) -> None:
        """``chunk`` T steps of ``width`` A numbers."""
        self.chunk, self.width = chunk, width

    @abstractmethod
    def encode(self, actions: Tensor) -> list[list[int]]:
        """The tokens of chunks (B, T, A); numbers outside [-1, 1] are clipped."""

    @abstractmethod
    def decode(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Chunks (B, T, A) float32 of whole token lists, within [-1, 1]."""


class BinTokens(ActionTokens):
    """Each number in one of ``bins`` equal bins of [-1, 1]; time first, then components (RT-2, RoboVLMs)."""

    per_step = True

    def __init__(self, chunk: int, width: int, bins: int) -> None:
        """``bins``: 256 in the papers."""
        super().__init__(chunk, width)
        self.size = bins
        self.numbers = torch.ones(bins, dtype=torch.int64)

    def encode(self, actions: Tensor) -> list[list[int]]:
        """See :class:`ActionTokens`."""
        bins = ((actions.clamp(-1, 1) + 1) / 2 * self.size).floor().clamp(0, self.size - 1)
        return bins.long().flatten(1).tolist()

    def decode(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The bins' centres."""
        bins = torch.tensor(tokens, dtype=torch.float32).view(-1, self.chunk, self.width)
        return (bins + 0.5) / self.size * 2 - 1


class FastTokens(ActionTokens):
    """FAST (arXiv 2501.09747, algorithm 1): DCT over time, scaled and rounded, low frequencies first, BPE.

    Every whole number that a coefficient of a chunk in [-1, 1] can be is a token, so that any such chunk has
    tokens; ``merges`` add a token each for a pair of earlier ones.
    """

    per_step = False

    def __init__(
        self, chunk: int, width: int, scale: float, vocabulary: int, merges: Sequence[Sequence[int]] = ()
    ) -> None:
        """``scale``: FAST's gamma, 10 in the paper. ``vocabulary``: the most tokens there may be.

        Raises ``InputError`` for merges that name later tokens or are too many.
        """
        super().__init__(chunk, width)
        self.size, self.scale = vocabulary, scale
        self.bound = fast_bound(chunk, scale)
        self.merges = [(int(a), int(b)) for a, b in merges]
        self._texts = [chr(_FIRST_LETTER + i) for i in range(fast_alphabet(chunk, scale))]
        for a, b in self.merges:
            if not 0 <= min(a, b) <= max(a, b) < len(self._texts) < vocabulary:
                raise InputError(f"FAST merge ({a}, {b}) does not fit a vocabulary of {vocabulary}")
            self._texts.append(self._texts[a] + self._texts[b])
        lengths = [len(text) for text in self._texts]
        self.numbers = torch.tensor(lengths + [0] * (vocabulary - len(lengths)))
        self.basis = torch.from_numpy(cosine_basis(chunk)).float()

    @classmethod
    def trained(cls, actions: Tensor, scale: float, vocabulary: int) -> FastTokens:
        """Learns the merges from chunks (N, T, A): the most frequent pairs, again and again (BPE)."""
        plain = cls(actions.shape[1], actions.shape[2], scale, vocabulary)
        from tokenizers import (  # type: ignore[import-untyped]  # ships no types
            Tokenizer,
            models,
            trainers,
        )

        tokenizer: Any = Tokenizer(models.BPE())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=plain._texts, special_tokens=[], show_progress=False
        )
        tokenizer.train_from_iterator(plain._letters(actions), trainer)
        found = json.loads(tokenizer.to_str())["model"]["merges"]
        number = {text: i for i, text in enumerate(plain._texts)}
        merges: list[tuple[int, int]] = []
        for pair in found:
            first, second = pair if isinstance(pair, list) else pair.split(" ")
            if len(number) < vocabulary and first + second not in number:
                merges.append((number[first], number[second]))
                number[first + second] = len(number)
        return cls(plain.chunk, plain.width, scale, vocabulary, merges)

    def encode(self, actions: Tensor) -> list[list[int]]:
        """See :class:`ActionTokens`."""
        found = self._tokenizer.encode_batch(self._letters(actions))
        return [list(encoding.ids) for encoding in found]

    def decode(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The inverse transform of the tokens' coefficients; exact up to their rounding."""
        shape = (len(tokens), self.chunk, self.width)
        letters = ["".join(self._texts[token] for token in row) for row in tokens]
        numbers = np.array([[ord(c) for c in text] for text in letters], dtype=np.float32)
        coefficients = torch.from_numpy(numbers - (_FIRST_LETTER + self.bound)).view(shape) / self.scale
        return (self.basis.T @ coefficients).clamp(-1, 1)

    def _letters(self, actions: Tensor) -> list[str]:
        """Each chunk's rounded coefficients, lowest frequency of all components first, as letters."""
        coefficients = self.basis @ actions.detach().float().cpu().clamp(-1, 1)
        whole = (coefficients * self.scale).round().clamp(-self.bound, self.bound).long().flatten(1)
        return ["".join(map(chr, row)) for row in (whole + (_FIRST_LETTER + self.bound)).tolist()]

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer, models

        vocabulary = {text: i for i, text in enumerate(self._texts)}
        pairs = [(self._texts[a], self._texts[b]) for a, b in self.merges]
        return Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))

    def __getstate__(self) -> dict[str, Any]:
        """Without the library's object, which is built again."""
        return {key: value for key, value in self.__dict__.items() if key != "_tokenizer"}


def cosine_basis(size: int) -> np.ndarray:
    """The orthonormal DCT-II (size, size), float64: row k is frequency k.

    b(k, t) = sqrt((1 if k == 0 else 2) / size) cos(pi (t + 1/2) k / size); its inverse is its transpose.
    """
    t, k = np.arange(size), np.arange(size)[:, None]
    basis = np.cos(math.pi * (t + 0.5) * k / size) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def build_action_tokens(config: Gen3VLAConfig) -> ActionTokens | None:
    """The tokens that ``config`` predicts, as its head or beside it; ``None`` where it predicts none."""
    kind = config.action_head if config.action_head in ("bins", "fast") else config.backbone_tokens
    assert config.action_feature is not None
    width = config.action_feature.shape[0]
    if kind == "bins":
        return BinTokens(config.chunk_size, width, config.action_bins)
    if kind == "fast":
        return FastTokens(
            config.chunk_size, width, config.fast_scale, config.fast_vocabulary, config.fast_merges
        )
    return None

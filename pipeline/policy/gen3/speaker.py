"""A vocabulary of its own that a backbone speaks: what stands for its tokens, and what predicts them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Speaker(nn.Module):
    """Embeddings of ``size`` tokens, a start token and ``length`` places; and logits from hidden states.

    The start token's hidden state predicts the first token, each token's the next.
    """

    def __init__(self, size: int, length: int, width: int, std: float) -> None:
        """``std``: the size of the backbone's own embeddings."""
        super().__init__()
        self.start = nn.Parameter(std * torch.randn(width))
        self.tokens = nn.Embedding(size, width)
        self.places = nn.Parameter(std * torch.randn(length, width))
        self.logits = nn.Linear(width, size)
        nn.init.normal_(self.tokens.weight, std=std)

    def said(self, tokens: Tensor, first: int = 0) -> Tensor:
        """``tokens`` (B, n), which stand at places ``first`` and on, as (B, n, width)."""
        return self.tokens(tokens) + self.places[first : first + tokens.shape[1]]

    def opening(self, batch: int) -> Tensor:
        """The start token, (B, 1, width)."""
        return self.start.expand(batch, 1, -1)

    def errors(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Cross-entropy of ``tokens`` (B, n) given the hidden states before each, (B, n)."""
        return F.cross_entropy(self.logits(hidden).transpose(1, 2), tokens, reduction="none")

"""A vocabulary of its own that a backbone speaks: what stands for its tokens, and what predicts them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.policy.gen3.linear import Linear


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
        self.logits = Linear(width, size)
        nn.init.normal_(self.tokens.weight, std=std)

    def said(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """``tokens`` (B, n) at ``places`` (B, n), or at the first n, as (B, n, width); or (B,) at (B,)."""
        if places is None:
            return self.tokens(tokens) + self.places[: tokens.shape[1]]
        return self.tokens(tokens) + F.embedding(places, self.places)

    def opening(self, batch: int) -> Tensor:
        """The start token, (B, 1, width)."""
        return self.start.expand(batch, 1, -1)

    def errors(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Cross-entropy of ``tokens`` (B, n) given the hidden states before each, (B, n)."""
        # Rows of logits side by side: over a dimension that is not the last the sums take twice as long.
        errors = F.cross_entropy(self.logits(hidden).flatten(0, 1), tokens.flatten(), reduction="none")
        return errors.view(tokens.shape)

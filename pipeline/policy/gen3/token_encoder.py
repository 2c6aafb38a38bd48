"""A backbone that reads tokens, and what it says: sub-tasks, then action tokens.

The sequence is [cameras, words, state | sub-task | indicator, <ACT> | action tokens]: the first part sees
itself whole, the rest is causal, as pi0.5's and KI's. What stands before the action tokens is the prefix:
the expert never sees action tokens, which at inference it does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.action_tokens import ActionTokens, build_action_tokens
from pipeline.policy.gen3.encoding import Prefix, TokenErrors, held
from pipeline.policy.gen3.speaker import Speaker
from pipeline.policy.gen3.subtasks import OBS_SUBTASK, UNKNOWN, SubtaskWords
from pipeline.policy.gen3.transformer import Backbone, Cache

_SMALL_STD = 0.3


class TokenEncoder(nn.Module):
    """Backbone, sub-task words, indicator and action tokens in one sequence."""

    def __init__(self, config: Gen3VLAConfig, backbone: Any, std: float = _SMALL_STD) -> None:
        """``backbone``: a module that is a :class:`Backbone`; ``std``: the size of its embeddings."""
        super().__init__()
        self.config = config
        self.backbone = backbone
        width = backbone.width
        self.tokens: ActionTokens | None = build_action_tokens(config)
        length = self.tokens.chunk * self.tokens.width if self.tokens else 1
        size = self.tokens.size if self.tokens else 1
        self.act = nn.Parameter(std * torch.randn(width)) if self.tokens is None else None
        self.speaker = Speaker(size, length, width, std) if self.tokens else None
        spoken_slot = self.tokens is not None and config.indicator_input == "slot"
        self.indicator = nn.Embedding(3, width) if spoken_slot else None
        self.words = SubtaskWords(config.subtasks) if config.subtasks else None
        self.subtask = Speaker(self.words.size, self.words.length, width, std) if self.words else None

    @property
    def _reads(self) -> Backbone:
        return cast(Backbone, self.backbone)

    @property
    def knows_indicator(self) -> bool:
        """Whether the prefix depends on the indicator."""
        return self.indicator is not None or self.config.indicator_input == "text"

    def forward(
        self,
        batch: Mapping[str, Any],
        indicator: Tensor,
        actions: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> tuple[Prefix, TokenErrors]:
        """The prefix; in training, with ``actions`` (B, T, A) and ``counted`` (B, T), the tokens' errors.

        ``indicator`` (B,) in 0..2.
        """
        known = batch.get(OBS_SUBTASK)
        if known is None:
            known = torch.full_like(indicator, UNKNOWN)
        hidden, cache = self._read(*self._reads.observe(batch, indicator), None, causal=False)
        parts, subtask_errors = [hidden], None
        if self.subtask is not None:
            hidden, cache, chosen = self._say_subtask(known, cache, predict=actions is None)
            parts.append(hidden)
            subtask_errors = self._subtask_errors(hidden, chosen, known)
        opening = self._opening(indicator)
        before = cache.present.shape[1] + opening.shape[1]
        errors = None
        if self.speaker is None or self.tokens is None or actions is None or counted is None:
            hidden, cache = self._read(opening, None, cache, causal=True)
        else:
            spoken, there = self._padded(held(actions, counted), indicator.device)
            tail = torch.cat([opening, self.speaker.said(spoken[:, :-1])], dim=1)
            hidden, cache = self._read(tail, None, cache, causal=True)
            predicting = hidden[:, opening.shape[1] - 1 :]
            errors = self._action_errors(self.speaker.errors(predicting, spoken), there)
            hidden = hidden[:, : opening.shape[1]]
        parts.append(hidden)
        return self._prefix(torch.cat(parts, dim=1), cache, before), TokenErrors(
            errors, subtask_errors, known != UNKNOWN
        )

    def speak(self, batch: Mapping[str, Any], indicator: Tensor) -> Tensor:
        """Chunks (B, T, A) of the most likely action tokens, one after the other."""
        assert self.speaker is not None
        assert self.tokens is not None
        cache = self._context(batch, indicator)
        hidden, cache = self._read(self._opening(indicator), None, cache, causal=True)
        counts = self.tokens.numbers.to(indicator.device)
        left = torch.full_like(indicator, self.tokens.chunk * self.tokens.width)
        said: list[Tensor] = []
        while True:
            logits = self.speaker.logits(hidden[:, -1])
            fits = (counts > 0) & (counts <= left[:, None])
            token = logits.masked_fill(~fits, -torch.inf).argmax(1)
            # A chunk that is whole already waits for the others.
            token = torch.where(left > 0, token, 0)
            said.append(torch.where(left > 0, token, -1))
            left = (left - counts[token]).clamp_min(0)
            if not bool(left.any()):
                break
            nxt = self.speaker.said(token[:, None], len(said) - 1)
            hidden, cache = self._read(nxt, None, cache, causal=True)
        rows = torch.stack(said, dim=1).tolist()
        whole = self.tokens.decode([[token for token in row if token >= 0] for row in rows])
        return whole.to(indicator.device)

    def predicted_subtask(self, batch: Mapping[str, Any], indicator: Tensor) -> Tensor:
        """Which of the known sub-tasks is most likely, (B,) int64; words are chosen one after the other."""
        _, cache = self._read(*self._reads.observe(batch, indicator), None, causal=False)
        return self._say_subtask(torch.full_like(indicator, UNKNOWN), cache, predict=True)[2]

    def _context(self, batch: Mapping[str, Any], indicator: Tensor) -> Cache:
        _, cache = self._read(*self._reads.observe(batch, indicator), None, causal=False)
        if self.subtask is not None:
            known = batch.get(OBS_SUBTASK)
            known = torch.full_like(indicator, UNKNOWN) if known is None else known
            _, cache, _ = self._say_subtask(known, cache, predict=True)
        return cache

    def _read(
        self, tokens: Tensor, present: Tensor | None, past: Cache | None, *, causal: bool
    ) -> tuple[Tensor, Cache]:
        if present is None:
            present = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return self._reads.run(tokens, present, past, causal=causal)

    def _opening(self, indicator: Tensor) -> Tensor:
        """The indicator, where it has a token, and <ACT>: (B, 1 or 2, width)."""
        if self.speaker is None:
            assert self.act is not None
            return self.act.expand(len(indicator), 1, -1)
        act = self.speaker.opening(len(indicator))
        return act if self.indicator is None else torch.cat([self.indicator(indicator)[:, None], act], dim=1)

    def _say_subtask(self, known: Tensor, cache: Cache, *, predict: bool) -> tuple[Tensor, Cache, Tensor]:
        """Start and words of each sample's sub-task behind the cache: hidden states, cache, and which it is.

        With ``predict`` one that is unknown is predicted first; without, in training, its words do not count
        and are there for none to see.
        """
        assert self.subtask is not None
        assert self.words is not None
        chosen = known
        if predict and bool((known == UNKNOWN).any()):
            chosen = torch.where(known == UNKNOWN, self._most_likely(cache, len(known)), known)
        words = self.words.rows.to(known.device)[chosen.clamp_min(0)]
        tokens = torch.cat([self.subtask.opening(len(known)), self.subtask.said(words)], dim=1)
        present = (chosen != UNKNOWN)[:, None].expand(-1, tokens.shape[1])
        hidden, cache = self._read(tokens, present, cache, causal=True)
        return hidden, cache, chosen

    def _most_likely(self, cache: Cache, batch: int) -> Tensor:
        assert self.subtask is not None
        assert self.words is not None
        alive = torch.ones(batch, len(self.words.rows), dtype=torch.bool, device=cache.present.device)
        hidden, cache = self._read(self.subtask.opening(batch), None, cache, causal=True)
        for place in range(self.words.length):
            logits = self.subtask.logits(hidden[:, -1])
            word = logits.masked_fill(~self.words.possible(alive, place), -torch.inf).argmax(1)
            alive = self.words.narrowed(alive, place, word)
            if bool((alive.sum(1) == 1).all()):
                break
            hidden, cache = self._read(self.subtask.said(word[:, None], place), None, cache, causal=True)
        return alive.long().argmax(1)

    def _subtask_errors(self, hidden: Tensor, chosen: Tensor, known: Tensor) -> Tensor:
        assert self.subtask is not None
        assert self.words is not None
        words = self.words.rows.to(known.device)[chosen.clamp_min(0)]
        counted = self.words.counted(known)
        errors = self.subtask.errors(hidden[:, :-1], words) * counted
        return errors.sum(1) / counted.sum(1).clamp_min(1)

    def _padded(self, actions: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tokens of chunks, padded at their ends, (B, n), and which are there."""
        assert self.tokens is not None
        rows = self.tokens.encode(actions)
        length = max(len(row) for row in rows)
        padded = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        return padded, torch.arange(length, device=device) < lengths[:, None]

    def _action_errors(self, errors: Tensor, there: Tensor) -> Tensor:
        """Each step's mean (B, T); FAST's tokens are those of all steps, and so is their mean."""
        assert self.tokens is not None
        if self.tokens.per_step:
            return errors.unflatten(1, (self.tokens.chunk, -1)).mean(2)
        mean = (errors * there).sum(1) / there.sum(1)
        return mean[:, None].expand(-1, self.tokens.chunk)

    def _prefix(self, hidden: Tensor, cache: Cache, before: int) -> Prefix:
        layers = tuple(
            (keys[:, :, :before].transpose(1, 2).flatten(2), values[:, :, :before].transpose(1, 2).flatten(2))
            for keys, values in cache.layers
        )
        return Prefix(hidden, cache.present[:, :before], layers)

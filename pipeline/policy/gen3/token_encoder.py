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
from pipeline.policy.gen3.choices import TOKEN_HEADS
from pipeline.policy.gen3.encoding import Prefix, TokenErrors, held
from pipeline.policy.gen3.incremental import steps_after
from pipeline.policy.gen3.speaker import Speaker
from pipeline.policy.gen3.subtasks import OBS_SUBTASK, SubtaskWords
from pipeline.policy.gen3.transformer import Backbone, Cache, SmallBackbone
from pipeline.subtask_prompts import UNKNOWN

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
        self.spoken: list[int] = []  # which sub-tasks the latest prediction went by, a number for each sample
        self.subtask = Speaker(self.words.size, self.words.length, width, std) if self.words else None
        self._wanted = _states_read(config) if isinstance(backbone, SmallBackbone) else None

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
        hidden, cache = self._observe(batch, indicator, self._wanted)
        parts, subtask_errors = [hidden], None
        if self.subtask is not None:
            learns = actions is not None
            wanted = None if learns else self._wanted
            hidden, cache, chosen = self._say_subtask(known, cache, predict=not learns, wanted=wanted)
            parts.append(self._of_prefix(hidden))
            subtask_errors = self._subtask_errors(hidden, chosen, known) if learns else None
        opening = self._opening(indicator)
        before = cache.present.shape[1] + opening.shape[1]
        errors = None
        if self.speaker is None or self.tokens is None or actions is None or counted is None:
            hidden, cache = self._read(opening, None, cache, causal=True, wanted=self._wanted)
        else:
            spoken, there = self._padded(held(actions, counted), indicator.device)
            tail = torch.cat([opening, self._said(spoken[:, :-1])], dim=1)
            wanted = None if self._wanted is None else spoken.shape[1]
            hidden, cache = self._read(tail, None, cache, causal=True, wanted=wanted)
            predicting = hidden[:, hidden.shape[1] - spoken.shape[1] :]
            errors = self._action_errors(self.speaker.errors(predicting, spoken), there)
            # The start token's state, which predicts the first, is the prefix's last.
            hidden = self._of_prefix(hidden[:, : hidden.shape[1] - spoken.shape[1] + 1])
        parts.append(hidden)
        return self._prefix(torch.cat(parts, dim=1), cache, before), TokenErrors(
            errors, subtask_errors, known != UNKNOWN
        )

    @torch.no_grad()
    def speak(self, batch: Mapping[str, Any], indicator: Tensor) -> Tensor:
        """Chunks (B, T, A) of the most likely action tokens, one after the other."""
        assert self.speaker is not None
        assert self.tokens is not None
        cache = self._context(batch, indicator)
        hidden, cache = self._read(self._opening(indicator), None, cache, causal=True, wanted=1)
        whole = self.tokens.chunk * self.tokens.width
        step, last = steps_after(self._reads, cache, whole), hidden[:, 0]
        counts = self.tokens.numbers.to(indicator.device)
        barred = _barred(counts, whole).to(last.dtype)
        left = torch.full_like(indicator, whole)
        said: list[Tensor] = []
        while True:
            token = (self.speaker.logits(last) + barred[left]).argmax(1)
            said.append(torch.where(left > 0, token, -1))
            left = (left - counts[token]).clamp_min(0)
            if not bool(left.any()):
                break
            last = step(self.speaker.said(token, whole - 1 - left))
        rows = torch.stack(said, dim=1).tolist()
        chunks = self.tokens.decode([[token for token in row if token >= 0] for row in rows])
        return chunks.to(indicator.device)

    def predicted_subtask(self, batch: Mapping[str, Any], indicator: Tensor) -> Tensor:
        """Which of the known sub-tasks is most likely, (B,) int64; words are chosen one after the other."""
        _, cache = self._observe(batch, indicator, 0)
        return self._most_likely(cache, len(indicator))

    def _context(self, batch: Mapping[str, Any], indicator: Tensor) -> Cache:
        _, cache = self._observe(batch, indicator, 0)
        if self.subtask is not None:
            known = batch.get(OBS_SUBTASK)
            known = torch.full_like(indicator, UNKNOWN) if known is None else known
            _, cache, _ = self._say_subtask(known, cache, predict=True, wanted=0)
        return cache

    def _observe(
        self, batch: Mapping[str, Any], indicator: Tensor, wanted: int | None
    ) -> tuple[Tensor, Cache]:
        """What is before everything else; of hidden states all or, as it never is the last, none."""
        seen, present = self._reads.observe(batch, indicator)
        return self._read(seen, present, None, causal=False, wanted=None if wanted is None else 0)

    def _of_prefix(self, hidden: Tensor) -> Tensor:
        """Of the states of some tokens those that the expert reads."""
        return hidden if self._wanted is None else hidden[:, hidden.shape[1] - self._wanted :]

    def _read(
        self,
        tokens: Tensor,
        present: Tensor | None,
        past: Cache | None,
        *,
        causal: bool,
        wanted: int | None = None,
    ) -> tuple[Tensor, Cache]:
        """The hidden states of the last ``wanted`` tokens, or of all; and the cache with all of them."""
        if present is None:
            present = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if isinstance(self.backbone, SmallBackbone):
            return self.backbone.run(tokens, present, past, causal=causal, wanted=wanted)
        hidden, cache = self._reads.run(tokens, present, past, causal=causal)
        return (hidden if wanted is None else hidden[:, hidden.shape[1] - wanted :]), cache

    def _opening(self, indicator: Tensor) -> Tensor:
        """The indicator, where it has a token, and <ACT>: (B, 1 or 2, width)."""
        if self.speaker is None:
            assert self.act is not None
            return self.act.expand(len(indicator), 1, -1)
        act = self.speaker.opening(len(indicator))
        return act if self.indicator is None else torch.cat([self.indicator(indicator)[:, None], act], dim=1)

    def _say_subtask(
        self, known: Tensor, cache: Cache, *, predict: bool, wanted: int | None
    ) -> tuple[Tensor, Cache, Tensor]:
        """Start and words of each sample's sub-task behind the cache: hidden states, cache, and which it is.

        With ``predict`` one that is unknown is predicted first; without, in training, its words do not count
        and are there for none to see. ``wanted`` as in :meth:`_read`.
        """
        assert self.subtask is not None
        assert self.words is not None
        chosen = known
        if predict and bool((known == UNKNOWN).any()):
            chosen = torch.where(known == UNKNOWN, self._most_likely(cache, len(known)), known)
        if predict:
            self.spoken = chosen.tolist()
        words = self.words.rows.to(known.device)[chosen.clamp_min(0)]
        tokens = torch.cat([self.subtask.opening(len(known)), self.subtask.said(words)], dim=1)
        present = (chosen != UNKNOWN)[:, None].expand(-1, tokens.shape[1])
        hidden, cache = self._read(tokens, present, cache, causal=True, wanted=wanted)
        return hidden, cache, chosen

    @torch.no_grad()
    def _most_likely(self, cache: Cache, batch: int) -> Tensor:
        assert self.subtask is not None
        assert self.words is not None
        alive = torch.ones(batch, len(self.words.rows), dtype=torch.bool, device=cache.present.device)
        step = steps_after(self._reads, cache, self.words.length)
        token = self.subtask.opening(batch)[:, 0]
        for place in range(self.words.length):
            logits = self.subtask.logits(step(token))
            word = logits.masked_fill(~self.words.possible(alive, place), -torch.inf).argmax(1)
            alive = self.words.narrowed(alive, place, word)
            if bool((alive.sum(1) == 1).all()):
                break
            token = self.subtask.said(word, torch.full_like(word, place))
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

    def _said(self, tokens: Tensor) -> Tensor:
        """Action tokens (B, n), from a chunk's first on, as (B, n, width).

        A token's place is the last of the chunk's numbers that it stands for: how many there are to a token
        differs in FAST, and which number comes next could hardly be seen from how many tokens there were.
        """
        assert self.speaker is not None
        assert self.tokens is not None
        numbers = self.tokens.numbers.to(tokens.device)[tokens].cumsum(1)
        # Padding behind a chunk's end is seen by none.
        return self.speaker.said(tokens, (numbers - 1).clamp_max(len(self.speaker.places) - 1))

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


def _states_read(config: Gen3VLAConfig) -> int | None:
    """How many of the prefix's last hidden states the expert reads; ``None``: all of them."""
    keys_only = config.conditioning == "cross_attention" and config.bridge == "full_sequence"
    if keys_only or config.action_head in TOKEN_HEADS:
        return 0
    return 1 if config.bridge == "special_token" else None


def _barred(counts: Tensor, whole: int) -> Tensor:
    """What is added to tokens' logits where 0..``whole`` numbers are left: minus infinity to those that
    stand for more numbers than that, else 0; (whole + 1, size).

    Where none is left, a chunk that is whole waits for the others: what it says does not count.
    """
    left = torch.arange(whole + 1, device=counts.device)[:, None]
    fits = ((counts > 0) & (counts <= left)) | (left == 0)
    return torch.zeros(fits.shape, device=counts.device).masked_fill(~fits, -torch.inf)

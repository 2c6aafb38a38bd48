"""Reads a value out of a generative vision-language model: one more token after the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.vlm.images import image_features, image_places
from pipeline.vlm.prompts import PADDING_TOKEN, Family, PromptTokens
from value_model.value_network import check_task
from value_model.vlm_config import VlmNetworkConfig


class GenerativeReader(nn.Module):
    """The prompt (all cameras' images and the task), then the state, then a learned value token.

    The value token's last hidden state, which has attended to all of the prompt, is what is read out.
    Nothing of the prompt attends to it: a frozen backbone therefore runs over the prompt without keeping
    activations, and only the tokens that are learned pass through it with gradients.
    """

    def __init__(self, model: Any, tokenizer: Any, family: Family, config: VlmNetworkConfig) -> None:
        """``model``, ``tokenizer``: of the backbone. Fresh weights from torch's global generator."""
        super().__init__()
        self.family = family
        self.frozen = config.tune == "frozen"
        self.word_limit, self.cameras = config.words, config.cameras
        self.image_places = image_places(model, family)
        self.prompt = PromptTokens(model, tokenizer, family, self.image_places)
        self.length = len(self.prompt.prompt([], self.cameras)) + config.words
        self.width = int(model.config.get_text_config().hidden_size)
        # Learned tokens start at the size that the backbone's own have (Gemma's are scaled up).
        sample = model.get_input_embeddings()(torch.arange(16, device=model.device))
        self.scale = float(sample.detach().float().std())
        self.value_token = nn.Parameter(self.scale * torch.randn(1, 1, self.width))
        self.state = nn.Linear(config.state_size, self.width) if config.state_size else None

    def tokenize(self, tasks: Sequence[str]) -> Tensor:
        """The whole prompt with places for the images, int64 ``(len(tasks), length)``, padded at its end."""
        rows = torch.full((len(tasks), self.length), PADDING_TOKEN, dtype=torch.int64)
        for row, task in enumerate(tasks):
            check_task(task)
            words = self.prompt.ids(task.strip())
            if len(words) > self.word_limit:
                raise InputError(
                    f"the task {task!r} takes {len(words)} of the backbone's tokens, and {self.word_limit} "
                    "are read: shorten it, or set words higher"
                )
            prompt = self.prompt.prompt(words, self.cameras)
            rows[row, : len(prompt)] = torch.tensor(prompt)
        return rows

    def forward(self, model: Any, pixels: Tensor, state: Tensor | None, tokens: Tensor) -> Tensor:
        """The value token's last hidden state, ``(B, width)``.

        ``pixels``: ``(B, cameras, 3, side, side)``; ``state``: ``(B, state_size)`` normalised, or None.
        """
        tokens = tokens[:, : int((tokens != PADDING_TOKEN).sum(1).max())]
        with torch.no_grad() if self.frozen else nullcontext():
            images = image_features(model, pixels, self.family)
            prompt = self.prompt.embedded(model, tokens, images)
        learned = self._learned(state, len(pixels)).to(prompt.dtype)
        present = tokens != PADDING_TOKEN
        positions = present.cumsum(1).sub(1).clamp_(min=0) + self.family.first_position
        after = torch.arange(1, 1 + learned.shape[1], device=tokens.device)
        after = after + (present.sum(1, keepdim=True) - 1 + self.family.first_position)
        decoder = model.get_decoder()
        everything = torch.cat([present, present.new_ones(learned.shape[:2])], dim=1)
        if self.frozen and torch.is_grad_enabled():
            with torch.no_grad():
                cache = decoder(
                    inputs_embeds=prompt,
                    attention_mask=self._mask(present, prompt),
                    position_ids=positions,
                    use_cache=True,
                ).past_key_values
            hidden = decoder(
                inputs_embeds=learned,
                attention_mask=everything,
                position_ids=after,
                past_key_values=cache,
                use_cache=True,
            )
        else:
            hidden = decoder(
                inputs_embeds=torch.cat([prompt, learned], dim=1),
                attention_mask=self._mask(everything, prompt),
                position_ids=torch.cat([positions, after], dim=1),
                use_cache=False,
            )
        return hidden.last_hidden_state[:, -1]

    def _learned(self, state: Tensor | None, batch: int) -> Tensor:
        value = self.value_token.expand(batch, 1, -1)
        if self.state is None or state is None:
            return value
        return torch.cat([self.scale * self.state(state)[:, None], value], dim=1)

    def _mask(self, present: Tensor, prompt: Tensor) -> Tensor:
        """The mask over ``present`` ``(B, any)``: a causal one is left to the language model to make."""
        if not self.family.prompt_sees_itself:
            return present
        total = present.shape[1]
        steps = torch.arange(total, device=present.device)
        seen = (steps[None, :] <= steps[:, None]) | (steps[None, :] < prompt.shape[1])
        allowed = seen[None, None] & present[:, None, None, :]
        return torch.zeros(allowed.shape, dtype=prompt.dtype, device=prompt.device).masked_fill_(
            ~allowed, torch.finfo(prompt.dtype).min
        )

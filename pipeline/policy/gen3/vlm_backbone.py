"""A pretrained vision-language model as backbone: SmolVLM, Idefics3, PaliGemma, LLaVA, from a folder.

What it is shown is its own family's prompt (:mod:`pipeline.vlm.prompts`): images between their markers, the
task, and attention as it was trained with; its images are prepared as its own preprocessor does it. The
state follows the prompt, which does not attend to it (pi0's blocks): to the pretrained part nothing is new.
Sub-tasks and action tokens have embeddings and logits of their own: the model's vocabulary stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lerobot.utils.constants import OBS_STATE
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.encoders_gen3_vla import StateEncoder, augmented
from pipeline.policy.gen3.observations import STATE_IS_PAD
from pipeline.policy.gen3.stems import StateTokens, state_bins
from pipeline.policy.gen3.transformer import Cache, allowed_keys
from pipeline.prompts import INDICATOR_NAMES, NONE, parse_prompt, prompt
from pipeline.subtask_prompts import split_subtask
from pipeline.vlm.files import Backbone, find_backbone, load_backbone, model_type
from pipeline.vlm.images import ImagePreparation, image_features, image_places
from pipeline.vlm.prompts import PADDING_TOKEN, PromptTokens, family_of

_NAMES = {code - NONE: name for code, name in INDICATOR_NAMES.items()}


def build_vlm_backbone(config: Gen3VLAConfig) -> VlmBackbone:
    """Loads what ``config.vlm`` names; a folder without weights gives random ones, to be loaded over.

    A hub id is looked for on this machine alone: nothing is downloaded, and no code of the folder is run.
    Raises ``InputError``, one line, where it cannot be loaded or is of another family.
    """
    weights = not Path(config.vlm).is_dir()
    folder = find_backbone(config.vlm, weights=weights)
    family_of(model_type(folder))
    return VlmBackbone(config, load_backbone(folder, getattr(torch, config.vlm_dtype), weights=weights))


class VlmBackbone(nn.Module):
    """See :class:`pipeline.policy.gen3.transformer.Backbone`."""

    def __init__(self, config: Gen3VLAConfig, backbone: Backbone) -> None:
        """Takes the loaded backbone over."""
        super().__init__()
        model: Any = backbone.model
        self.config, self.model = config, model
        self.tokenizer, self.image_processor = backbone.tokenizer, backbone.image_processor
        text = model.config.get_text_config()
        self.width, self.layer_count = int(text.hidden_size), int(text.num_hidden_layers)
        size = getattr(text, "head_dim", None) or self.width // text.num_attention_heads
        self.key_width = int(size * text.num_key_value_heads)
        sample = model.get_input_embeddings()(torch.arange(16, device=model.device))
        self.scale = float(sample.detach().float().std())
        self.family = family_of(model.config.model_type)
        self.images = ImagePreparation(backbone.image_processor, model.config.vision_config.image_size)
        self.prompt = PromptTokens(model, backbone.tokenizer, self.family, image_places(model, self.family))
        self.features = StateEncoder(config)
        self.state = StateTokens(config, self.width, self.scale) if config.state_input != "text" else None
        self.step_count = config.n_obs_steps if config.history == "interleaved" else 1
        apart = self.scale * torch.randn(self.step_count, 1, self.width)
        self.steps = nn.Parameter(apart) if self.step_count > 1 else None
        if config.gradient_checkpointing:
            # The image tower alone has most of the activations; the decoder's keys and values are needed.
            tower = model.vision_model if hasattr(model, "vision_model") else model.vision_tower
            tower.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def save_shape(self, folder: Path) -> None:
        """Writes configuration, tokenizer and image preprocessor: all but the weights."""
        self.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def last_only(self) -> list[nn.Module]:
        """What only last hidden states depend on."""
        decoder = self.model.get_decoder()
        last = decoder.layers[-1]
        return [
            last.self_attn.q_proj,
            last.self_attn.o_proj,
            last.post_attention_layernorm,
            last.mlp,
            decoder.norm,
        ]

    def observe(self, batch: Mapping[str, Any], indicator: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Backbone`: the family's prompt with the images of all steps, then their states."""
        state = batch[OBS_STATE]
        states = state if self.steps is None else state.flatten(0, 1)
        tokens = self.prompt_tokens(batch, indicator)
        there = tokens != PADDING_TOKEN
        absent = batch.get(STATE_IS_PAD) if self.steps is not None else None
        if absent is not None:
            # Of steps before the episode's start neither images nor their markers are there.
            length = len(self.config.image_features) * self.prompt.image_length
            places = absent.repeat_interleave(length, dim=1)
            first = self.prompt.before_images
            there[:, first : first + places.shape[1]] &= ~places
        seen = [self.prompt.embedded(self.model, tokens, self._images(batch))]
        present = [there]
        if self.state is not None:
            said = self.state(states, cast(nn.Embedding, None)).unflatten(0, (-1, self.step_count))
            said = (said if self.steps is None else said + self.steps).flatten(1, 2)
            seen.append(said.to(seen[0].dtype))
            new = torch.ones(said.shape[:2], dtype=torch.bool, device=said.device)
            present.append(new if absent is None else ~absent.repeat_interleave(self.state.count, dim=1))
        return torch.cat(seen, dim=1), torch.cat(present, dim=1)

    def prompt_tokens(self, batch: Mapping[str, Any], indicator: Tensor) -> Tensor:
        """Each sample's prompt as the model's own tokens (B, L), padded by ``PADDING_TOKEN`` at its end."""
        tasks = batch.get("task")
        if not isinstance(tasks, list) or len(tasks) != len(indicator):
            raise InputError("the batch has no task text: put one prompt per sample under 'task'")
        texts = [split_subtask(parse_prompt(text)[0])[0] for text in tasks]
        if self.config.indicator_input == "text":
            texts = [prompt(t, _NAMES[i]) for t, i in zip(texts, indicator.tolist(), strict=True)]
        if self.config.state_input == "text":
            state = batch[OBS_STATE]
            present = state[:, -1] if state.ndim == 3 else state
            rows = state_bins(self.features(present)).tolist()
            texts = [f"{t}. State: {' '.join(map(str, r))}" for t, r in zip(texts, rows, strict=True)]
        words = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        images = len(self.config.image_features) * self.step_count
        ids = [self.prompt.prompt(row, images) for row in words]
        length = max(map(len, ids))
        padded = [row + [PADDING_TOKEN] * (length - len(row)) for row in ids]
        return torch.tensor(padded, device=indicator.device)

    def run(
        self, tokens: Tensor, present: Tensor, past: Cache | None, *, causal: bool
    ) -> tuple[Tensor, Cache]:
        """See :class:`Backbone`; also without ``causal``, a family whose prompt is causal reads it so.

        Where a prompt sees itself, it does not see the state behind it.
        """
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        before = 0
        if past is not None:
            for layer, (keys, values) in enumerate(past.layers):
                cache.update(keys, values, layer)
            before = past.present.shape[1]
            present = torch.cat([past.present, present], dim=1)
        whole = self.family.prompt_sees_itself and not causal
        allowed = allowed_keys(present, tokens.shape[1], causal=not whole)
        if whole and past is None and self.state is not None:
            states = self.state.count * self.step_count
            after = torch.arange(tokens.shape[1], device=tokens.device) >= tokens.shape[1] - states
            allowed = allowed & (after[:, None] | ~after)
        tokens = tokens.to(self.model.dtype)
        mask = torch.zeros(allowed.shape, dtype=tokens.dtype, device=tokens.device)
        places = present.cumsum(1).sub(1).clamp_min(0)[:, before:] + self.family.first_position
        hidden = self.model.get_decoder()(
            inputs_embeds=tokens,
            # Autocast would turn float32's lowest number into bfloat16's infinity.
            attention_mask=mask.masked_fill(~allowed, torch.finfo(torch.bfloat16).min),
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        )
        layers = tuple((layer.keys, layer.values) for layer in hidden.past_key_values.layers)
        return hidden.last_hidden_state.float(), Cache(present, layers)

    def _images(self, batch: Mapping[str, Any]) -> Tensor:
        """All images' tokens, one after the other, each sample's steps oldest first, (any, width)."""
        cameras = []
        for key in self.config.image_features:
            images = batch[key] if self.steps is None else batch[key].flatten(0, 1)
            bytewise = (augmented(images, self.config, training=self.training) + 1) * 127.5
            cameras.append(self.images.prepared(bytewise.clamp(0, 255)))
        pixels = torch.stack(cameras, dim=1).unflatten(0, (-1, self.step_count)).flatten(1, 2)
        rows = image_features(self.model, pixels.to(self.model.dtype), self.family)
        if self.steps is None:
            return rows
        return (rows.view(len(pixels), self.step_count, -1, self.width) + self.steps).flatten(0, 2)

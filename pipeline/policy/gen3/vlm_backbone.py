"""A pretrained vision-language model as backbone: SmolVLM, Idefics3, PaliGemma, from a folder or hub id.

The sequence is that of PaliGemma (arXiv 2407.07726, section 3.1): every camera's image, then the text; it
sees itself whole, as pi0's first block does. Sub-tasks and action tokens have embeddings and logits of
their own: the model's vocabulary stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lerobot.utils.constants import OBS_STATE
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.encoders_gen3_vla import StateEncoder, augmented
from pipeline.policy.gen3.stems import StateTokens, state_bins
from pipeline.policy.gen3.subtasks import split_subtask
from pipeline.policy.gen3.transformer import Cache, allowed_keys, interleaved
from pipeline.prompts import INDICATOR_NAMES, NONE, parse_prompt, prompt

_FAMILIES = ("smolvlm", "idefics3", "paligemma")
_NAMES = {code - NONE: name for code, name in INDICATOR_NAMES.items()}


def build_vlm_backbone(config: Gen3VLAConfig) -> VlmBackbone:
    """Loads what ``config.vlm`` names; a folder without weights gives random ones, to be loaded over.

    Nothing is downloaded, and no code of the folder is run. Raises ``InputError``, one line, where it cannot
    be loaded or is of another family.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    only: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    dtype = getattr(torch, config.vlm_dtype)
    folder = Path(config.vlm)
    try:
        shape = AutoConfig.from_pretrained(config.vlm, **only)
        if shape.model_type not in _FAMILIES:
            raise InputError(f"vlm {config.vlm} is of type {shape.model_type!r}; use {', '.join(_FAMILIES)}")
        loader: Any = AutoModelForImageTextToText
        if folder.is_dir() and not any(folder.glob("*.safetensors")):
            whole = loader.from_config(shape, trust_remote_code=False).to(dtype)
        else:
            whole = loader.from_pretrained(config.vlm, dtype=dtype, use_safetensors=True, **only)
        tokenizer = AutoTokenizer.from_pretrained(config.vlm, **only)
        images = AutoImageProcessor.from_pretrained(config.vlm, **only)
    except InputError:
        raise
    except Exception as error:  # Transformers' loaders raise almost any type over a damaged file
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"vlm {config.vlm} cannot be loaded: {reason}") from error
    return VlmBackbone(config, whole.base_model, tokenizer, images)


class VlmBackbone(nn.Module):
    """See :class:`pipeline.policy.gen3.transformer.Backbone`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Gen3VLAConfig, model: Any, tokenizer: Any, image_processor: Any) -> None:
        """``model``: the Transformers model without language-model head."""
        super().__init__()
        self.config, self.tokenizer, self.image_processor = config, tokenizer, image_processor
        self.model = model
        text = model.config.get_text_config()
        self.width, self.layer_count = int(text.hidden_size), int(text.num_hidden_layers)
        size = getattr(text, "head_dim", None) or self.width // text.num_attention_heads
        self.key_width = int(size * text.num_key_value_heads)
        sample = model.get_input_embeddings()(torch.arange(16, device=model.device))
        self.scale = float(sample.detach().float().std())
        self.side = int(model.config.vision_config.image_size)
        self.features = StateEncoder(config)
        self.state = StateTokens(config, self.width, self.scale) if config.state_input != "text" else None
        steps = config.n_obs_steps if config.history == "interleaved" else 1
        self.steps = nn.Parameter(self.scale * torch.randn(steps, 1, self.width)) if steps > 1 else None
        for name, value in (("mean", image_processor.image_mean), ("std", image_processor.image_std)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

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
        """See :class:`Backbone`: images and state of each step, then the text."""
        seen, present = interleaved(batch, self.steps, self._step)
        ids, there = self._text(batch, indicator)
        words = self.model.get_input_embeddings()(ids)
        return torch.cat([seen, words], dim=1), torch.cat([present, there], dim=1)

    def run(
        self, tokens: Tensor, present: Tensor, past: Cache | None, *, causal: bool
    ) -> tuple[Tensor, Cache]:
        """See :class:`Backbone`."""
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        before = 0
        if past is not None:
            for layer, (keys, values) in enumerate(past.layers):
                cache.update(keys, values, layer)
            before = past.present.shape[1]
            present = torch.cat([past.present, present], dim=1)
        allowed = allowed_keys(present, tokens.shape[1], causal=causal)
        tokens = tokens.to(self.model.dtype)
        mask = torch.zeros(allowed.shape, dtype=tokens.dtype, device=tokens.device)
        places = present.cumsum(1).sub(1).clamp_min(0)[:, before:]
        hidden = self.model.get_decoder()(
            inputs_embeds=tokens,
            attention_mask=mask.masked_fill(~allowed, torch.finfo(tokens.dtype).min),
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        )
        layers = tuple((layer.keys, layer.values) for layer in hidden.past_key_values.layers)
        return hidden.last_hidden_state.float(), Cache(present, layers)

    def _step(self, batch: Mapping[str, Any]) -> Tensor:
        """Every camera's image tokens, and the state's, (B, n, width)."""
        state = batch[OBS_STATE]
        cameras = torch.stack([self._pixels(batch[key]) for key in self.config.image_features], dim=1)
        family = self.model.config.model_type
        pixels = cameras.flatten(0, 1) if family == "paligemma" else cameras
        found = self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)).pooler_output
        rows = found if isinstance(found, Tensor) else torch.cat(list(found))
        seen = rows.reshape(len(state), -1, self.width)
        if self.state is None:
            return seen
        return torch.cat([seen, self.state(state, cast(nn.Embedding, None)).to(seen.dtype)], dim=1)

    def _pixels(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), augmented in training, as the image tower wants them."""
        unit = (augmented(images, self.config, training=self.training) + 1) / 2
        size = (self.side, self.side)
        unit = F.interpolate(unit, size=size, mode="bilinear", antialias=True, align_corners=False)
        return (unit.clamp(0, 1) - self.mean) / self.std

    def _text(self, batch: Mapping[str, Any], indicator: Tensor) -> tuple[Tensor, Tensor]:
        """Each sample's text as the model's own tokens (B, L), padded at its end, and which are there."""
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
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        ids = [start + self.tokenizer(f"{t}\n", add_special_tokens=False)["input_ids"] for t in texts]
        length = max(map(len, ids))
        padded = [row + [0] * (length - len(row)) for row in ids]
        lengths = torch.tensor([len(row) for row in ids], device=indicator.device)
        there = torch.arange(length, device=indicator.device) < lengths[:, None]
        return torch.tensor(padded, device=indicator.device), there

"""A Qwen3-VL of a hundred thousand random weights with tokenizer and processor; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Only what a reward model needs: one film or picture, then text.
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{% for c in m['content'] %}"
    "{% if c['type']=='video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c['type']=='image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{c['text']}}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)
_PATCHES = {"patch_size": 8, "temporal_patch_size": 2}
_TOWER = {"hidden_size": 32, "intermediate_size": 48}


def build_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Writes the model into ``folder`` and returns that."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = _write_processor(folder)
    number = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL}
    text = _TOWER | {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [2, 3, 3],
            "mrope_interleaved": True,
            "rope_theta": 10000.0,
        },
    }
    vision = (
        _TOWER
        | _PATCHES
        | {
            "depth": 2,
            "num_heads": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        }
    )
    settings: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "image_token_id": number["<|image_pad|>"],
        "video_token_id": number["<|video_pad|>"],
        "vision_start_token_id": number["<|vision_start|>"],
        "vision_end_token_id": number["<|vision_end|>"],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Qwen3VLForConditionalGeneration(Qwen3VLConfig(**settings)).save_pretrained(folder)
    return folder


def _write_processor(folder: Path) -> Any:
    """The processor's files; returns its tokenizer, which knows single bytes and the word " True"."""
    from tokenizers import Tokenizer, decoders, models  # type: ignore[import-untyped]  # ships no types
    from tokenizers.pre_tokenizers import ByteLevel  # type: ignore[import-untyped]  # ships no types
    from transformers import Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    words = [*sorted(ByteLevel.alphabet()), "ĠT", "ru", "rue", "ĠTrue"]
    merges = [("Ġ", "T"), ("r", "u"), ("ru", "e"), ("ĠT", "rue")]
    bytes_and_true = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    bytes_and_true.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bytes_and_true.decoder = decoders.ByteLevel()
    tokenizer = Qwen2Tokenizer(
        tokenizer_object=bytes_and_true,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(_SPECIAL),
    )
    sizes = {"shortest_edge": 16 * 16, "longest_edge": 32 * 32 * 16}
    pictures = Qwen2VLImageProcessor(**_PATCHES, merge_size=2, size=sizes)
    films = Qwen3VLVideoProcessor(**_PATCHES, merge_size=2, size=sizes)
    Qwen3VLProcessor(pictures, tokenizer, films, chat_template=_TEMPLATE).save_pretrained(folder)
    return tokenizer

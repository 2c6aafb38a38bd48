"""Backbones on disk with random weights, as Hugging Face checkpoints look; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import (  # type: ignore[import-untyped]  # ships no types
    Tokenizer,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

from pipeline.vlm.files import quiet_transformers

Family = Literal["siglip", "clip", "smolvlm", "idefics3", "paligemma", "llava"]
FAMILIES: tuple[Family, ...] = ("siglip", "clip", "smolvlm", "idefics3", "paligemma", "llava")

SPECIAL_TOKENS = (
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    "<|im_start|>",
)
_TEXTS = ["pick up the red cube and the blue cube", "stack it on the plate", "User: ASSISTANT: \n", "a b c"]
_PATCH, _SIDE, _VOCABULARY = 8, 16, 320
_IMAGE_TOKEN = SPECIAL_TOKENS.index("<image>")
_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def build_backbone(
    folder: Path,
    size: Literal["tiny", "300m"] = "tiny",
    family: Family = "siglip",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes a backbone into ``folder`` and returns that.

    ``tiny`` has some fifty thousand parameters and 16 px images. ``300m`` is a SigLIP of 0.3 G parameters
    with 224 px images, 196 patches each: as large and as slow as a pretrained one, and as stupid as any
    with random weights. ``dtype`` is what the weights are stored in.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _random_model(family, size)
    with quiet_transformers():
        model.to(dtype).save_pretrained(folder)
    model_type = model.config.model_type
    side = model.config.vision_config.image_size
    _write_tokenizer(folder, adds_end=model_type in ("siglip", "clip"))
    (folder / "preprocessor_config.json").write_text(json.dumps(_preprocessor(model_type, side), indent=1))
    return folder


def _random_model(family: Family, size: Literal["tiny", "300m"]) -> Any:
    import transformers

    class_name, shape = (_SIGLIP, _siglip_300m()) if size == "300m" else (_CLASSES[family], _tiny(family))
    model_class = getattr(transformers, class_name)
    return model_class(model_class.config_class.from_dict(shape))


_SIGLIP = "SiglipModel"
_CLASSES: dict[Family, str] = {
    "siglip": _SIGLIP,
    "clip": "CLIPModel",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "paligemma": "PaliGemmaForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
}


def _tiny(family: Family) -> dict[str, Any]:
    """The configuration of a tiny model: two layers of width 32 in each of its towers."""
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = tower | {"image_size": _SIDE, "patch_size": _PATCH}
    text: dict[str, Any] = tower | _ENDS | {"vocab_size": _VOCABULARY, "max_position_embeddings": 128}
    # Attention that weights of the usual 0.02 hardly move would hide what is wrong with masks.
    text["initializer_range"] = 0.1
    llama = text | {"model_type": "llama", "num_key_value_heads": 2}
    if family in ("siglip", "clip"):
        towers = {"vision_config": vision, "text_config": text | {"max_position_embeddings": 32}}
        return towers | {"projection_dim": 16}
    if family == "llava":
        clip = vision | {"model_type": "clip_vision_model"}
        return {"vision_config": clip, "text_config": llama, "image_token_index": _IMAGE_TOKEN}
    if family == "paligemma":
        siglip = vision | {"model_type": "siglip_vision_model", "vision_use_head": False}
        gemma = text | {"model_type": "gemma", "head_dim": 16, "num_key_value_heads": 1}
        widths = {"projection_dim": 32, "hidden_size": 32}
        return {"vision_config": siglip, "text_config": gemma, "image_token_index": _IMAGE_TOKEN} | widths
    ids = {"image_token_id": _IMAGE_TOKEN, "pad_token_id": 0}
    return {"vision_config": vision, "text_config": llama, "scale_factor": 2} | ids


def _siglip_300m() -> dict[str, Any]:
    """An image tower with 16 px patches, 15 layers wide as SigLIP-large's, and SigLIP-base's text tower."""
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 15,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 16,
    }
    text = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 32000,
        "max_position_embeddings": 64,
        "projection_size": 1024,
    }
    return {"vision_config": vision, "text_config": text | _ENDS}


def _write_tokenizer(folder: Path, adds_end: bool) -> None:
    """A byte-pair tokenizer trained on a few lines; dual encoders' add an end to every text."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    if adds_end:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 2)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def _preprocessor(model_type: str, side: int) -> dict[str, Any]:
    clip_like = model_type in ("clip", "llava")
    kinds = {"smolvlm": "SmolVLM", "idefics3": "Idefics3", "clip": "CLIP", "llava": "CLIP"}
    edges = {"longest_edge": side} if model_type in ("smolvlm", "idefics3") else None
    return {
        "image_processor_type": f"{kinds.get(model_type, 'Siglip')}ImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "crop_size": {"height": side, "width": side},
        "size": edges or {"height": side, "width": side},
        "image_mean": [0.48145466, 0.4578275, 0.40821073] if clip_like else [0.5, 0.5, 0.5],
        "image_std": [0.26862954, 0.26130258, 0.27577711] if clip_like else [0.5, 0.5, 0.5],
    }

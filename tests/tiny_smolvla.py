"""Tiny policies of LeRobot's own types: a SmolVLA around a SmolVLM of fifty thousand random weights, an ACT.

Nothing is downloaded: the backbone's model, tokenizer and processor are written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_backbone import build_backbone

# SmolVLA on the backbone of build_smolvlm, small enough for a step in a tenth of a second.
_SMOLVLA: dict[str, Any] = {
    "num_vlm_layers": 2,
    "chunk_size": 4,
    "n_action_steps": 2,
    "resize_imgs_with_padding": [32, 32],
    "num_steps": 2,
    "max_state_dim": 16,
    "max_action_dim": 8,
    "tokenizer_max_length": 32,
    "expert_width_multiplier": 0.5,
}
TINY_ACT: dict[str, Any] = {
    "pretrained_backbone_weights": None,
    "dim_model": 32,
    "n_heads": 2,
    "dim_feedforward": 32,
    "n_encoder_layers": 1,
    "chunk_size": 4,
    "n_action_steps": 2,
    "use_vae": False,
}
TINY_DIFFUSION: dict[str, Any] = {
    "pretrained_backbone_weights": None,
    "down_dims": [16, 32],
    "horizon": 8,
    "n_action_steps": 4,
    "num_train_timesteps": 10,
    "num_inference_steps": 2,
    "diffusion_step_embed_dim": 16,
    "n_groups": 4,
}
TINY_GEN3: dict[str, Any] = {"vision_channels": [8, 8, 8], "width": 32, "expert_hidden": 32}


def build_smolvlm(folder: Path, seed: int = 0) -> Path:
    """Writes a SmolVLM into ``folder``, with all that SmolVLA asks of it, and returns that."""
    from transformers import AutoTokenizer, SmolVLMImageProcessor, SmolVLMProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    build_backbone(folder, family="smolvlm", seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(
        folder,
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    edge = {"size": {"longest_edge": 16}, "max_image_size": {"longest_edge": 16}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**edge),
        tokenizer,
        SmolVLMVideoProcessor(**edge),
        chat_template="{{ messages }}",
    )
    processor.save_pretrained(folder)
    return folder


def smolvla_options(vlm: Path) -> dict[str, Any]:
    """The options of a tiny SmolVLA around the backbone in ``vlm``."""
    return {**_SMOLVLA, "vlm_model_name": str(vlm)}

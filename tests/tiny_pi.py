"""π0 and π0.5 of thirty thousand weights, and the tokenizer that they ask a hub for; nothing is downloaded.

LeRobot 0.6.1 builds them in two sizes, both of billions of weights. Here its own classes build them, only of
narrower layers: the sizes are replaced where LeRobot looks them up, and everything else is its own code.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_backbone import build_backbone

TOKENIZER = "google/paligemma-3b-pt-224"
SIDE = 32
_WIDTHS = {"gemma_2b": 32, "gemma_300m": 16}
_VOCABULARY = 320

# With these it takes a step in a tenth of a second.
TINY_PI: dict[str, Any] = {
    "chunk_size": 4,
    "n_action_steps": 2,
    "num_inference_steps": 2,
    "image_resolution": [SIDE, SIDE],
    "max_state_dim": 16,
    "max_action_dim": 8,
    # π0.5 writes fifteen numbers into its prompt, of which this tokenizer makes a token a digit.
    "tokenizer_max_length": 128,
}


def tiny_pi(monkeypatch: pytest.MonkeyPatch, folder: Path, policy_type: str) -> dict[str, Any]:
    """Until ``monkeypatch`` is undone LeRobot builds ``policy_type`` tiny; its options.

    ``folder`` becomes the place of what was fetched from the hub, the tokenizer in it.
    """
    modeling = importlib.import_module(f"lerobot.policies.{policy_type}.modeling_{policy_type}")

    def narrow(variant: str) -> Any:
        width = _WIDTHS[variant]
        return modeling.GemmaConfig(
            # LeRobot writes the eight heads into its attention.
            width=width, depth=2, mlp_dim=width, num_heads=8, num_kv_heads=1, head_dim=8
        )  # fmt: skip

    vlm, expert = modeling.PaliGemmaForConditionalGenerationWithPiGemma, modeling.PiGemmaForCausalLM

    def narrow_vlm(config: Any) -> Any:
        config.image_token_index = config.text_config.vocab_size = _VOCABULARY
        seen = config.vision_config
        seen.hidden_size = seen.intermediate_size = 16
        seen.num_hidden_layers, seen.num_attention_heads, seen.patch_size = 1, 2, 16
        seen.projection_dim = config.projection_dim = config.text_config.hidden_size
        return vlm(config)

    def narrow_expert(config: Any) -> Any:
        config.vocab_size = 8
        return expert(config)

    monkeypatch.setattr(modeling, "get_gemma_config", narrow)
    monkeypatch.setattr(modeling, "PaliGemmaForConditionalGenerationWithPiGemma", narrow_vlm)
    monkeypatch.setattr(modeling, "PiGemmaForCausalLM", narrow_expert)
    put_tokenizer(monkeypatch, folder)
    return dict(TINY_PI)


def put_tokenizer(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Has the hub's libraries find a tiny tokenizer under PaliGemma's name in ``cache``, as if fetched."""
    repository = cache / f"models--{TOKENIZER.replace('/', '--')}"
    commit = "0" * 40
    build_backbone(repository / "snapshots" / commit, family="paligemma")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))

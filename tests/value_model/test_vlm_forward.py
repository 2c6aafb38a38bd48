"""What a backbone is shown and what is read out of it, for every family, with tiny random checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import InputError
from tests.tiny_backbone import FAMILIES, Family, build_backbone
from value_model.network import ValueNetwork, VlmNetworkConfig, build_network, flops_per_frame

GENERATIVE: tuple[Family, ...] = ("smolvlm", "idefics3", "paligemma", "llava")
SHORT, LONG = "stack it", "pick up the red cube and the blue cube"


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("backbones")
    return {family: build_backbone(folder / family, family=family) for family in FAMILIES}


def config_for(folder: Path, **changes: Any) -> VlmNetworkConfig:
    shape = VlmNetworkConfig(
        backbone=str(folder), cameras=2, image_size=24, state_size=3, precision="float32", readout_width=32
    )
    return replace(shape, **changes)


def build(folder: Path, seed: int = 0, **changes: Any) -> ValueNetwork:
    torch.manual_seed(seed)
    return build_network(config_for(folder, **changes)).eval()


def frames(count: int, seed: int = 0, size: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 2, size, size, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randn(count, 3, generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_value_depends_on_its_own_frame_only(family: Family, backbones: dict[str, Path]) -> None:
    network = build(backbones[family])
    images, state = frames(4)
    tokens = network.tokenize([SHORT, LONG])[[0, 1, 0, 1]]

    together = network(images, state, tokens)
    alone = torch.cat([network(images[i : i + 1], state[i : i + 1], tokens[i : i + 1]) for i in range(4)])

    assert together.shape == (4, 201)
    assert together.dtype == torch.float32
    # SHORT is padded to LONG's length in the batch and not alone.
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[2]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_input_has_a_say(family: Family, backbones: dict[str, Path]) -> None:
    network = build(backbones[family])
    images, state = frames(1)
    tokens = network.tokenize([LONG])
    value = network(images, state, tokens)

    others = {
        "cameras swapped": network(images.flip(1), state, tokens),
        "second camera": network(torch.stack([images[:, 0], 255 - images[:, 1]], 1), state, tokens),
        "state": network(images, state + 1, tokens),
        "task": network(images, state, network.tokenize([LONG.replace("red", "green")])),
        "word order": network(images, state, network.tokenize(["pick up the blue cube and the red cube"])),
    }
    changes = {name: float((other - value).abs().max()) for name, other in others.items()}
    assert min(changes.values()) > 1e-4, changes


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_state_is_optional_and_normalised(family: Family, backbones: dict[str, Path]) -> None:
    blind = build(backbones[family], state_size=0)
    images, state = frames(2)
    tokens = blind.tokenize([SHORT, LONG])
    assert torch.equal(blind(images, state, tokens), blind(images, state + 1, tokens))
    blind.fit_inputs(state)

    network = build(backbones[family])
    seen = network(images, state, tokens)
    network.fit_inputs(torch.tensor([[0.0, 0.0, 0.0], [2000.0, 2000.0, 2000.0]]))
    normalised = network(images, state * 1414.2135 + 1000.0, tokens)
    torch.testing.assert_close(normalised, seen, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", GENERATIVE)
@torch.no_grad()
def test_prompt_positions_and_mask_are_the_familys_own(family: Family, backbones: dict[str, Path]) -> None:
    """With a word in the place of the value token, the public ``forward`` gives the same hidden state."""
    network: Any = build(backbones[family], state_size=0)
    images, _ = frames(2)
    tokens = network.tokenize([SHORT, SHORT])
    word = 40
    network.reader.value_token.copy_(network.backbone.get_input_embeddings()(torch.tensor([[word]])))
    pixels = network.images(images)
    ours = network.reader(network.backbone, pixels, None, tokens)

    ids = torch.cat([tokens[:, : int((tokens[0] >= 0).sum())], torch.full((2, 1), word)], dim=1)
    inputs = {"pixel_values": pixels if family in ("smolvlm", "idefics3") else pixels.flatten(0, 1)}
    if family == "paligemma":
        inputs["token_type_ids"] = torch.zeros_like(ids)
        inputs["token_type_ids"][:, -1] = 1
    theirs = network.backbone(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs)

    torch.testing.assert_close(ours, theirs.last_hidden_state[:, -1], atol=1e-5, rtol=1e-4)


def test_prompts_are_those_of_the_familys_processor(backbones: dict[str, Path]) -> None:
    from transformers import AutoImageProcessor, AutoTokenizer, Idefics3Processor, PaliGemmaProcessor

    pictures = [[Image.new("RGB", (16, 16)), Image.new("RGB", (16, 16))]]
    prompts = {
        "idefics3": f"<|im_start|>User:<image><image>{LONG}<end_of_utterance>\nAssistant:",
        "paligemma": f"<image><image>{LONG}",
    }
    for family, prompt in prompts.items():
        network: Any = build(backbones[family])
        tokens = network.tokenize([LONG])[0]
        tokenizer = AutoTokenizer.from_pretrained(backbones[family])
        pictures_of = AutoImageProcessor.from_pretrained(backbones[family])
        options: dict[str, Any] = {}
        processor: Any
        if family == "idefics3":
            processor = Idefics3Processor(pictures_of, tokenizer, image_seq_len=network.reader.image_places)
            options["do_image_splitting"] = False
        else:
            pictures_of.image_seq_length = network.reader.image_places
            # Its own special tokens would get other ids than the checkpoint's.
            tokenizer.image_token, tokenizer.image_token_id = "<image>", network.reader.prompt.image_token
            processor = PaliGemmaProcessor(pictures_of, tokenizer)
        expected = processor(text=[prompt], images=pictures, **options)["input_ids"][0]
        assert tokens[tokens >= 0].tolist() == list(expected)


@pytest.mark.parametrize("size", [12, 16, 24])
def test_images_are_prepared_as_the_backbones_preprocessor_does(
    size: int, backbones: dict[str, Path]
) -> None:
    from transformers import AutoImageProcessor

    for family in ("siglip", "llava"):
        network: Any = build(backbones[family], image_size=max(size, 16))
        smooth = np.linspace(0, 255, size, dtype=np.float32)
        picture = np.stack(np.broadcast_arrays(smooth[:, None], smooth, 255 - smooth), axis=-1).astype(
            np.uint8
        )
        images = torch.as_tensor(np.stack([picture, picture[::-1].copy()]))[None]
        processor = AutoImageProcessor.from_pretrained(backbones[family])
        theirs = processor([Image.fromarray(p) for p in images[0].numpy()], return_tensors="pt")

        # One level of 255 is 0.015 normalised; Pillow rounds to whole levels.
        torch.testing.assert_close(network.images(images)[0], theirs["pixel_values"], atol=0.03, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_bfloat16_agrees_with_float32(family: Family, backbones: dict[str, Path]) -> None:
    exact, low = (build(backbones[family], precision=p) for p in ("float32", "bfloat16"))
    images, state = frames(3)
    tokens = exact.tokenize([SHORT, LONG, LONG])
    expected, found = exact(images, state, tokens), low(images, state, tokens)

    assert found.dtype == torch.float32
    assert next(p for n, p in low.named_parameters() if n.startswith("backbone")).dtype == torch.bfloat16
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("family", ["siglip", "smolvlm"])
def test_tasks_that_cannot_be_read_are_refused(family: Family, backbones: dict[str, Path]) -> None:
    network = build(backbones[family], words=16)
    with pytest.raises(InputError, match="has no word in it"):
        network.tokenize([" .!"])
    with pytest.raises(InputError, match=r"takes \d+ of the backbone's tokens, and 16 are read"):
        network.tokenize([SHORT, "zebra quark " * 12])
    assert network.tokenize([]).shape == (0, network.tokenize([SHORT]).shape[1])


def test_operations_grow_with_cameras(backbones: dict[str, Path]) -> None:
    one, two = (flops_per_frame(build(backbones["siglip"], cameras=c, readout_layers=1)) for c in (1, 2))
    assert one < two < 2 * one

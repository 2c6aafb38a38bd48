"""Saved and loaded models on a backbone, and what is said about one that is missing, damaged or another."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from tests.tiny_backbone import Family, build_backbone
from tests.value_model.test_vlm_forward import LONG, SHORT, config_for, frames
from tests.value_model.test_vlm_tuning import TUNES, step
from value_model.checkpoint import WEIGHTS_NAME, ModelRecord, load_network, read_record, save_checkpoint
from value_model.network import VlmNetworkConfig, build_network, network_config, pin_backbone


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_backbone(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_backbone(tmp_path_factory.mktemp("smolvlm"), family="smolvlm")


def save_trained(out: Path, config: VlmNetworkConfig) -> torch.Tensor:
    """Trains for two steps, saves to ``out``; the logits of three frames."""
    torch.manual_seed(0)
    network = build_network(config)
    network.fit_inputs(torch.randn(50, 3) * 3 + 1)
    step(network.train())
    save_checkpoint(out, network, ModelRecord(0, 0, ("e0",), config, {}, 2, 1.0, None))
    return logits_of(network.eval())


@torch.no_grad()
def logits_of(network: Any) -> torch.Tensor:
    images, state = frames(3)
    return network(images, state, network.tokenize([SHORT, LONG, LONG]))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("family", ["siglip", "smolvlm"])
def test_a_saved_model_gives_the_very_same_values(
    family: str, tune: str, precision: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backbone = request.getfixturevalue(family)
    config = config_for(backbone, tune=tune, precision=precision)
    expected = save_trained(tmp_path, config)
    torch.manual_seed(99)  # what is not loaded would be drawn otherwise

    record = read_record(tmp_path)
    assert isinstance(record.network, VlmNetworkConfig)
    assert replace(record.network, backbone_digest="") == config
    assert torch.equal(logits_of(load_network(tmp_path, record)), expected)

    names = set(load_file(tmp_path / WEIGHTS_NAME))
    in_backbone = {name for name in names if name.startswith("backbone.")}
    if tune == "full":
        assert len(in_backbone) > 10
    else:
        assert all("lora_" in name for name in in_backbone)
        assert bool(in_backbone) == (tune == "lora")


def test_another_backbone_is_refused(siglip: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(siglip, tmp_path / "mine")
    save_trained(tmp_path / "model", config_for(mine))
    record = read_record(tmp_path / "model")
    load_network(tmp_path / "model", record)

    build_backbone(mine, seed=1)
    with pytest.raises(InputError, match="is not the one that this value model was trained on"):
        load_network(tmp_path / "model", record)
    shutil.rmtree(mine)
    with pytest.raises(InputError, match="there is no folder"):
        read_record(tmp_path / "model")


def test_the_digest_is_of_what_decides_the_values(siglip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(siglip, tmp_path / "backbone")

    def digest() -> str:
        pinned = pin_backbone(config_for(folder))
        assert isinstance(pinned, VlmNetworkConfig)
        return pinned.backbone_digest

    first = digest()
    built = build_network(config_for(folder)).config
    assert isinstance(built, VlmNetworkConfig)
    assert built.backbone_digest == first
    (folder / "README.md").write_text("a model card")
    assert digest() == first
    preprocessor = folder / "preprocessor_config.json"
    preprocessor.write_text(preprocessor.read_text().replace("0.5", "0.4"))
    assert digest() != first


def test_weights_of_another_shape_are_refused(siglip: Path, tmp_path: Path) -> None:
    save_trained(tmp_path, config_for(siglip, tune="lora", lora_rank=4))
    record = read_record(tmp_path)
    assert isinstance(record.network, VlmNetworkConfig)
    for other in (replace(record.network, lora_rank=8), replace(record.network, tune="frozen")):
        with pytest.raises(InputError, match=r"do not fit its value.json: .*(missing|shape)"):
            load_network(tmp_path, replace(record, network=other))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "lacks config.json"),
        ("model.safetensors", r"lacks weights \(\*.safetensors\)"),
        ("tokenizer.json", "lacks a tokenizer"),
        ("preprocessor_config.json", "lacks preprocessor_config.json"),
    ],
)
def test_missing_and_damaged_files_are_named(name: str, said: str, siglip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(siglip, tmp_path / "backbone")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be loaded") as damaged:
        build_network(config_for(folder))
    (folder / name).unlink()
    with pytest.raises(InputError, match=said) as missing:
        build_network(config_for(folder))
    assert "\n" not in str(damaged.value) + str(missing.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bert"}, "no image tower"),
        ({"model_type": "no-such-model"}, "cannot be loaded"),
        ({"model_type": "its-own", "auto_map": {"AutoConfig": "code.Shape"}}, "cannot be loaded"),
        ({"vision_config": {"hidden_size": 48, "num_attention_heads": 2}}, "cannot be loaded"),
        ({"text_config": {"num_hidden_layers": 30}}, "lacks [0-9]+ of its weights"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(
    changes: dict[str, Any], said: str, siglip: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(siglip, tmp_path / "backbone")
    shape = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        shape[key] = shape.get(key, {}) | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(shape))
    with pytest.raises(InputError, match=said) as caught:
        build_network(config_for(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("family", ["paligemma", "llava"])
def test_both_ways_to_name_the_weights_are_read(family: Family, tmp_path: Path) -> None:
    """Most released checkpoints name them as Transformers did before 4.52."""
    folder = build_backbone(tmp_path, family=family)
    weights = {
        name.removeprefix("model.").replace("language_model.model.", "language_model."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if "lm_head" not in name
    }
    assert "language_model.norm.weight" in weights
    earlier = {n.replace("language_model.", "language_model.model."): t for n, t in weights.items()}
    networks = []
    for named in (earlier, {f"model.{name}": tensor for name, tensor in weights.items()}):
        save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
        torch.manual_seed(0)
        networks.append(build_network(config_for(folder)).eval())
    assert torch.equal(logits_of(networks[0]), logits_of(networks[1]))


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="with SentencePiece there is no fallback")
def test_siglips_tokenizer_is_read_from_json_without_sentencepiece(siglip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(siglip, tmp_path / "backbone")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": "SiglipTokenizer"}))
    tokens = build_network(config_for(folder)).tokenize([SHORT, LONG])
    assert torch.equal(tokens, build_network(config_for(siglip)).tokenize([SHORT, LONG]))


def test_a_preprocessor_that_cannot_be_followed_is_refused(siglip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(siglip, tmp_path / "backbone")
    settings = folder / "preprocessor_config.json"
    for change, said in (({"resample": 5}, "resamples by"), ({"image_std": [0.5, 0, 0.5]}, "image_std")):
        settings.write_text(json.dumps(json.loads(settings.read_text()) | change))
        with pytest.raises(InputError, match=said):
            build_network(config_for(folder))
        settings.write_text((siglip / settings.name).read_text())


def test_a_model_that_nothing_is_known_of_is_refused(tmp_path: Path) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    build_backbone(tmp_path)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = {
        "vision_config": tower | {"image_size": 16, "patch_size": 8},
        "qformer_config": tower | {"vocab_size": 320, "encoder_hidden_size": 16},
        "text_config": tower
        | {"model_type": "opt", "vocab_size": 320, "ffn_dim": 16, "word_embed_proj_dim": 16},
    }
    model: Any = Blip2ForConditionalGeneration(Blip2Config.from_dict(shape))
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a backbone of type 'blip-2' cannot be read out"):
        build_network(config_for(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": ""}, "name its backbone"),
        ({"backbone": "lab/some-model"}, "use --allow-download"),
        ({"tune": "half"}, "tune 'half'"),
        ({"precision": "float16"}, "precision 'float16'"),
        ({"lora_rank": 0}, "LoRA of rank 0"),
        ({"lora_targets": ()}, "targets name linear layers"),
        ({"cameras": 0}, "0 cameras"),
        ({"words": 0}, "0 words"),
        ({"bins": 200}, "200 bins"),
        ({"readout_width": 30}, "does not divide"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"kind": "small"}, "kind 'vlm', not 'small'"),
    ],
)
def test_contradictions_fail_when_configured(changes: dict[str, Any], said: str, siglip: Path) -> None:
    with pytest.raises(InputError, match=said):
        config_for(siglip, **changes)


def test_a_hub_id_is_only_looked_up_when_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allowed, it is asked for at the Hub (here: a port that nobody listens on)."""
    allowed = VlmNetworkConfig(backbone="lab/some-model", allow_download=True)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="lab/some-model could not be downloaded") as caught:
        build_network(allowed)
    assert "\n" not in str(caught.value)


def test_configurations_survive_json(siglip: Path) -> None:
    config = config_for(siglip, lora_targets=("q_proj", "v_proj"))
    assert network_config(json.loads(json.dumps(asdict(config)))) == config

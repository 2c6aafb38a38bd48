"""π0 and π0.5 through the door: trained, tuned, killed and continued, saved, loaded, driving the arm.

They are LeRobot's own, built of narrow layers: :mod:`tests.tiny_pi`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS
from safetensors.torch import load_file, save_file

from pipeline.episode import STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.policy.hub_files import require_tokenizer
from pipeline.policy.loaded_weights import require_loaded
from pipeline.policy.new_policy import PATH, fits, new_checkpoint, table_facts
from pipeline.policy.policy_frames import PolicyFrames
from pipeline.policy.runner import PolicyRunner
from pipeline.policy.training_statistics import table_statistics
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from tests.policy_tables import RED, random_table, train_tiny
from tests.tiny_pi import tiny_pi
from tests.workflows.killed_policy_training import EveryStep
from workflows.policy_training import PolicyTrainingConfig, train_policy

TABLE = random_table()
INDICATORS = np.resize(np.array([POSITIVE, NEGATIVE], dtype=np.int8), len(TABLE))
Options = dict[str, Any]


@pytest.fixture(params=["pi0", "pi05"])
def pi(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[str, Options]:
    """A type, built tiny for the time of the test, and its options."""
    policy_type: str = request.param
    return policy_type, tiny_pi(monkeypatch, tmp_path / "hub", policy_type)


def config_of(policy_type: str, options: Options, **training: Any) -> PolicyTrainingConfig:
    settings = {"steps": 3, "batch_size": 4, "warmup_steps": 1, **training}
    return PolicyTrainingConfig(policy_type=policy_type, policy_options=options, **settings)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_it_learns_is_loaded_again_and_is_asked_for_positive_in_its_prompt(
    pi: tuple[str, Options], tmp_path: Path
) -> None:
    policy_type, options = pi
    train_tiny(tmp_path / "out", policy_type, options, TABLE)
    loaded = load_checkpoint(tmp_path / "out")
    for name, value in weights(tmp_path / "out").items():
        assert torch.equal(loaded.policy.state_dict()[name], value), name
    assert fits(tmp_path / "out", table_facts(TABLE))
    frames = PolicyFrames(TABLE, loaded.policy.config).batch(np.arange(2), INDICATORS[:2])
    batch = loaded.preprocessor(frames)
    tokenizer = next(step for step in loaded.preprocessor.steps if hasattr(step, "input_tokenizer"))
    read = tokenizer.input_tokenizer.batch_decode(batch[OBS_LANGUAGE_TOKENS], skip_special_tokens=True)
    # Byte-level tokens, which a decoder would put together.
    texts = [text.replace(" ", "").translate({0x120: " ", 0x10A: "\n"}) for text in read]
    task = TABLE.tasks[0]
    for text, indicator in zip(texts, ("positive", "negative"), strict=True):
        told = f"{task}. Advantage: {indicator}"
        if policy_type == "pi0":
            assert text == f"{told}\n"
        else:
            before, _, state = text.partition(", State: ")
            assert before == f"Task: {told}" and state.endswith(";\nAction: ")
            assert all(-1 <= int(number) <= 255 for number in state.partition(";")[0].split())
            assert len(state.split(";")[0].split()) == 15
    image = np.zeros((84, 84, 3), dtype=np.uint8)
    seen = {**dict.fromkeys(STATE_NAMES, 0.1), "table": image, "wrist": image}
    chunks = {}
    for indicator in ("positive", "negative"):
        runner = PolicyRunner(tmp_path / "out", indicator=indicator)  # type: ignore[arg-type]  # a literal
        runner.reset(RED)
        chunks[indicator] = runner.plan(seen)
    assert chunks["positive"].shape == (4, 7) and np.isfinite(chunks["positive"]).all()
    assert not np.array_equal(chunks["positive"], chunks["negative"])


@pytest.mark.parametrize(
    ("options", "training"),
    [
        ({}, {}),
        ({"dtype": "bfloat16", "gradient_checkpointing": True}, {"accumulate": 2}),
        ({"dtype": "bfloat16", "train_expert_only": True}, {"precision": "bfloat16"}),
        ({"dtype": "bfloat16"}, {"lora_rank": 2}),
    ],
    ids=["float32", "bfloat16", "expert", "lora"],
)
def test_killed_it_goes_on_to_the_same_bytes(
    pi: tuple[str, Options], options: Options, training: dict[str, Any], tmp_path: Path
) -> None:
    policy_type, tiny = pi
    config = config_of(policy_type, {**tiny, **options}, **training)

    class GivesUp(EveryStep):
        def keep(self, write: Callable[[], object]) -> None:
            super().keep(write)
            if self.kept == 2:
                raise KeyboardInterrupt

    def train(name: str, resume: Path | None, keeper: EveryStep | None = None) -> None:
        train_policy(TABLE, INDICATORS, config, None, tmp_path / name, resume=resume, keeper=keeper)

    with pytest.raises(KeyboardInterrupt):
        train("first", tmp_path / "resume", GivesUp())
    train("again", tmp_path / "resume")
    train("whole", None)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    torch.manual_seed(config.seed)
    fresh = new_checkpoint(policy_type, table_facts(TABLE), table_statistics(TABLE), config.policy_options)
    saved = weights(tmp_path / "whole")
    changed = {
        name for name, value in fresh.policy.state_dict().items() if not torch.equal(saved[name], value)
    }
    assert changed
    if "lora_rank" in training:
        assert any(".gemma_expert." in name for name in changed)
        assert not any(".paligemma." in name or ".mlp." in name or "norm" in name for name in changed)
    if "train_expert_only" in options:
        assert not any(".paligemma." in name for name in changed)
    held = {str(value.dtype) for value in saved.values()}
    assert held == ({"torch.float32", "torch.bfloat16"} if options else {"torch.float32"})


def test_weights_that_lerobot_would_not_load_are_refused(pi: tuple[str, Options], tmp_path: Path) -> None:
    policy_type, options = pi
    train_tiny(tmp_path / "good", policy_type, options, TABLE, steps=1)
    loaded = load_checkpoint(tmp_path / "good")
    require_loaded(loaded.policy, tmp_path / "good")
    file = tmp_path / "good/model.safetensors"
    stored = load_file(file)
    name = "model.action_in_proj.weight"
    for broken, message in (
        ({**stored, name: torch.zeros(3, 3)}, f"size mismatch for {name}"),
        ({key: value for key, value in stored.items() if key != name}, f"has no {name} \\(1 of the policy's"),
    ):
        save_file(broken, file)
        with pytest.raises(InputError, match=message):
            load_checkpoint(tmp_path / "good")
    save_file({**stored, name: stored[name] + 1}, file)
    with pytest.raises(InputError, match=f"was not loaded: {name}"):
        require_loaded(loaded.policy, tmp_path / "good")
    # As openpi's weights are named, and the embedding said once.
    head = "model.paligemma_with_expert.paligemma."
    stored[f"{head}model.language_model.embed_tokens.weight"] = stored[f"{head}lm_head.weight"].clone()
    short = {key.removeprefix("model."): value for key, value in stored.items() if "embed_tokens" not in key}
    save_file(short, file)
    again = load_checkpoint(tmp_path / "good")
    for key, value in stored.items():
        assert torch.equal(again.policy.state_dict()[key], value), key
    file.unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        require_loaded(again.policy, tmp_path / "good")


def test_somebody_elses_weights_get_this_robots_statistics(pi: tuple[str, Options], tmp_path: Path) -> None:
    policy_type, options = pi
    other = replace(TABLE, cameras=("top", "side"))
    train_tiny(tmp_path / "theirs", policy_type, options, other, steps=1)
    ours = new_checkpoint(
        policy_type, table_facts(TABLE), table_statistics(TABLE), {PATH: str(tmp_path / "theirs")}
    )
    assert list(ours.policy.config.image_features) == [f"observation.images.{c}" for c in TABLE.cameras]
    for name, value in weights(tmp_path / "theirs").items():
        assert torch.equal(ours.policy.state_dict()[name], value), name


def test_a_task_whose_advantage_would_be_cut_off_is_refused(pi: tuple[str, Options]) -> None:
    policy_type, options = pi
    model = new_checkpoint(policy_type, table_facts(TABLE), table_statistics(TABLE), options)
    long = "pick up the red cube and the blue cube and " * 12 + "put both down"
    nobody = np.full(3, NONE, dtype=np.int8)
    model.tell(nobody, [long])
    model.tell(INDICATORS, [RED])
    with pytest.raises(InputError, match=r"is too long for this policy, which reads 128 tokens: .* cut"):
        model.tell(INDICATORS, [RED, long])


def test_a_tokenizer_that_is_not_here_is_named_before_any_weights_are_made(
    pi: tuple[str, Options], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy_type, _ = pi
    require_tokenizer(policy_type, False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    require_tokenizer(policy_type, True)
    require_tokenizer("act", False)
    with pytest.raises(InputError, match=r"hf download google/paligemma-3b-pt-224 --include"):
        require_tokenizer(policy_type, False)

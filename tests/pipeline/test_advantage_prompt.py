"""Where policies are told their advantage: in the text, or in one more number of the state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.lerobot_types import TransitionKey
from lerobot.utils.constants import OBS_STATE

from pipeline.errors import InputError
from pipeline.policy.advantage_prompt import (
    AdvantagePromptStep,
    AdvantageStateStep,
    add_advantage_step,
    advantage_step,
)
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.prompts import INDICATOR_NAMES, NONE, POSITIVE, Indicator, prompt
from tests.policy_tables import BLUE, RED
from tests.tiny_checkpoint import save_tiny_checkpoint

WORDS: list[Indicator | None] = ["positive", "negative", None]
NUMBERS = {"positive": 1.0, "negative": -1.0, None: 0.0}


def transition(texts: Any, state: torch.Tensor | None = None) -> Any:
    observation = {} if state is None else {OBS_STATE: state}
    return {TransitionKey.OBSERVATION: observation, TransitionKey.COMPLEMENTARY_DATA: {"task": texts, "x": 1}}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([RED, BLUE]), st.sampled_from(WORDS)), min_size=1, max_size=6),
    st.sampled_from(["positive", "negative", "nothing"]),
)
def test_only_prompts_that_say_nothing_are_completed(said: list[tuple[str, Any]], absent: Any) -> None:
    texts = [prompt(task, word) for task, word in said]
    after = AdvantagePromptStep(absent)(transition(texts))[TransitionKey.COMPLEMENTARY_DATA]
    default = None if absent == "nothing" else absent
    assert after == {"task": [prompt(task, word or default) for task, word in said], "x": 1}


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from([(), (3,)]),
    st.sampled_from(["positive", "negative", "nothing"]),
)
def test_the_state_ends_in_the_indicator(words: list[Any], width: int, time: Any, absent: Any) -> None:
    state = torch.randn(len(words), *time, width)
    given_texts = [prompt(RED, word) for word in words]
    after = AdvantageStateStep(absent)(transition(given_texts, state))[TransitionKey.OBSERVATION][OBS_STATE]
    default = None if absent == "nothing" else absent
    assert after.shape == (*state.shape[:-1], width + 1) and after.dtype == state.dtype
    assert torch.equal(after[..., :-1], state)
    for row, word in zip(after, words, strict=True):
        assert (row[..., -1] == NUMBERS[word or default]).all()


def test_one_text_and_no_text_and_an_empty_text_pass() -> None:
    step = AdvantagePromptStep("positive")
    assert step(transition(RED))[TransitionKey.COMPLEMENTARY_DATA]["task"] == [prompt(RED, "positive")]
    assert step(transition([""]))[TransitionKey.COMPLEMENTARY_DATA]["task"] == [""]
    bare: Any = {TransitionKey.OBSERVATION: {}}
    assert step(bare) is bare
    state = {TransitionKey.OBSERVATION: {OBS_STATE: torch.zeros(2, 3)}}
    after = AdvantageStateStep("positive")(state)[TransitionKey.OBSERVATION][OBS_STATE]
    assert after[:, -1].tolist() == [1.0, 1.0], "a command without tasks still asks for the better actions"


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="when_absent is 'yes'"):
        AdvantagePromptStep("yes")
    with pytest.raises(InputError, match=r"no observation\.state"):
        AdvantageStateStep()(transition([RED]))


@pytest.mark.parametrize("word", WORDS)
def test_what_is_saved_asks_for_positive_once_the_step_has_seen_indicators(word: Indicator | None) -> None:
    step = AdvantagePromptStep()
    step(transition([prompt(RED, word)]))
    assert step.get_config() == {"when_absent": "nothing" if word is None else "positive"}
    assert step.when_absent == "nothing", "at work it adds nothing by itself"


def test_a_checkpoint_remembers_what_it_was_told(tmp_path: Path) -> None:
    def saved(folder: Path) -> str:
        steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
        found = [entry for entry in steps if "Advantage" in entry.get("class", "")]
        assert len(found) == 1
        return str(found[0]["config"]["when_absent"])

    checkpoint = load_checkpoint(save_tiny_checkpoint(tmp_path / "old", vision_channels=[8, 8, 8]))
    checkpoint.tell(np.full(3, NONE, dtype=np.int8))
    checkpoint.save(tmp_path / "base")
    assert saved(tmp_path / "base") == "nothing"
    checkpoint.tell(np.array([NONE, POSITIVE], dtype=np.int8))
    checkpoint.save(tmp_path / "tuned")
    assert saved(tmp_path / "tuned") == "positive"
    again = load_checkpoint(tmp_path / "tuned")
    step = advantage_step(again.preprocessor)
    assert step is not None and step.when_absent == "nothing", "our own code says what it wants"
    again.save(tmp_path / "copy")
    assert saved(tmp_path / "copy") == "positive"
    add_advantage_step(again.preprocessor, AdvantagePromptStep())
    assert sum(isinstance(s, AdvantagePromptStep) for s in again.preprocessor.steps) == 1


def test_every_code_has_a_number() -> None:
    assert {INDICATOR_NAMES[code] for code in INDICATOR_NAMES} == set(NUMBERS)

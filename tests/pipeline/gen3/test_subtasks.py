"""Sub-tasks: in prompts, as words, learned from labelled samples, predicted and acted on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lerobot.utils.constants import ACTION, OBS_IMAGES

from pipeline.errors import InputError
from pipeline.policy.gen3.subtasks import OBS_SUBTASK, SubtaskWords
from pipeline.prompts import parse_prompt, prompt
from pipeline.subtask_prompts import split_subtask, subtask_number, with_subtask
from tests.pipeline.gen3.choices import CHOICES, CHUNK, SUBTASKS, raw_batch, ready, small_policy, train

WITH_SUBTASKS = [name for name, options in CHOICES.items() if options.get("subtasks")]
text = st.text(st.characters(categories=["L"]), min_size=1, max_size=9)


@given(text, text, st.sampled_from(["positive", "negative", None]))
def test_prompts_with_sub_tasks_come_apart_again(task: str, subtask: str, indicator: Any) -> None:
    whole = prompt(with_subtask(task, subtask), indicator)
    both, found = parse_prompt(whole)
    assert (split_subtask(both), found) == ((task, subtask), indicator)
    assert split_subtask(task) == (task, None)


def test_a_second_sub_task_is_refused() -> None:
    for task, subtask in ((with_subtask("pick", "lift"), "lift"), ("pick", " ")):
        with pytest.raises(InputError, match="sub-task"):
            with_subtask(task, subtask)


def test_the_processor_numbers_sub_tasks_and_hides_them_from_the_task_words() -> None:
    policy = small_policy(**CHOICES["sub-tasks"])
    raw = raw_batch(policy.config)
    raw["task"] = ["pick. Sub-task: Lift it", "pick", "pick. Sub-task: dance. Advantage: positive", "pick"]
    batch = ready(policy.config, raw)
    assert batch[OBS_SUBTASK].tolist() == [1, -1, -1, -1]
    tokens = batch["observation.language.tokens"]
    assert (tokens == tokens[0]).all()
    assert OBS_SUBTASK not in ready(small_policy().config, raw)


def test_unknown_sub_tasks_have_no_number() -> None:
    assert [subtask_number(s, SUBTASKS) for s in ("LIFT it ", None, "", "dance")] == [1, -1, -1, -1]


def test_words_end_once_and_only_known_sub_tasks_can_be_said() -> None:
    words = SubtaskWords(["reach the cube", "reach", "lift the cube up"])
    assert words.counted(torch.tensor([0, 1, 2, -1])).sum(1).tolist() == [4, 2, 5, 0]
    alive = torch.ones(1, 3, dtype=torch.bool)
    assert int(words.possible(alive, 0).sum()) == 2
    reached = words.narrowed(alive, 0, words.rows[0, :1])
    assert reached.tolist() == [[True, True, False]]
    assert words.narrowed(reached, 1, torch.tensor([0])).tolist() == [[False, True, False]]


@pytest.mark.parametrize("name", WITH_SUBTASKS)
def test_the_sub_task_is_learned_predicted_and_acted_on(name: str) -> None:
    policy = small_policy(**CHOICES[name])
    raw = raw_batch(policy.config, 4, seed=3)
    # What is seen decides the sub-task; tasks and indicators are all the same.
    raw["task"] = [with_subtask("pick up the cube", SUBTASKS[i % 2]) for i in range(4)]
    for camera in ("table", "wrist"):
        raw[f"{OBS_IMAGES}.{camera}"][:] = torch.arange(4).view(-1, 1, 1, 1) % 2 * 200
    raw[ACTION] = torch.where(torch.arange(4) % 2 == 0, 0.6, -0.6)[:, None, None].expand(4, CHUNK, 7).clone()
    batch = ready(policy.config, raw)
    train(policy, batch, 60)
    bare = ready(policy.config, {**raw, "task": ["pick up the cube"] * 4})
    assert policy.predict_subtask(bare) == [SUBTASKS[i % 2] for i in range(4)]
    noise = torch.randn(4, CHUNK, 7)
    told = policy.predict_action_chunk(batch, noise)
    torch.testing.assert_close(policy.predict_action_chunk(bare, noise), told)
    if policy.expert is None:  # the most likely token may be the same
        return
    # Told another, it acts otherwise.
    swapped = {**batch, OBS_SUBTASK: 1 - batch[OBS_SUBTASK]}
    assert not torch.allclose(policy.predict_action_chunk(swapped, noise), told, atol=1e-3)


def test_samples_without_a_sub_task_train_the_actions_alone() -> None:
    policy = small_policy(**CHOICES["sub-tasks"]).train()
    raw = raw_batch(policy.config)
    raw["task"] = ["pick up the cube"] * 4
    loss, info = policy.forward(ready(policy.config, raw))
    assert info["subtask_loss"] == 0.0
    assert loss > 0
    with pytest.raises(InputError, match="predicts no sub-tasks"):
        small_policy().predict_subtask({})

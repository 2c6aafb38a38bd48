"""Several observations: their shapes, an episode's start, and what acting remembers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE

from pipeline.errors import InputError
from pipeline.policy.gen3.observations import STATE_IS_PAD, ObservationQueue, one_by_one
from tests.pipeline.gen3.choices import CHOICES, CHUNK, raw_batch, ready, small_policy

WITH_HISTORY = [name for name, options in CHOICES.items() if options.get("n_obs_steps", 1) > 1]


def observation(batch: dict[str, Any], step: int) -> dict[str, Any]:
    """One of a batch's observations, as a robot gives it: without an axis for time."""
    keys = [OBS_STATE, f"{OBS_IMAGES}.table", f"{OBS_IMAGES}.wrist"]
    single = {key: batch[key][:, step] for key in keys}
    return {**{k: v for k, v in batch.items() if k != STATE_IS_PAD}, **single}


@pytest.mark.parametrize("name", WITH_HISTORY)
def test_acting_sees_what_training_would_at_the_same_frame(name: str) -> None:
    policy = small_policy(**CHOICES[name], num_inference_steps=2).eval()
    policy.config.n_action_steps = 1
    policy.reset()
    steps = policy.config.n_obs_steps
    long = ready(policy.config, raw_batch(small_policy(**CHOICES[name]).config, 2))
    noise = torch.randn(2, CHUNK, 7)
    # The episode's first frame, then each that follows.
    for now in range(steps):
        acted = policy.select_action(observation(long, now), noise)
        frames = np.maximum(np.arange(now - steps + 1, now + 1), 0)
        trained = dict(long)
        for key in (OBS_STATE, f"{OBS_IMAGES}.table", f"{OBS_IMAGES}.wrist"):
            trained[key] = long[key][:, frames]
        trained[STATE_IS_PAD] = torch.from_numpy(np.arange(now - steps + 1, now + 1) < 0).expand(2, -1)
        expected = policy.predict_action_chunk(trained, noise)[:, 0]
        torch.testing.assert_close(acted, expected, atol=1e-5, rtol=1e-4)
    policy.reset()
    first = policy.select_action(observation(long, 0), noise)
    torch.testing.assert_close(first, policy.predict_action_chunk(observation(long, 0), noise)[:, 0])


@pytest.mark.parametrize("name", WITH_HISTORY)
def test_padded_observations_are_not_seen_and_others_are(name: str) -> None:
    policy = small_policy(**CHOICES[name]).eval()
    batch = ready(policy.config, raw_batch(policy.config, 2))
    noise = torch.randn(2, CHUNK, 7)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    table = f"{OBS_IMAGES}.table"
    other = {**batch, OBS_STATE: batch[OBS_STATE].clone(), table: batch[table].clone()}
    other[OBS_STATE][:, 0] += 0.5
    other[table][:, 0] = torch.arange(32) * 8
    assert not torch.equal(
        policy.predict_action_chunk(batch, noise), policy.predict_action_chunk(other, noise)
    )
    padded = torch.zeros_like(batch[STATE_IS_PAD])
    padded[:, 0] = True
    chunks = [policy.predict_action_chunk({**b, STATE_IS_PAD: padded}, noise) for b in (batch, other)]
    torch.testing.assert_close(chunks[0], chunks[1])


def test_training_without_the_history_is_refused() -> None:
    policy = small_policy(**CHOICES["conv, policy head"])
    batch = ready(policy.config, raw_batch(policy.config))
    with pytest.raises(InputError, match="reads 3 observations"):
        policy.train().forward(observation(batch, 0))


def test_the_configuration_says_which_frames_are_seen() -> None:
    assert small_policy().config.observation_delta_indices is None
    assert small_policy(**CHOICES["policy head"]).config.observation_delta_indices == [-2, -1, 0]


def test_the_queue_repeats_the_first_observation_and_marks_it() -> None:
    queue = ObservationQueue(3)
    states = torch.arange(5.0)[:, None].expand(-1, 2)
    found = [queue.add({OBS_STATE: state[None], "task": ["x"]}) for state in states]
    assert [f[OBS_STATE][0, :, 0].tolist() for f in found[:4]] == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
    ]
    assert [f[STATE_IS_PAD][0].tolist() for f in found[:3]] == [
        [True, True, False],
        [True, False, False],
        [False, False, False],
    ]
    queue.clear()
    assert queue.add({OBS_STATE: states[:1]})[STATE_IS_PAD].sum() == 2


def test_single_observations_keep_their_order() -> None:
    batch = {OBS_STATE: torch.arange(12.0).view(2, 3, 2), "codes": torch.tensor([5, 6]), "task": ["a", "b"]}
    apart = one_by_one(batch, 3)
    assert torch.equal(apart[OBS_STATE], torch.arange(12.0).view(6, 2))
    assert apart["codes"].tolist() == [5, 5, 5, 6, 6, 6]
    assert apart["task"] == ["a", "a", "a", "b", "b", "b"]


@pytest.mark.parametrize("name", ["conv", *WITH_HISTORY])
def test_float_images_act_as_bytes_do_and_stay_as_they_are(name: str) -> None:
    policy = small_policy(**CHOICES[name]).eval()
    batch = ready(policy.config, raw_batch(policy.config, 2))
    if policy.config.n_obs_steps > 1:
        batch = observation(batch, 0)
    keys = (f"{OBS_IMAGES}.table", f"{OBS_IMAGES}.wrist")
    floats = {**batch, **{key: batch[key].float() / 255 for key in keys}}
    copies = {key: floats[key].clone() for key in keys}
    noise = torch.randn(2, CHUNK, 7)
    chunk = policy.predict_action_chunk(batch, noise)
    for _ in range(2):
        torch.testing.assert_close(policy.predict_action_chunk(floats, noise), chunk, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(floats[key], copies[key]) for key in keys)

"""Batches for policies with and without a history, against the definition of LeRobot's delta indices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import make_policy_config

from pipeline.errors import InputError
from pipeline.policy.policy_frames import PolicyFrames
from pipeline.prompts import INDICATOR_NAMES, NONE, parse_prompt
from tests.policy_tables import random_table

TABLE = random_table((5, 1, 8), size=8)
IMAGE = PolicyFeature(FeatureType.VISUAL, (3, 8, 8))


def config(observed: list[int] | None, acted: list[int], **changes: Any) -> Any:
    """What is read of a policy's configuration."""
    found = {
        "type": "any",
        "image_features": {"observation.images.wrist": IMAGE},
        "observation_delta_indices": observed,
        "action_delta_indices": acted,
        "reward_delta_indices": None,
    }
    return SimpleNamespace(**found | changes)


def episode_rows(row: int) -> tuple[int, int]:
    """The first and the last row of a row's episode."""
    episode = int(TABLE.episode_index[row])
    first = int(TABLE.starts[episode])
    return first, first + int(TABLE.lengths[episode]) - 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, len(TABLE) - 1), min_size=1, max_size=4),
    st.integers(-1, 2),
    st.integers(-2, 0),
    st.integers(1, 5),
)
def test_every_index_is_looked_up_within_the_episode(
    rows: list[int], history: int, first: int, chunk: int
) -> None:
    observed = None if history < 0 else list(range(-history, 1))
    acted = list(range(first, first + chunk))
    codes = np.resize(np.array(sorted(INDICATOR_NAMES), dtype=np.int8), len(rows))
    batch = PolicyFrames(TABLE, config(observed, acted)).batch(np.array(rows), codes)
    assert "observation.images.table" not in batch, "a camera that the policy does not know"
    for i, row in enumerate(rows):
        low, high = episode_rows(row)
        seen = [row] if observed is None else [row + d for d in observed]
        clipped = np.clip(seen, low, high)
        state = batch["observation.state"][i].numpy().reshape(-1, 15)
        assert np.array_equal(state, TABLE.state[clipped])
        image = batch["observation.images.wrist"][i].numpy().reshape(-1, 3, 8, 8)
        assert np.array_equal(image, TABLE.images(clipped)[:, 1].transpose(0, 3, 1, 2) / np.float32(255))
        if observed is not None:
            assert batch["observation.state_is_pad"][i].tolist() == [r < low for r in seen]
        wanted = [row + d for d in acted]
        assert np.array_equal(batch["action"][i], TABLE.action[np.clip(wanted, low, high)])
        assert batch["action_is_pad"][i].tolist() == [not low <= r <= high for r in wanted]
        task, word = parse_prompt(batch["task"][i])
        assert (task, word) == (
            TABLE.tasks[int(TABLE.episode_index[row])],
            INDICATOR_NAMES[int(codes[i])],
        )


def test_our_own_policy_takes_bytes() -> None:
    frames = PolicyFrames(TABLE, config(None, [0, 1], type="gen3_vla"))
    batch = frames.batch(np.array([2]), np.array([NONE], dtype=np.int8))
    assert np.array_equal(
        batch["observation.images.wrist"][0].permute(1, 2, 0), TABLE.images(np.array([2]))[0, 1]
    )


def test_what_the_data_cannot_give_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="needs camera 'top'"):
        PolicyFrames(TABLE, config(None, [0], image_features={"observation.images.top": IMAGE}))
    tdmpc = make_policy_config("tdmpc", device="cpu", input_features={"observation.images.wrist": IMAGE})
    with pytest.raises(InputError, match="tdmpc learns from rewards"):
        PolicyFrames(TABLE, tdmpc)

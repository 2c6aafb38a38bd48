"""FAST's merges, learned from a table of frames and kept in the checkpoint; sub-tasks from cut episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.utils.constants import ACTION, OBS_STATE

from pipeline.action_statistics import action_statistics
from pipeline.errors import InputError
from pipeline.policy.checkpoint import Checkpoint, load_checkpoint
from pipeline.policy.gen3.action_learning import fit_to_table
from pipeline.policy.gen3.action_tokens import FastTokens
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import make_gen3_vla_pre_post_processors
from tests.benchmarks.design_space_data import subtasks_of
from tests.benchmarks.design_space_rows import ROWS, SUBTASKS
from tests.pipeline.gen3.choices import CHOICES, CHUNK, small_config, small_policy
from tests.policy_tables import random_table

TABLE = random_table((40, 30))


def checkpoint(policy: Gen3VLAPolicy) -> Checkpoint:
    stats = {ACTION: action_statistics(TABLE.action)}
    return Checkpoint(policy, *make_gen3_vla_pre_post_processors(policy.config, stats))


def test_merges_are_learned_from_normalised_chunks_and_come_back_with_the_checkpoint(tmp_path: Path) -> None:
    policy = small_policy(**CHOICES["fast"])
    model = checkpoint(policy)
    used = np.arange(len(TABLE)) < 40
    fit_to_table(model, TABLE, used)
    chunks, _ = TABLE.action_chunks(np.flatnonzero(used), CHUNK)
    assert policy.config.fast_merges
    batch = {OBS_STATE: torch.zeros(len(chunks), 15), "task": ["x"] * len(chunks)}
    seen = model.preprocessor({**batch, ACTION: torch.from_numpy(chunks)})[ACTION]
    expected = FastTokens.trained(seen, policy.config.fast_scale, policy.config.fast_vocabulary)
    assert [list(pair) for pair in expected.merges] == policy.config.fast_merges
    assert float(seen.abs().max()) <= 1.0
    model.save(tmp_path)
    loaded = load_checkpoint(tmp_path).policy
    assert loaded.encoder.tokens.encode(seen) == expected.encode(seen)


def test_others_learn_nothing_from_actions() -> None:
    policy = small_policy()
    before = policy.config.fast_merges
    fit_to_table(checkpoint(policy), TABLE, np.ones(len(TABLE), dtype=bool))
    assert policy.config.fast_merges == before == []
    assert not policy.learns_from_actions
    policy.fit_actions(torch.zeros(3, 1, 1))  # no shape is wrong for who does not look


def test_chunks_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="FAST learns from"):
        small_policy(**CHOICES["fast"]).fit_actions(torch.zeros(5, CHUNK + 1, 7))


def test_the_second_sub_task_begins_where_the_gripper_first_closes() -> None:
    action = TABLE.action.copy()
    action[:, -1] = 0.0
    action[10:20, -1] = 1.0  # of the first episode's 40 frames; it opens again
    found = subtasks_of(replace(TABLE, action=action))
    assert found.names == tuple(SUBTASKS)
    assert found.codes.tolist() == [0] * 10 + [1] * 30 + [0] * 30


def test_every_row_of_the_benchmark_can_be_built_and_names_another() -> None:
    names = {row.name for row in ROWS} | {"-"}
    for row in ROWS:
        small_config(**row.options)
        assert row.beside in names
        assert row.backbone_of is None or row.backbone_of in names

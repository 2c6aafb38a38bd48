"""Chunks of actions to tokens and back: bins, and FAST with and without merges."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.errors import InputError
from pipeline.policy.gen3.action_tokens import ActionTokens, BinTokens, FastTokens, cosine_basis
from pipeline.policy.gen3.choices import fast_alphabet

CHUNK, WIDTH, SCALE = 6, 3, 10.0


def smooth_chunks(count: int, seed: int = 0) -> torch.Tensor:
    """Chunks that move slowly, as actions do."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(count, 2, WIDTH, generator=generator) * 1.8 - 0.9
    share = torch.linspace(0, 1, CHUNK)[:, None]
    return torch.lerp(ends[:, :1], ends[:, 1:], share)


PLAIN = FastTokens(CHUNK, WIDTH, SCALE, 128)
TRAINED = FastTokens.trained(smooth_chunks(400), SCALE, 128)
chunks = arrays(np.float32, (CHUNK, WIDTH), elements=st.floats(-1, 1, width=32))


def test_the_basis_is_the_cosine_transform_of_the_definition() -> None:
    x = np.random.default_rng(0).normal(size=5)
    expected = [
        math.sqrt((1 if k == 0 else 2) / 5)
        * sum(x[t] * math.cos(math.pi * (2 * t + 1) * k / 10) for t in range(5))
        for k in range(5)
    ]
    np.testing.assert_allclose(cosine_basis(5) @ x, expected)
    np.testing.assert_allclose(cosine_basis(7) @ cosine_basis(7).T, np.eye(7), atol=1e-12)


@given(chunks)
def test_bins_are_lossless_up_to_half_a_bin(chunk: np.ndarray) -> None:
    tokens = BinTokens(CHUNK, WIDTH, 256)
    given_chunk = torch.from_numpy(chunk)[None]
    rows = tokens.encode(given_chunk)
    assert len(rows[0]) == CHUNK * WIDTH
    assert all(0 <= token < 256 for token in rows[0])
    assert (tokens.decode(rows) - given_chunk).abs().max() <= 1 / 256 + 1e-6
    assert tokens.encode(tokens.decode(rows)) == rows


@settings(deadline=None)
@given(chunks, st.sampled_from([PLAIN, TRAINED]))
def test_fast_loses_the_rounding_and_nothing_else(chunk: np.ndarray, tokens: FastTokens) -> None:
    # Reference: the coefficients by a double loop from the definition, rounded, and transformed back.
    rounded = np.zeros_like(chunk, dtype=np.float64)
    coefficients = np.zeros((CHUNK, WIDTH))
    for k in range(CHUNK):
        for t in range(CHUNK):
            factor = math.sqrt((1 if k == 0 else 2) / CHUNK)
            coefficients[k] += factor * chunk[t] * math.cos(math.pi * (t + 0.5) * k / CHUNK)
    whole = coefficients * SCALE
    # Numbers in the middle between two may be rounded to either.
    if np.abs(whole - np.floor(whole) - 0.5).min() < 1e-4:
        return
    quantised = np.round(whole) / SCALE
    for t in range(CHUNK):
        for k in range(CHUNK):
            factor = math.sqrt((1 if k == 0 else 2) / CHUNK)
            rounded[t] += factor * quantised[k] * math.cos(math.pi * (t + 0.5) * k / CHUNK)
    rows = tokens.encode(torch.from_numpy(chunk)[None])
    assert int(tokens.numbers[rows[0]].sum()) == CHUNK * WIDTH
    np.testing.assert_allclose(tokens.decode(rows)[0].numpy(), rounded.clip(-1, 1), atol=1e-5)


def test_every_extreme_chunk_has_tokens() -> None:
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * CHUNK)[:, :, None].expand(-1, -1, WIDTH)
    for tokens in (PLAIN, TRAINED):
        assert (tokens.decode(tokens.encode(signs)) - signs).abs().max() < 0.15
    assert fast_alphabet(CHUNK, SCALE) <= 128


def test_training_compresses_what_it_has_seen_like() -> None:
    unseen = smooth_chunks(50, seed=1)
    plain = sum(len(row) for row in PLAIN.encode(unseen))
    trained = sum(len(row) for row in TRAINED.encode(unseen))
    assert plain == 50 * CHUNK * WIDTH
    assert trained < 0.6 * plain
    assert (TRAINED.decode(TRAINED.encode(unseen)) == PLAIN.decode(PLAIN.encode(unseen))).all()


def test_training_again_gives_the_same_tokens_and_merges_alone_restore_them() -> None:
    again = FastTokens.trained(smooth_chunks(400), SCALE, 128)
    assert again.merges == TRAINED.merges
    assert 0 < len(again.merges) <= 128 - fast_alphabet(CHUNK, SCALE)
    restored = FastTokens(CHUNK, WIDTH, SCALE, 128, [list(pair) for pair in again.merges])
    unseen = smooth_chunks(20, seed=2)
    assert restored.encode(unseen) == TRAINED.encode(unseen)
    assert pickle.loads(pickle.dumps(TRAINED)).encode(unseen) == TRAINED.encode(unseen)


@pytest.mark.parametrize("merge", [(0, 200), (-1, 2), (3, 60)])
def test_merges_of_tokens_that_are_not_there_are_refused(merge: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="does not fit"):
        FastTokens(CHUNK, WIDTH, SCALE, 128, [merge])


@pytest.mark.parametrize("tokens", [BinTokens(CHUNK, WIDTH, 8), PLAIN, TRAINED])
def test_numbers_outside_are_clipped(tokens: ActionTokens) -> None:
    wild = 3 * smooth_chunks(4, seed=3)
    assert tokens.encode(wild) == tokens.encode(wild.clamp(-1, 1))

"""What is computed in a faster way is what a slow way from the definition gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.policy.gen3.action_tokens import ActionTokens
from pipeline.policy.gen3.chunk_expert import ChunkExpert
from pipeline.policy.gen3.encoding import Reading
from pipeline.policy.gen3.incremental import _Steps, steps_after
from pipeline.policy.gen3.linear import Linear, linear
from pipeline.policy.gen3.transformer import Cache, SmallBackbone
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import OBS_INDICATOR
from tests.pipeline.gen3.choices import CHOICES, CHUNK, raw_batch, ready, small_config, small_policy

CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-4}
THREE = ["reach the cube", "reach the bin", "lift it"]


def awake(**options: Any) -> Gen3VLAPolicy:
    """A policy of random weights everywhere: gates start at zero, and let no step see another."""
    policy = small_policy(**options)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy.eval()


@pytest.mark.parametrize("rows", [(3,), (2, 5), (64, 12), (600,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_few_and_many_rows_are_torchs(rows: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    ours = Linear(7, 24, bias=bias)
    x, there = torch.randn(*rows, 7, requires_grad=True), torch.randn(*rows, 24)
    found = torch.autograd.grad((ours(x) * there).sum(), [x, *ours.parameters()])
    plain = F.linear(x, ours.weight, ours.bias)
    expected = torch.autograd.grad((plain * there).sum(), [x, *ours.parameters()])
    torch.testing.assert_close(ours(x), plain)
    torch.testing.assert_close(found, expected, **CLOSE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, ours.weight, ours.bias).dtype == torch.bfloat16


def test_linear_layers_of_many_rows_are_transformed_and_compiled_as_torchs() -> None:
    ours, x = Linear(7, 24), torch.randn(600, 7)
    plain = F.linear(x, ours.weight, ours.bias)
    torch.testing.assert_close(torch.vmap(ours)(x.expand(2, 600, 7))[1], plain)
    expected = torch.ones_like(plain) @ ours.weight
    torch.testing.assert_close(torch.func.grad(lambda x: ours(x).sum())(x), expected)
    torch.testing.assert_close(torch.export.export(ours, (x,)).module()(x), plain)


def some_cache(backbone: SmallBackbone, *, padded: bool) -> Cache:
    present = torch.ones(3, 5, dtype=torch.bool)
    present[1, 2:] = not padded
    return backbone.run(torch.randn(3, 5, backbone.width), present, None, causal=False)[1]


@torch.no_grad()
@pytest.mark.parametrize("padded", [True, False])
def test_one_token_after_the_other_is_all_of_them_at_once(padded: bool) -> None:
    backbone = awake(**CHOICES["bins"]).encoder.backbone
    past = some_cache(backbone, padded=padded)
    tokens = torch.randn(3, 4, backbone.width)
    whole, _ = backbone.run(tokens, torch.ones(3, 4, dtype=torch.bool), past, causal=True)
    for step in (steps_after(backbone, past, 4), _Steps(backbone, past)):
        found = [step(tokens[:, i]) for i in range(4)]
        torch.testing.assert_close(torch.stack(found, dim=1), whole, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_states_that_nobody_reads_change_none_of_the_others(causal: bool, wanted: int) -> None:
    backbone = awake(**CHOICES["bins"]).encoder.backbone
    past = some_cache(backbone, padded=True)
    tokens, present = torch.randn(3, 4, backbone.width), torch.ones(3, 4, dtype=torch.bool)
    whole, cache = backbone.run(tokens, present, past, causal=causal)
    part, same = backbone.run(tokens, present, past, causal=causal, wanted=wanted)
    torch.testing.assert_close(part, whole[:, 4 - wanted :], **CLOSE)
    torch.testing.assert_close(same.layers, cache.layers, **CLOSE)


@torch.no_grad()
def last_logits(
    policy: Gen3VLAPolicy,
    speaker: Any,
    past: Cache,
    before: Tensor,
    said: list[int],
    places: list[int] | None = None,
) -> Tensor:
    """Logits of the token behind ``said`` of one sample, all of which is read again."""
    words = [
        speaker.tokens.weight[t] + speaker.places[p] for t, p in zip(said, places or range(99), strict=False)
    ]
    tail = torch.cat([before, *(word[None, None] for word in words)], dim=1)
    there = torch.ones(1, tail.shape[1], dtype=torch.bool)
    hidden, _ = policy.encoder.backbone.run(tail, there, past, causal=True)
    return speaker.logits(hidden[0, -1])


def observed(policy: Gen3VLAPolicy, batch: dict[str, Any], i: int) -> tuple[Cache, Tensor]:
    one: dict[str, Any] = {k: v[i : i + 1] for k, v in batch.items() if isinstance(v, list | Tensor)}
    indicator = one[OBS_INDICATOR] + 1
    backbone = policy.encoder.backbone
    return backbone.run(*backbone.observe(one, indicator), None, causal=False)[1], indicator


@torch.no_grad()
@pytest.mark.parametrize("name", ["bins", "fast", "interleaved bins"])
def test_action_tokens_are_those_of_reading_everything_again(name: str) -> None:
    policy = awake(**CHOICES[name])
    drift = torch.linspace(-0.9, 0.9, 60)[:, None, None] * torch.linspace(0.5, 1, CHUNK)[:, None]
    policy.fit_actions(drift.expand(60, CHUNK, 7))
    encoder, tokens = policy.encoder, policy.encoder.tokens
    assert isinstance(tokens, ActionTokens)
    batch = ready(policy.config, raw_batch(policy.config))
    expected = []
    for i in range(4):
        past, indicator = observed(policy, batch, i)
        said: list[int] = []
        while (left := CHUNK * 7 - int(tokens.numbers[said].sum())) > 0:
            ends = [int(tokens.numbers[said[: n + 1]].sum()) - 1 for n in range(len(said))]
            logits = last_logits(policy, encoder.speaker, past, encoder._opening(indicator), said, ends)
            possible = [t for t in range(tokens.size) if 0 < int(tokens.numbers[t]) <= left]
            said.append(max(possible, key=lambda t: float(logits[t])))
        expected.append(said)
    if name == "fast":
        assert len({len(row) for row in expected}) > 1  # one chunk waits for another
    torch.testing.assert_close(policy.predict_action_chunk(batch), tokens.decode(expected))


@torch.no_grad()
def test_sub_tasks_are_those_of_reading_everything_again() -> None:
    found = set()
    for seed in range(4):
        policy = awake(seed=seed, **{**CHOICES["sub-tasks"], "subtasks": THREE})
        encoder = policy.encoder
        batch = ready(policy.config, raw_batch(policy.config, 3, seed))
        predicted = policy.predict_subtask(batch)
        for i in range(3):
            past, _ = observed(policy, batch, i)
            rows: list[list[int]] = encoder.words.rows.tolist()
            said: list[int] = []
            while len(rows) > 1:
                logits = last_logits(policy, encoder.subtask, past, encoder.subtask.opening(1), said)
                said.append(max({row[len(said)] for row in rows}, key=lambda word: float(logits[word])))
                rows = [row for row in rows if row[: len(said)] == said]
            assert encoder.words.rows[THREE.index(predicted[i])].tolist() == rows[0]
            found.add(predicted[i])
    assert len(found) > 1


@pytest.mark.parametrize(
    "name",
    [
        "transformer",
        "cross-attention to everything",
        "cross-attention to one vector",
        "in context, everything",
    ],
)
def test_noise_samples_side_by_side_are_each_by_itself(name: str) -> None:
    policy = awake(**CHOICES[name])
    batch = ready(policy.config, raw_batch(policy.config))
    # One text is shorter, so that there is padding.
    batch["observation.language.tokens"][2, 2:] = 0
    indicator = batch[OBS_INDICATOR] + 1
    noisy, time = torch.randn(4, 3, CHUNK * 7), torch.rand(4, 3)
    parameters = [p for p in policy.parameters() if p.requires_grad]

    def gradients(output: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(output.square().sum(), parameters, allow_unused=True, retain_graph=True)

    expert = policy.expert
    assert isinstance(expert, ChunkExpert)
    read = expert.read(Reading(policy._look(batch, indicator)[0], indicator))
    together = expert(noisy, time, read)
    each = [expert(noisy[:, i : i + 1], time[:, i : i + 1], read) for i in range(3)]
    apart = torch.cat(each, dim=1)
    torch.testing.assert_close(together, apart, **CLOSE)
    for one, other in zip(gradients(together), gradients(apart), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_camera_tokens_are_those_of_the_convolutions() -> None:
    policy = awake(**CHOICES["transformer"])
    camera = policy.encoder.backbone.cameras[0]
    images, text = torch.rand(70, 3, 32, 32) * 2 - 1, torch.randn(70, small_config().word_width)
    trunk = camera.trunk
    hidden = trunk.feature_map(images, text)
    attention = trunk.keypoints(hidden).flatten(2).softmax(-1)
    places = torch.cat([hidden.flatten(2), trunk.grid.expand(len(hidden), -1, -1)], dim=1)
    points = F.linear(attention @ places.transpose(1, 2), camera.point.weight, camera.point.bias)
    whole = F.linear(trunk.map(hidden).flatten(1), camera.whole.weight, camera.whole.bias)
    expected = torch.cat([points, whole.unflatten(1, (2, -1))], dim=1) + camera.slots
    torch.testing.assert_close(camera(images, text), expected, **CLOSE)

"""The GPU benchmark: a tiny shape on the CPU goes all its ways; without a GPU nothing else is promised."""

from __future__ import annotations

import json

import pytest
import torch

from tests.benchmarks import gpu_policy

KEYS = {"mfu", "samples_per_s", "peak_memory_gib", "chunk_ms_median", "chunk_ms_p99", "parameters", "device"}


@pytest.mark.parametrize(
    "words",
    [["--option", "gradient_checkpointing=true"], ["--policy", "smolvla", "--lora-rank", "2"]],
    ids=["gen3_vla", "smolvla"],
)
def test_a_tiny_shape_is_trained_and_acts(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_policy.main(["--device", "cpu", "--quick", "--batch-size", "2", *words]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures.keys() >= KEYS
    assert figures["mfu"] is None and figures["device"] == "cpu"
    assert figures["samples_per_s"] > 0 and 0 < figures["chunk_ms_median"] <= figures["chunk_ms_p99"]
    assert figures["tflop_per_sample"] > 0 and figures["parameters"] > 10_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("words", [[], ["--quick"], ["--device", "cpu"]])
def test_without_a_gpu_it_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_policy.main(words) == 2
    captured = capsys.readouterr()
    assert (
        captured.out == "" and "no CUDA device is at hand" in captured.err and captured.err.count("\n") == 1
    )


def test_what_the_smoke_test_cannot_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_policy.main(["--device", "cpu", "--quick", "--policy", "pi05"]) == 2
    assert "4 G parameters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GeForce RTX 3090", 71.0),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peaks_are_looked_up_by_the_devices_name(name: str, peak: float | None) -> None:
    assert gpu_policy.peak_tflops(name) == peak


def test_operations_count_the_backward_pass_of_what_is_trained() -> None:
    """A linear layer's gradient costs as much as its output once for the weights, once for the input."""

    class Linear(torch.nn.Linear):
        def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:  # type: ignore[override]  # as a policy's
            return super().forward(batch["observation.state"]).sum(), {}

    config = gpu_policy.PolicyTrainingConfig()
    layer = Linear(8, 4)
    batch = {"observation.state": torch.ones(5, 8, requires_grad=True)}
    assert gpu_policy.flops_per_sample(layer, batch, config) == 3 * 2 * 8 * 4
    layer.requires_grad_(False)
    assert gpu_policy.flops_per_sample(layer, batch, config) == 2 * 2 * 8 * 4

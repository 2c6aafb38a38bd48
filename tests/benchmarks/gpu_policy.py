"""Training and acting on one GPU: ``python -m tests.benchmarks.gpu_policy [--quick]``.

Builds a policy of real size from its configuration alone, with random weights and no download, and trains it
as ``recap policy train`` does (``PolicyTrainer``: AdamW, gradient clipping, running mean of the weights), its
forward pass in bfloat16. By default that is a ``gen3_vla`` of 0.5 G parameters: a vision-language model of
SmolVLM2-500M's shape that learns FAST tokens, and a flow expert that attends to its keys and values through
a stop-gradient. ``--policy smolvla|pi05|pi0`` and ``--lora-rank 16`` measure what else fits on the card, and
``--option NAME=JSON`` sets any field of the policy's configuration.

The frames are random and lie on the GPU already: this measures the network, not the loading of data, which
``tests.benchmarks.policy_training`` does. What is in a step and so in the figures: drawing a batch, text to
tokens, forward, backward, clipping, optimiser, running mean.

``mfu`` is model FLOP utilisation: the floating-point operations of the matrix products, convolutions and
attention of one sample's forward and backward pass, as ``torch.utils.flop_counter`` counts those that are run
(without gradient checkpointing: what is computed again does not count), times samples a second, over the
device's peak for dense bfloat16. Latency is that of one chunk for one observation that lies on the device,
preprocessed, in bfloat16; with ``--compile`` again with the expert and the image tower under
``torch.compile`` and CUDA graphs. The last line is one JSON object. Without a GPU it says so and exits with
status 2, but ``--device cpu --quick`` runs a tiny shape, to see that all of it works; ``mfu`` is null then.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch.utils.flop_counter import FlopCounterMode

from pipeline.policy.tuning import autocast, prepare
from tests.benchmarks.gpu_policy_models import (
    POLICIES,
    build_policy,
    first_sample,
    nothing_twice,
    random_batch,
    write_backbone,
)
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_loop import PolicyTrainer

# Dense bfloat16 with float32 sums, 10^12 operations a second, as the makers say; the first that fits a name.
PEAK_TFLOPS = (
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("RTX 4090 D", None),
    ("RTX 4090", 165.2),
    ("RTX 3090 Ti", None),
    ("RTX 3090", 71.0),
)
_GIB = 1 << 30
_RESIDENT = 4  # batches that training goes round


@dataclass(frozen=True)
class Plan:
    """How much is measured: ``steps`` after ``warm`` that are not timed, ``chunks`` after as many."""

    steps: int
    warm: int
    chunks: int
    image_size: int
    tiny: bool


FULL = Plan(steps=30, warm=5, chunks=200, image_size=224, tiny=False)
QUICK = Plan(steps=8, warm=3, chunks=30, image_size=224, tiny=False)
SMOKE = Plan(steps=2, warm=1, chunks=3, image_size=32, tiny=True)


class ResidentBatches:
    """The same few batches for ever, on the device."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        """``batches``: preprocessed."""
        self._batches, self._next = batches, 0

    def draw(self) -> dict[str, Any]:
        """The next one: a new dictionary of the same tensors."""
        self._next += 1
        return dict(self._batches[self._next % len(self._batches)])

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See :class:`workflows.policy_training_loop.Batches`."""
        return {}, {"next": self._next}

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """See :class:`workflows.policy_training_loop.Batches`."""
        self._next = facts["next"]


def peak_tflops(name: str) -> float | None:
    """The peak of the device that calls itself ``name``; ``None`` where it is not known."""
    return next((peak for part, peak in PEAK_TFLOPS if part in name), None)


def settle(device: str) -> float:
    """The time when the device has done all that it was asked for, in seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def flops_per_sample(policy: PreTrainedPolicy, batch: dict[str, Any], config: PolicyTrainingConfig) -> float:
    """Floating-point operations of one sample's forward and backward pass; leaves no gradients behind."""
    counter = FlopCounterMode(display=False)
    with nothing_twice(policy), counter:
        with autocast(policy, config):
            loss, _ = policy.forward(first_sample(batch))
        loss.backward()
    policy.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def trained(
    policy: PreTrainedPolicy, batches: list[dict[str, Any]], config: PolicyTrainingConfig, plan: Plan
) -> tuple[float, float]:
    """Trains; samples a second, and the operations of one sample's gradient."""
    parameters = prepare(policy, config)
    policy.train()
    operations = flops_per_sample(policy, batches[0], config)
    if config.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = PolicyTrainer(policy, parameters, ResidentBatches(batches), config)
    times: list[float] = []

    def note() -> None:
        if trainer.step in (plan.warm, config.steps):
            times.append(settle(config.device))

    trainer.run(None, note)
    return plan.steps * config.batch_size / (times[-1] - times[0]), operations


def latencies_ms(
    policy: PreTrainedPolicy, observation: dict[str, Any], config: PolicyTrainingConfig, chunks: int
) -> tuple[float, float]:
    """Median and 99th percentile of the time for one chunk, in milliseconds."""
    policy.eval()
    took = []
    for number in range(2 * chunks):
        began = settle(config.device)
        with autocast(policy, config):
            policy.predict_action_chunk(dict(observation))
        if number >= chunks:
            took.append(1000 * (settle(config.device) - began))
    return float(np.median(took)), float(np.percentile(took, 99))


def compile_parts(policy: PreTrainedPolicy) -> None:
    """Compiles a ``gen3_vla``'s expert and image tower in place, into CUDA graphs where there is CUDA."""
    model = policy.encoder.backbone.model
    for part in (policy.expert, model.vision_model):
        part.compile(mode="reduce-overhead")


def memory_gib(device: str) -> tuple[float, float]:
    """The most memory that was in use, and that was held for it; on a CPU the process's own, twice."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / _GIB, torch.cuda.max_memory_reserved() / _GIB
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB
    return most, most


def measure(options: argparse.Namespace, plan: Plan, peak: float | None) -> dict[str, Any]:
    """Builds, trains and acts; prints a line each and gives the figures."""
    device, size = options.device, options.batch_size
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        backbone = write_backbone(Path(name), tiny=plan.tiny)
        policy = build_policy(
            options.policy, backbone, dict(options.option), plan.image_size, device, tiny=plan.tiny
        )
        batches = [random_batch(policy.config, size, plan.image_size, device) for _ in range(_RESIDENT)]
    config = PolicyTrainingConfig(
        steps=plan.warm + plan.steps,
        batch_size=size,
        learning_rate=1e-5,
        warmup_steps=1,
        policy_type=options.policy,
        lora_rank=options.lora_rank,
        precision="bfloat16",
        device=device,
    )
    parameters = sum(p.numel() for p in policy.parameters())
    rate, operations = trained(policy, batches, config, plan)
    used, held = memory_gib(device)
    share = sum(p.numel() for p in policy.parameters() if p.requires_grad) / parameters
    mfu = None if peak is None else rate * operations / (peak * 1e12)
    print(
        f"{options.policy}: {parameters / 1e9:.3f} G parameters, {share:.1%} of them trained, batches of "
        f"{size} resident on the device: {rate:.2f} samples/s, {operations / 1e12:.3f} TFLOP a sample"
        + ("" if mfu is None else f", MFU {mfu:.1%} of {peak:.0f} TFLOP/s")
    )
    print(f"training's peak memory: {used:.2f} GiB in use, {held:.2f} GiB held")
    observation = first_sample(batches[0])
    median, p99 = latencies_ms(policy, observation, config, plan.chunks)
    print(f"one chunk: median {median:.1f} ms, p99 {p99:.1f} ms")
    figures = {
        "mfu": mfu and round(mfu, 4),
        "samples_per_s": round(rate, 3),
        "peak_memory_gib": round(used, 3),
        "chunk_ms_median": round(median, 3),
        "chunk_ms_p99": round(p99, 3),
        "parameters": parameters,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "policy": options.policy,
        "batch_size": size,
        "lora_rank": options.lora_rank,
        "reserved_memory_gib": round(held, 3),
        "tflop_per_sample": round(operations / 1e12, 6),
    }
    if options.compile:
        compile_parts(policy)
        median, p99 = latencies_ms(policy, observation, config, plan.chunks)
        print(f"one chunk, expert and image tower compiled: median {median:.1f} ms, p99 {p99:.1f} ms")
        figures |= {"compiled_chunk_ms_median": round(median, 3), "compiled_chunk_ms_p99": round(p99, 3)}
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the JSON line; 2 where there is no device, or one whose peak is not known."""
    options = _options(arguments)
    smoke = options.device == "cpu" and options.quick
    if not smoke and (options.device != "cuda" or not torch.cuda.is_available()):
        print(
            "gpu_policy: no CUDA device is at hand, so nothing was measured; '--device cpu --quick' runs a "
            "tiny shape on the CPU, to see that it works",
            file=sys.stderr,
        )
        return 2
    if options.compile and options.policy != "gen3_vla":
        print("gpu_policy: --compile is for gen3_vla", file=sys.stderr)
        return 2
    if smoke and options.policy in ("pi05", "pi0"):
        print(f"gpu_policy: {options.policy} has one size, 4 G parameters: it needs a GPU", file=sys.stderr)
        return 2
    peak = None if smoke else options.peak_tflops or peak_tflops(torch.cuda.get_device_name())
    if not smoke and peak is None:
        print(
            f"gpu_policy: the peak of {torch.cuda.get_device_name()} is not known here: give it with "
            "--peak-tflops (dense bfloat16, 10^12 operations a second)",
            file=sys.stderr,
        )
        return 2
    print(json.dumps(measure(options, SMOKE if smoke else QUICK if options.quick else FULL, peak)))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and chunks")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--policy", choices=POLICIES, default="gen3_vla")
    parser.add_argument("--lora-rank", type=int, default=0, help="0 trains the weights themselves")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--peak-tflops", type=float, help="of the device, for dense bfloat16")
    parser.add_argument("--compile", action="store_true", help="time chunks with torch.compile, too")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=_option,
        metavar="NAME=JSON",
        help="a field of the policy's configuration, such as gradient_checkpointing=true",
    )
    return parser.parse_args(arguments)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    raise SystemExit(main())

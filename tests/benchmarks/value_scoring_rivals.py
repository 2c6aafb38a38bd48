"""What :mod:`tests.benchmarks.value_scoring` compares with: the networks alone, and behind a plain loader."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.frame_table import FrameTable
from tests.benchmarks.value_scoring_data import TASKS, ScoringData, Size
from value_model.scoring import ScoringModels, batch_frames
from value_model.training_config import ValueTrainingConfig
from workflows.value_ensemble import ValueEnsemble

# Different batches that the bare networks see: more than a processor's caches hold.
READY_BATCHES = 16


def say(text: str) -> None:
    """A line of the log."""
    print(text, flush=True)


class Bare:
    """The networks of one fold on tensors that are ready."""

    def __init__(self, data: ScoringData, ensemble: ValueEnsemble) -> None:
        """Loads the networks, and enough frames for a few batches."""
        self.config = ValueTrainingConfig.from_parameters(ensemble.training)
        self.models = ScoringModels.of_folders(ensemble.members, self.config)
        self.chosen = range(self.config.members)
        rows = batch_frames(self.config)
        table = FrameTable.load(data.cache, [entry.id for entry in data.recorded])
        rng = np.random.default_rng(0)
        device = self.models.device
        self.ready = []
        for _ in range(READY_BATCHES):
            frames = np.sort(rng.choice(len(table), rows))
            images, state = torch.from_numpy(table.images(frames)), torch.from_numpy(table.state[frames])
            self.ready.append((images.to(device), state.to(device)))
        tokens = self.models.network(0).tokenize(TASKS).to(device)
        self.tokens = tokens[torch.arange(rows, device=device) % len(TASKS)]
        self.frames = rows

    def batch(self, images: torch.Tensor, state: torch.Tensor, tokens: torch.Tensor) -> None:
        """The logits of one batch, by each network."""
        for i in self.chosen:
            self.models.network(i)(images, state, tokens)

    def rate(self, frames: int) -> float:
        """Frames per second over so many frames."""
        batches = max(1, frames // self.frames)
        with torch.inference_mode(), self.models.autocast():
            self._finish()
            began = time.perf_counter()
            for number in range(batches):
                self.batch(*self.ready[number % len(self.ready)], self.tokens)
            self._finish()
        return batches * self.frames / (time.perf_counter() - began)

    def _finish(self) -> None:
        if self.models.device.type == "cuda":
            torch.cuda.synchronize()


def naive_rate(data: ScoringData, bare: Bare, folder: Path, size: Size) -> float:
    """Frames per second of the networks behind a ``DataLoader`` over LeRobot's own dataset."""
    rates = {}
    for decoder in working_decoders(folder):
        # In this order: a child forked after videos were opened here would share their positions.
        for workers in size.naive_workers:
            rates[decoder, workers] = _naive_rate(bare, folder, decoder, workers, size.lerobot_frames)
            say(f"naive, {decoder}, {workers} workers: {rates[decoder, workers]:.0f} frames/s")
    return max(rates.values())


def working_decoders(folder: Path) -> list[str]:
    """LeRobot's video decoders that work here."""
    from lerobot.datasets import LeRobotDataset

    from pipeline.lerobot_files import REPO_ID

    working = []
    for decoder in ("torchcodec", "pyav"):
        try:
            LeRobotDataset(REPO_ID, root=folder, video_backend=decoder)[0]
            working.append(decoder)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            say(f"LeRobot's decoder {decoder} does not work here: {str(error).splitlines()[0]}")
    return working[:1]


def _naive_rate(bare: Bare, folder: Path, decoder: str, workers: int, frames: int) -> float:
    from lerobot.datasets import LeRobotDataset

    from pipeline.lerobot_files import REPO_ID

    dataset: Any = LeRobotDataset(REPO_ID, root=folder, video_backend=decoder)
    device = bare.models.device
    network = bare.models.network(0)
    cameras = [key for key in dataset[0] if key.startswith("observation.images.")]
    skipped = 2 * workers + 1
    count = skipped + max(1, frames // bare.frames)
    loader: Any = torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, [i % len(dataset) for i in range(count * bare.frames)]),
        batch_size=bare.frames,
        num_workers=workers,
    )
    began = 0.0
    with torch.inference_mode(), bare.models.autocast():
        for number, batch in enumerate(loader):
            if number == skipped:
                began = time.perf_counter()
            images = torch.stack([batch[camera] for camera in cameras], dim=1).to(device)
            pixels = (images.movedim(2, -1) * 255).to(torch.uint8)
            tokens = network.tokenize(batch["task"]).to(device)
            bare.batch(pixels, batch["observation.state"].to(device), tokens)
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (count - skipped) * bare.frames / (time.perf_counter() - began)

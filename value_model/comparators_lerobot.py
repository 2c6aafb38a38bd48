"""LeRobot's reward models (``lerobot.rewards`` of LeRobot 0.6.1) as comparators, and which of them can be.

* ``reward_classifier``: :class:`LeRobotClassifier`, trained on the episodes outside each fold. Its encoder
  may come from a local folder; only its head is trained, as LeRobot runs the rest without gradients.
* ``sarm``: :class:`value_model.comparators_sarm.LeRobotSarm`, trained on the successes outside each fold.
  Its own processor cannot be used, since it names the hub's CLIP in its code and needs the package faker;
  the model itself takes the embeddings of any CLIP.
* ``topreward``: :class:`value_model.comparators_topreward.LeRobotTopReward`, zero-shot, with any Qwen3-VL
  from a local folder. It refuses to be trained (``forward`` raises ``NotImplementedError``).
* ``robometer``: none. It can be built around a local Qwen3-VL, but refuses to be trained too, and its
  progress and success heads are then random: trained ones exist only in the published 4 B checkpoint. Its
  processor also needs the package qwen-vl-utils, which LeRobot installs for it alone.

LeRobot has transformers run whatever code a model's folder or hub id names (``trust_remote_code=True``). So
pretrained parts come from a local folder alone, and one that names code of its own is refused: nothing is
downloaded, and nothing in the folder is run. LeRobot and transformers are imported when scoring starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.comparators_chance import chance_by_task, score_by_chance, won_frames
from value_model.comparators_cross_fitting import Predictor, spread
from value_model.returns import Outcomes
from value_model.training_config import ValueTrainingConfig

_SCORING_BATCH = 128


@dataclass(frozen=True)
class LeRobotClassifier:
    """LeRobot's success classifier, one for each task and fold, as chance of success at every frame.

    backbone: a local folder with a Hugging Face image encoder. model_type: ``cnn`` for a
    ResNet whose last features are 4 x 4 at ``image_size`` (128 for a stride of 32), ``transformer`` for a
    ViT of that size. width: of its hidden layers. It is not told the task, hence one for each.
    """

    backbone: str
    model_type: Literal["cnn", "transformer"] = "cnn"
    image_size: int = 128
    width: int = 256
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 1e-3
    name: ClassVar[str] = "LeRobot classifier"
    sentence: ClassVar[str] = (
        "the chance of success that LeRobot's classifier reads from the pictures, and nothing of time"
    )

    def score(self, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
        """The value of every frame out of fold, float32 ``(N,)`` in [−1, 0]."""
        won = won_frames(table, outcomes)

        def fit(known: np.ndarray, fold: int) -> Predictor:
            def one_task(frames: np.ndarray) -> Predictor:
                with seeded(config.seed, fold) as rng:
                    return self._fit(table, won, frames, rng, config.device)

            return chance_by_task(table, known, one_task)

        return score_by_chance(table, outcomes, config, fit)

    def _fit(
        self, table: FrameTable, won: np.ndarray, frames: np.ndarray, rng: np.random.Generator, device: str
    ) -> Predictor:
        model, prepare = self._build(table, frames, device)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=model.config.weight_decay)
        model.train()
        # Frozen weights with batch statistics of their own would be another encoder than the one that scores.
        model.encoder.eval()
        for _ in range(self.steps):
            chosen = rng.choice(frames, self.batch_size)
            batch = prepare(chosen) | {"next.reward": torch.as_tensor(won[chosen]).float().to(device)}
            loss, _ = model(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.eval()

        @torch.inference_mode()
        def predict(wanted: np.ndarray) -> np.ndarray:
            found = []
            for start in range(0, len(wanted), _SCORING_BATCH):
                batch = prepare(wanted[start : start + _SCORING_BATCH])
                pictures = [batch[key] for key in model.config.input_features]
                found.append(model.predict(pictures).probabilities.float().cpu().numpy())
            return np.concatenate(found)

        return predict

    def _build(
        self, table: FrameTable, frames: np.ndarray, device: str
    ) -> tuple[Any, Callable[[np.ndarray], dict[str, Any]]]:
        """The untrained model, and what makes its input of frame indices."""
        backbone = local_model(self.backbone)
        from lerobot.configs import FeatureType, PolicyFeature
        from lerobot.rewards.classifier.configuration_classifier import RewardClassifierConfig
        from lerobot.rewards.factory import make_reward_model, make_reward_pre_post_processors

        shape = (3, self.image_size, self.image_size)
        keys = [f"observation.images.{camera}" for camera in table.cameras]
        settings = RewardClassifierConfig(
            input_features={key: PolicyFeature(type=FeatureType.VISUAL, shape=shape) for key in keys},
            num_cameras=len(keys),
            model_name=str(backbone),
            model_type=self.model_type,
            hidden_dim=self.width,
            latent_dim=self.width,
            device=device,
        )
        model = make_reward_model(settings)

        def pictures(chosen: np.ndarray) -> dict[str, Tensor]:
            sized = resized(table.images(chosen), self.image_size)
            return {key: sized[:, camera] for camera, key in enumerate(keys)}

        sample = pictures(spread(frames, 200))
        statistics = {
            key: {"mean": found.mean((0, 2, 3))[:, None, None], "std": found.std((0, 2, 3))[:, None, None]}
            for key, found in sample.items()
        }
        preprocess, _ = make_reward_pre_post_processors(settings, dataset_stats=statistics)
        return model, lambda chosen: preprocess(dict(pictures(chosen)))


def local_model(name: str) -> Path:
    """The folder ``name`` of a pretrained model, which names no code of its own that would be run.

    Raises ``InputError`` for what is no folder here (a hub id), for JSON that cannot be read, and where
    there is an ``auto_map``.
    """
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(f"{name} is no folder here: download the model first, and give its folder")
    for path in sorted(folder.rglob("*.json")):
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}): download the model again") from error
        if _names_code(document):
            raise InputError(
                f"{path} has an auto_map: the model comes with code of its own, which would be run; use a "
                "model that transformers itself knows"
            )
    # Absolute: LeRobot must not take a relative path for a hub id.
    return folder.absolute()


def _names_code(document: Any) -> bool:
    """Whether there is a key ``auto_map`` anywhere in a JSON document."""
    if isinstance(document, dict):
        return "auto_map" in document or any(map(_names_code, document.values()))
    return isinstance(document, list) and any(map(_names_code, document))


def resized(images: np.ndarray, side: int) -> Tensor:
    """``(B, cameras, S, S, 3)`` uint8 as ``(B, cameras, 3, side, side)`` float32 in [0, 1]."""
    batch, cameras = images.shape[:2]
    pixels = torch.as_tensor(images).flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    sized = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return sized.unflatten(0, (batch, cameras))


def history(table: FrameTable, frames: np.ndarray, count: int, gap_s: float) -> np.ndarray:
    """The ``count`` frames up to and including each of B frames, ``gap_s`` apart: ``(B, count)`` indices.

    Oldest first; before the episode's start its first frame repeats. Nothing after the frame is in it.
    """
    episode = table.episode_index[frames]
    gap = np.maximum(1, np.round(gap_s * table.rates[episode])).astype(np.int64)
    back = np.arange(count - 1, -1, -1)
    return np.maximum(frames[:, None] - gap[:, None] * back, table.starts[episode][:, None])


@contextmanager
def seeded(*numbers: int) -> Iterator[np.random.Generator]:
    """Within: torch's global generator, which is put back, and the one given start from these numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        yield np.random.default_rng(list(numbers))

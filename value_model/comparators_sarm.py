"""LeRobot's SARM (arXiv 2509.25358) as a comparator: how far an attempt has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.frame_table import FrameTable
from value_model.comparators_chance import won_frames
from value_model.comparators_cross_fitting import Predictor, by_task, cross_fitted
from value_model.comparators_lerobot import history, local_model, seeded
from value_model.returns import Outcomes, frame_returns, task_scales
from value_model.training_config import ValueTrainingConfig

_BATCH = 128
# SARM keeps the stage before the point and the progress after it: 1.0 would be the start of a next stage.
_MOST_PROGRESS = 0.999


@dataclass(frozen=True)
class LeRobotSarm:
    """(1 − p) x (the mean return of successes at their first frame), p being SARM's progress in [0, 1].

    Used in its mode without annotated stages. clip: a local folder with a CLIP and its tokenizer; it is not
    trained. SARM takes one camera: it is given all cameras' embeddings, one after the
    other. It is trained as LeRobot does, on successes and with rewinding, but sees ``past`` frames ``gap_s``
    apart *up to* the one it judges; LeRobot centres the window, so that half of it would be the future.
    width, layers: of its two transformers.
    """

    clip: str
    past: int = 8
    gap_s: float = 0.5
    most_rewound: int = 4
    rewind_share: float = 0.8
    width: int = 256
    layers: int = 4
    steps: int = 500
    batch_size: int = 32
    learning_rate: float = 3e-4
    name: ClassVar[str] = "LeRobot SARM"
    sentence: ClassVar[str] = "how far the attempt has come, by LeRobot's SARM, as if all attempts succeeded"

    def score(self, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
        """The value of every frame out of fold, float32 ``(N,)`` in [−1, 0]; −0.5 without successes."""
        won = won_frames(table, outcomes)
        returns = frame_returns(table, outcomes, task_scales(table, outcomes, config.failure_penalty))
        pictures, texts = _embed(table, self.clip, config.device)

        def fit(known: np.ndarray, fold: int) -> Predictor:
            successes = known[won[known]]
            if len(successes) == 0:
                return lambda frames: np.full(len(frames), -0.5)
            starts = successes[table.frame_index[successes] == 0]
            first = {task: float(returns[f].mean()) for task, f in by_task(table, starts)}
            of_episode = np.array([first.get(task, -0.5) for task in table.tasks])
            inputs = _Inputs(table, pictures, texts, successes, config.device)
            with seeded(config.seed, fold) as rng:
                model = self._train(inputs, successes, rng)
            return lambda frames: (
                (1 - self._progress(model, inputs, frames)) * of_episode[table.episode_index[frames]]
            )

        return cross_fitted(table, outcomes, config, fit)

    def _train(self, inputs: _Inputs, successes: np.ndarray, rng: np.random.Generator) -> Any:
        from lerobot.rewards.sarm.configuration_sarm import SARMConfig
        from lerobot.rewards.sarm.modeling_sarm import SARMRewardModel

        settings = SARMConfig(
            n_obs_steps=self.past,
            max_rewind_steps=self.most_rewound,
            image_dim=inputs.pictures.shape[1],
            text_dim=inputs.texts.shape[1],
            hidden_dim=self.width,
            num_heads=4,
            num_layers=self.layers,
            max_state_dim=max(1, inputs.state.shape[1]),
            device=inputs.device,
        )
        model = SARMRewardModel(settings)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, weight_decay=1e-3)
        model.train()
        for _ in range(self.steps):
            chosen = rng.choice(successes, self.batch_size)
            rewound = np.where(
                rng.random(len(chosen)) < self.rewind_share,
                rng.integers(1, self.most_rewound + 1, len(chosen)),
                0,
            )
            loss, _ = model(self._rewinding(inputs, chosen, rewound))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return model.eval()

    def _rewinding(self, inputs: _Inputs, frames: np.ndarray, rewound: np.ndarray) -> dict[str, Tensor]:
        """Windows up to the frames, then up to ``most_rewound`` steps back again: progress may fall, too."""
        window = history(inputs.table, frames, self.past + 1, self.gap_s)
        back = history(inputs.table, frames, self.most_rewound + 1, self.gap_s)[:, -2::-1]
        rows = np.concatenate([window, back], axis=1)
        lengths = self.past + 1 + rewound
        valid = np.arange(rows.shape[1]) < lengths[:, None]
        batch = inputs.of(rows, valid)
        progress = inputs.progress_of(rows) * valid
        batch["lengths"] = torch.as_tensor(lengths)
        batch["sparse_targets"] = torch.as_tensor(progress.astype(np.float32))
        return batch

    @torch.inference_mode()
    def _progress(self, model: Any, inputs: _Inputs, frames: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(frames), _BATCH):
            rows = history(inputs.table, frames[start : start + _BATCH], self.past + 1, self.gap_s)
            batch = inputs.of(rows, np.ones(rows.shape, dtype=bool))
            found.append(
                model.calculate_rewards(
                    batch["text_features"], batch["video_features"], batch["state_features"]
                )
            )
        return np.concatenate(found).astype(np.float64)


class _Inputs:
    """What SARM reads of a table's frames, for one fold."""

    def __init__(
        self, table: FrameTable, pictures: np.ndarray, texts: np.ndarray, known: np.ndarray, device: str
    ) -> None:
        self.table, self.pictures, self.texts, self.device = table, pictures, texts, device
        deviation = np.maximum(table.state[known].std(0), 1e-2)
        self.state = ((table.state - table.state[known].mean(0)) / deviation).astype(np.float32)

    def of(self, rows: np.ndarray, valid: np.ndarray) -> dict[str, Tensor]:
        """The batch of windows ``rows`` ``(B, T)`` of frame indices; zeros where not ``valid``."""
        episode = self.table.episode_index[rows[:, 0]]
        return {
            "video_features": torch.as_tensor(self.pictures[rows] * valid[:, :, None]),
            "state_features": torch.as_tensor(self.state[rows] * valid[:, :, None]),
            "text_features": torch.as_tensor(self.texts[episode]),
        }

    def progress_of(self, rows: np.ndarray) -> np.ndarray:
        """The share of its episode that lies before each frame: 0 at the first, almost 1 at the last."""
        last = np.maximum(self.table.lengths[self.table.episode_index[rows]] - 1, 1)
        return np.minimum(self.table.frame_index[rows] / last, _MOST_PROGRESS)


@torch.inference_mode()
def _embed(table: FrameTable, clip: str, device: str) -> tuple[np.ndarray, np.ndarray]:
    """CLIP's float32 embeddings of every frame ``(N, cameras x D)`` and of each episode's task ``(E, D)``."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    folder = local_model(clip)
    model: Any = CLIPModel.from_pretrained(folder, use_safetensors=True)
    model = model.to(device).eval()
    processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    pictures = []
    for start in range(0, len(table), _BATCH):
        images = table.images(np.arange(start, min(start + _BATCH, len(table))))
        count, cameras = images.shape[:2]
        flat = processor(list(images.reshape(count * cameras, *images.shape[2:])), return_tensors="pt")
        found = model.get_image_features(**flat.to(device)).pooler_output
        pictures.append(found.float().cpu().numpy().reshape(count, -1))
    tasks = list(dict.fromkeys(table.tasks))
    words = tokenizer(tasks, return_tensors="pt", padding=True, truncation=True, return_token_type_ids=False)
    texts = model.get_text_features(**words.to(device)).pooler_output.float().cpu().numpy()
    return np.concatenate(pictures), texts[[tasks.index(task) for task in table.tasks]]

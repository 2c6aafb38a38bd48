"""LeRobot's TOPReward (arXiv 2602.19313) as a comparator: is the task done, in a model's own words?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pipeline.frame_table import FrameTable
from value_model.comparators_chance import chance_by_task, fit_chance, score_by_chance, won_frames
from value_model.comparators_lerobot import history, local_model
from value_model.returns import Outcomes
from value_model.training_config import ValueTrainingConfig

_KEY = "observation.images.all"


@dataclass(frozen=True)
class LeRobotTopReward:
    """log P("True" | film, task) of a vision-language model, turned into a chance of success out of fold.

    vlm: a local folder with a Qwen3-VL and its processor; it is not trained. What it says is no
    probability of success: a logistic regression for each task and fold makes it one. It is shown ``past``
    pictures ``gap_s`` apart up to the frame, all cameras side by side, and asked about every ``every_s``
    seconds; in between a frame has what was said last. dtype: of its weights.
    """

    vlm: str
    past: int = 8
    gap_s: float = 0.5
    every_s: float = 0.5
    batch_size: int = 8
    dtype: str = "auto"
    name: ClassVar[str] = "LeRobot TOPReward"
    sentence: ClassVar[str] = (
        "whether an untrained vision-language model says that the task is done, and nothing of time"
    )

    def score(self, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
        """The value of every frame out of fold, float32 ``(N,)`` in [−1, 0]."""
        won = won_frames(table, outcomes)
        said = self.rewards(table, config.device)[:, None]
        return score_by_chance(
            table,
            outcomes,
            config,
            # One number cannot be overfitted: hardly any regularisation.
            lambda known, fold: chance_by_task(
                table, known, lambda frames: fit_chance(said.__getitem__, won, frames, data_weight=1e3)
            ),
        )

    def rewards(self, table: FrameTable, device: str) -> np.ndarray:
        """TOPReward's own number for every frame, float64 ``(N,)``: the log-probability, at most 0."""
        vlm = local_model(self.vlm)
        from lerobot.rewards.factory import make_reward_model, make_reward_pre_post_processors
        from lerobot.rewards.topreward.configuration_topreward import TOPRewardConfig

        settings = TOPRewardConfig(
            vlm_name=str(vlm), image_key=_KEY, max_frames=self.past, torch_dtype=self.dtype, device=device
        )
        model = make_reward_model(settings)
        preprocess, _ = make_reward_pre_post_processors(settings)
        stride = np.maximum(1, np.round(self.every_s * table.rates)).astype(np.int64)[table.episode_index]
        asked = np.flatnonzero(table.frame_index % stride == 0)
        said = np.empty(len(asked))
        for start in range(0, len(asked), self.batch_size):
            part = asked[start : start + self.batch_size]
            rows = history(table, part, self.past, self.gap_s)
            images = table.images(rows.ravel())
            # (B x T, cameras, S, S, 3) to one picture S x (cameras S) for each moment.
            films = images.transpose(0, 2, 1, 3, 4).reshape(*rows.shape, images.shape[2], -1, 3)
            tasks = [table.tasks[episode] for episode in table.episode_index[part]]
            batch = preprocess({_KEY: torch.as_tensor(films), "task": tasks})
            said[start : start + len(part)] = model.compute_reward(batch).double().cpu().numpy()
        # Every episode's first frame was asked about, so that what was said last is its own.
        return said[np.searchsorted(asked, np.arange(len(table)), side="right") - 1]

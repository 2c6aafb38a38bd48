"""What could be known at best: values by regression trees on the simulator's own state, out of fold.

The recorded actions are played again from the same scene, which repeats an episode exactly, and at every
frame it is noted where both cubes are as seen from the tool, how they lie, and what holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline.episode import action_to_dict
from pipeline.frame_table import FrameTable
from value_model.folds import assign_folds
from value_model.returns import Outcomes, frame_returns, task_scales
from value_model.training_config import ValueTrainingConfig

if TYPE_CHECKING:
    from collectors.gen3_world import World

TREES, LEAF = 100, 20


def true_state(table: FrameTable, scenes: Mapping[str, int]) -> np.ndarray:
    """What the simulator knew at every frame, float32 ``(N, 28)``; ``scenes`` are the episodes' seeds."""
    from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config

    rows = []
    with SimulatedGen3(SimulatedGen3Config(cameras=())) as robot:
        for i, (episode_id, task) in enumerate(zip(table.episode_ids, table.tasks, strict=True)):
            robot.prepare(task, scenes[episode_id])
            for action in table.action[table.frames_of(i)]:
                rows.append(_seen(robot.world, task))
                robot.send_action(action_to_dict(action))
    return np.array(rows, dtype=np.float32)


def _seen(world: World, task: str) -> list[float]:
    from collectors.gen3_scene import CUBE_COLORS
    from collectors.gen3_tasks import split_task
    from collectors.scripted_motion import wrap_quarter

    asked, _ = split_task(task)
    tool, rotation = world.tool_position, world.tool_rotation
    yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    seen: list[float] = []
    for color in (asked, next(color for color in CUBE_COLORS if color != asked)):
        position = world.cube_position(color)
        away = position - tool
        across = rotation[:2, :2].T @ away[:2]  # along the fingers' motion, and across it
        turn = wrap_quarter(world.cube_yaw(color) - yaw)
        grip = (float(world.holding(color)), float(world.touching_pads(color)))
        seen += [*away, float(np.hypot(*away[:2])), position[2], *grip, *across, *np.abs(across)]
        seen += [turn, abs(turn)]
    return [*seen, tool[2], world.gripper_position]


def tree_values(
    table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig, state: np.ndarray
) -> np.ndarray:
    """Extremely randomised trees' values of every frame, float32 ``(N,)``, in the value model's folds."""
    from sklearn.ensemble import ExtraTreesRegressor

    returns = frame_returns(table, outcomes, task_scales(table, outcomes, config.failure_penalty))
    folds = assign_folds(table, outcomes, config.folds, config.seed)
    fold = np.array([folds[e] for e in table.episode_ids])[table.episode_index]
    values = np.empty(len(table), dtype=np.float32)
    for held in range(config.folds):
        trees = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_features=0.5, random_state=config.seed)
        trees.fit(state[fold != held], returns[fold != held])
        values[fold == held] = trees.predict(state[fold == held])
    return values

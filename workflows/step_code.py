"""The modules whose source decides a step's result, by kind of step; a package stands for all in it.

They enter a step's key: when one of them changes, the step is computed anew. So a module that only
reads, shows or guards what others compute is not among them.
"""

from __future__ import annotations

CACHE = (
    "pipeline.frame_cache",
    "pipeline.frame_codec",
    "pipeline.verified_frames",
    "pipeline.mapped_arrays",
    "pipeline.cache_layout",
)
DATASET = (
    "pipeline.lerobot_dataset",
    "pipeline.dataset_folder",
    "pipeline.dataset_selection",
    "pipeline.lerobot_statistics",
    "pipeline.lerobot_files",
    "pipeline.lerobot_language",
    "pipeline.lerobot_rows",
    "pipeline.episode_video",
    "pipeline.exchange.action_spaces",
    "pipeline.exchange.rotations",
    "pipeline.frame_codec",
    "pipeline.gen3_kinematics",
    "pipeline.verified_frames",
)

_FRAMES = ("pipeline.frame_table", *CACHE)
_ARM = (
    "collectors",
    "pipeline.gen3_kinematics",
    "pipeline.policy",
    "pipeline.prompts",
    "pipeline.subtask_prompts",
    "pipeline.vlm",
)
# Which frames there are of the frozen labels, and what outcome each episode had.
_LABELLED = ("value_model.returns", "workflows.snapshot_table")

COLLECTING = (*_ARM, "pipeline.episode", "pipeline.episode_writer", "pipeline.frame_codec")
TRAINING = (
    *_FRAMES,
    *_LABELLED,
    "pipeline.frame_dataset",
    "pipeline.frame_subtasks",
    "pipeline.subtask_prompts",
    "pipeline.action_statistics",
    "pipeline.exchange.action_spaces",
    "pipeline.exchange.dataset_table",
    "pipeline.exchange.rotations",
    "pipeline.gen3_kinematics",
    "pipeline.lerobot_statistics",
    "pipeline.policy",
    "pipeline.process_group",
    "pipeline.prompts",
    "pipeline.vlm",
    "workflows.batch_sampling",
    "workflows.policy_training",
    "workflows.policy_training_batches",
    "workflows.policy_training_config",
    "workflows.policy_training_group",
    "workflows.policy_training_group_start",
    "workflows.policy_training_loop",
    "workflows.policy_training_prefetch",
    "workflows.policy_training_state",
    "workflows.policy_training_step",
    "workflows.ray_training",
)


def _value_model(*names: str) -> tuple[str, ...]:
    return tuple(f"value_model.{name}" for name in names)


_NETWORKS = (
    "pipeline.vlm",
    *_value_model(
        "bins",
        "network",
        "small_network",
        "training_config",
        "value_network",
        "vlm_config",
        "vlm_dual_encoder",
        "vlm_generative",
        "vlm_network",
        "vlm_tuning",
    ),
)
VALUE_TRAINING = (
    *_NETWORKS,
    *_value_model(
        "augmentation",
        "checkpoint",
        "folds",
        "inputs",
        "returns",
        "trainer",
        "training",
        "training_batches",
        "training_curves",
        "training_group",
        "training_state",
    ),
    *_FRAMES,
    *_LABELLED,
    "pipeline.process_group",
    "workflows.ray_training",
    "workflows.value_training",
)
# What decides the values that given models give to given frames; the name of a scoring run follows from it.
SCORING = (
    *_NETWORKS,
    *_value_model("checkpoint", "frame_feed", "inputs", "scoring", "scoring_models", "scoring_pass"),
    "pipeline.stored_frames",
    "pipeline.frame_scores",
    *CACHE,
    "workflows.scoring_worker",
)
ADVANTAGES = (
    *_NETWORKS,
    *_value_model(
        "advantages",
        "baselines",
        "calibration",
        "checkpoint",
        "comparators",
        "comparators_chance",
        "comparators_cross_fitting",
        "discrimination",
        "folds",
        "returns",
        "thumbnails",
    ),
    "pipeline.prompts",
    "workflows.rival_values",
    *_FRAMES,
)
JUDGING = ("value_model", "pipeline.vlm", *_FRAMES)
EVALUATING = (*_ARM, "workflows.evaluation")

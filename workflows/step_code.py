"""The modules whose source decides a step's result, by kind of step; a package stands for all in it.

They enter a step's key: when one of them changes, the step is computed anew. So a module that only
reads, shows or guards what others compute is not among them.
"""

from __future__ import annotations

CACHE = (
    "pipeline.frame_cache",
    "pipeline.verified_frames",
    "pipeline.mapped_arrays",
    "pipeline.cache_layout",
)
DATASET = (
    "pipeline.lerobot_dataset",
    "pipeline.dataset_folder",
    "pipeline.dataset_selection",
    "pipeline.lerobot_statistics",
)

_FRAMES = ("pipeline.frame_table", *CACHE)
_ARM = ("collectors", "pipeline.gen3_kinematics", "pipeline.policy")

COLLECTING = (*_ARM, "pipeline.episode", "pipeline.episode_writer")
TRAINING = (
    *_FRAMES,
    "pipeline.frame_dataset",
    "pipeline.action_statistics",
    "pipeline.policy",
    "workflows.policy_training",
)
VALUE = ("value_model", *_FRAMES)
# What decides the values that given models give to given frames; the name of a scoring run follows from it.
SCORING = (
    *(
        f"value_model.{name}"
        for name in (
            "bins",
            "checkpoint",
            "frame_feed",
            "inputs",
            "network",
            "scoring",
            "scoring_models",
            "scoring_pass",
            "small_network",
            "training_config",
            "value_network",
            "vlm_config",
            "vlm_dual_encoder",
            "vlm_files",
            "vlm_generative",
            "vlm_images",
            "vlm_network",
            "vlm_prompts",
            "vlm_tuning",
        )
    ),
    "pipeline.stored_frames",
    "pipeline.frame_codec",
    *CACHE,
)
EVALUATING = (*_ARM, "workflows.evaluation")

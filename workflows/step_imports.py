"""What a worker process imports before a step's work begins.

LeRobot, torch and MuJoCo take seconds to load. That is the start of a process, as Ray's own is: done before
the step is locked and timed, it is in no step's seconds, and a step that another process just finished is not
waited for with nothing loaded.
"""

from __future__ import annotations

import importlib

_POLICY = ("pipeline.policy.runner", "collectors.simulated_gen3")
_TRAINING = ("workflows.policy_training",)
_VALUES = ("value_model.training", "workflows.snapshot_table")

# By the step's name; what is not here loads little.
FIRST = {
    "record": ("collectors.simulated_sessions", "collectors.simulated_gen3"),
    "roll_out": ("collectors.simulated_sessions", *_POLICY),
    "train_base": _TRAINING,
    "fine_tune_recap": _TRAINING,
    "fine_tune_filtered": _TRAINING,
    "train_policy": _TRAINING,
    "evaluate": ("workflows.evaluation", *_POLICY),
    "film": _POLICY,
    "train_value": _VALUES,
    "score_values": ("value_model.scoring",),
    "episode_dataset": ("pipeline.lerobot_dataset",),
}


def load_first(name: str) -> None:
    """Imports what the step called ``name`` will need."""
    for module in FIRST.get(name, ()):
        importlib.import_module(module)

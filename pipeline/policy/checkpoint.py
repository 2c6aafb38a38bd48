"""LeRobot checkpoints of any policy type: a folder of config.json, model.safetensors and processors."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyAction, PolicyProcessorPipeline

import pipeline.policy  # noqa: F401 - registers gen3_vla with LeRobot
from pipeline.errors import InputError

_FILES = ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json")


@dataclass(frozen=True)
class Checkpoint:
    """A policy and the pipelines that belong to it."""

    policy: PreTrainedPolicy
    preprocessor: PolicyProcessorPipeline[dict[str, Any], dict[str, Any]]
    postprocessor: PolicyProcessorPipeline[PolicyAction, PolicyAction]

    def save(self, folder: Path) -> None:
        """Writes an ordinary LeRobot checkpoint into ``folder``, which is made if need be."""
        self.policy.save_pretrained(folder)
        self.preprocessor.save_pretrained(folder)
        self.postprocessor.save_pretrained(folder)


def load_checkpoint(folder: Path, device: str = "cpu") -> Checkpoint:
    """The checkpoint in ``folder`` on ``device``, in evaluation mode.

    Raises ``InputError`` when a file of it is missing or its policy type is unknown.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} is not a policy checkpoint (no {missing[0]}): give a folder that has one")
    try:
        config = PreTrainedConfig.from_pretrained(folder)
    except ValueError as error:
        raise InputError(f"{folder}/config.json cannot be used: {error}") from error
    config.device = device
    # LeRobot prints a line to standard output here, which would land inside a command's own output.
    with contextlib.redirect_stdout(io.StringIO()):
        policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    preprocessor, postprocessor = make_pre_post_processors(
        config,
        pretrained_path=str(folder),
        preprocessor_overrides={"device_processor": {"device": device}},
    )
    return Checkpoint(policy, preprocessor, postprocessor)

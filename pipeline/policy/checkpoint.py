"""LeRobot checkpoints of any policy type: a folder of config.json, model.safetensors and processors."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyAction, PolicyProcessorPipeline
from safetensors import SafetensorError, safe_open

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

    Raises ``InputError`` naming the file when one is missing, damaged or does not fit the others, and when
    the policy's type is unknown.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} is not a policy checkpoint (no {missing[0]}): give a folder that has one")
    _require_whole(folder)
    try:
        config = PreTrainedConfig.from_pretrained(folder)
    except Exception as error:  # draccus raises several types, and configurations whatever they like
        raise _unusable(folder / "config.json", error) from error
    config.device = device
    # LeRobot prints a line to standard output here, which would land inside a command's own output.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            policy = get_policy_class(config.type).from_pretrained(folder, config=config)
        except RuntimeError as error:
            if "state_dict" not in str(error):  # the device's trouble, not the file's
                raise
            raise _unusable(folder / "model.safetensors", error) from error
    try:
        preprocessor, postprocessor = make_pre_post_processors(
            config,
            pretrained_path=str(folder),
            preprocessor_overrides={"device_processor": {"device": device}},
        )
    except (AttributeError, KeyError, TypeError, ValueError, ImportError, FileNotFoundError) as error:
        raise _unusable(folder / "policy_{pre,post}processor.json", error) from error
    return Checkpoint(policy, preprocessor, postprocessor)


def _require_whole(folder: Path) -> None:
    """Raises ``InputError`` naming the first file that is cut short or is not what its name says."""
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt"):  # reads the header, and compares the file's length with it
                    pass
        except (OSError, ValueError, SafetensorError) as error:
            raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"{path} cannot be used: {reason[:300]}; copy the checkpoint again")

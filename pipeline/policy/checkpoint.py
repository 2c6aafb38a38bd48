"""LeRobot checkpoints of any policy type: a folder of config.json, model.safetensors and processors."""

import contextlib
import io
import json
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyAction, PolicyProcessorPipeline
from safetensors import SafetensorError, safe_open

import pipeline.policy  # noqa: F401 - registers gen3_vla with LeRobot
from pipeline.errors import InputError
from pipeline.policy.advantage_prompt import (
    AdvantagePromptStep,
    add_advantage_step,
    advantage_step,
    require_room,
    takes_language,
)
from pipeline.policy.hub_files import local_only
from pipeline.policy.loaded_weights import require_loaded
from pipeline.policy.processor_files import require_registered_steps
from pipeline.policy.tuning import has_adapters, merged_state
from pipeline.prompts import NONE

# The option of LeRobot's policies that says which weights torchvision is to fetch at construction.
BACKBONE_WEIGHTS = "pretrained_backbone_weights"

# What every checkpoint has.
FILES = ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json")


@dataclass(frozen=True)
class Checkpoint:
    """A policy and the pipelines that belong to it."""

    policy: PreTrainedPolicy
    preprocessor: PolicyProcessorPipeline[dict[str, Any], dict[str, Any]]
    postprocessor: PolicyProcessorPipeline[PolicyAction, PolicyAction]

    def tell(self, indicators: np.ndarray, tasks: Iterable[str] = ()) -> None:
        """Says on which indicators (N,) int8 the policy is trained, see :mod:`pipeline.prompts`.

        Where there is one, the saved checkpoint asks for "positive" by itself
        (:mod:`pipeline.policy.advantage_prompt`). Batches with indicators say the same. Raises ``InputError``
        where the prompt of one of the ``tasks`` has no room for its indicator.
        """
        step = advantage_step(self.preprocessor)
        if step is not None and bool((indicators != NONE).any()):
            if isinstance(step, AdvantagePromptStep):
                require_room(self.preprocessor, tasks)
            step.told()

    def save(self, folder: Path) -> None:
        """Writes an ordinary LeRobot checkpoint into ``folder``, which is made if need be.

        Low-rank adapters (:mod:`pipeline.policy.tuning`) are added to the weights that they adapt.
        """
        state = merged_state(self.policy) if has_adapters(self.policy) else None
        self.policy.save_pretrained(folder, state_dict=state)
        self.preprocessor.save_pretrained(folder)
        self.postprocessor.save_pretrained(folder)
        # safetensors writes for the owner alone; others on a shared disk may load what they may list.
        mode = stat.S_IMODE((folder / "config.json").stat().st_mode)
        for weights in folder.glob("*.safetensors"):
            weights.chmod(mode)


def load_checkpoint(folder: Path, device: str = "cpu") -> Checkpoint:
    """The checkpoint in ``folder`` on ``device``, in evaluation mode.

    Its prompts decide alone which advantage is asked for, whatever it asks for by itself in LeRobot's own
    commands. Raises ``InputError`` naming the file when one is missing, damaged or does not fit the others,
    and when the policy's type is unknown.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} is not a policy checkpoint (no {missing[0]}): give a folder that has one")
    _require_whole(folder)
    require_registered_steps(folder)
    try:
        config = PreTrainedConfig.from_pretrained(folder)
    except Exception as error:  # draccus raises several types, and configurations whatever they like
        raise _unusable(folder / "config.json", error) from error
    config.device = device
    if hasattr(config, BACKBONE_WEIGHTS):
        setattr(config, BACKBONE_WEIGHTS, None)  # the checkpoint's own replace them at once
    # LeRobot prints a line to standard output here, which would land inside a command's own output.
    with local_only(True), contextlib.redirect_stdout(io.StringIO()):
        policy = _read_policy(folder, config)
        require_loaded(policy, folder)
        try:
            preprocessor, postprocessor = make_pre_post_processors(
                config,
                pretrained_path=str(folder),
                preprocessor_overrides={"device_processor": {"device": device}},
            )
        except (AttributeError, KeyError, TypeError, ValueError, ImportError, OSError) as error:
            raise _unusable(folder / "policy_{pre,post}processor.json", error) from error
    _disarm(config, preprocessor)
    return Checkpoint(policy, preprocessor, postprocessor)


def _read_policy(folder: Path, config: PreTrainedConfig) -> PreTrainedPolicy:
    try:
        return get_policy_class(config.type).from_pretrained(folder, config=config)
    except RuntimeError as error:
        if "state_dict" not in str(error):  # the device's trouble, not the file's
            raise
        raise _unusable(folder / "model.safetensors", error) from error
    except OSError as error:  # a backbone's or tokenizer's files, which its configuration names
        raise InputError(
            f"{folder} needs files of a model hub that are not on this machine: fetch them "
            f"('hf download NAME') or put them back ({' '.join(str(error).split())[:200]})"
        ) from error
    except ImportError as error:
        raise InputError(f"{folder}: {config.type} needs a package that is not installed: {error}") from error


def _disarm(config: PreTrainedConfig, preprocessor: PolicyProcessorPipeline[Any, Any]) -> None:
    """Lets the prompts alone decide which advantage is asked for, as all of this project's code expects."""
    step = advantage_step(preprocessor)
    if step is not None:
        step.trained |= step.when_absent == "positive"
        step.when_absent = "nothing"
    elif takes_language(config):
        add_advantage_step(preprocessor, AdvantagePromptStep())


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

"""The one door to every LeRobot policy: a checkpoint that fits this project's data, ready to be trained.

From scratch, or from somebody's pretrained weights (SmolVLA, π0, π0.5 ...), whose features become this
robot's cameras, state and actions, and whose normalisation statistics become those of the frames.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.episode import ACTION_NAMES, POLICY_STATE_NAMES
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.policy.advantage_prompt import (
    AdvantagePromptStep,
    AdvantageStateStep,
    add_advantage_step,
    takes_language,
)
from pipeline.policy.checkpoint import BACKBONE_WEIGHTS, FILES, Checkpoint
from pipeline.policy.configuration_gen3_vla import gen3_features
from pipeline.policy.hub_files import (
    local_only,
    require_backbone_files,
    require_backbone_weights,
    require_local,
    require_tokenizer,
)
from pipeline.policy.loaded_weights import require_loaded
from pipeline.policy.policy_frames import require_imitation
from pipeline.policy.policy_options import config_class, decoded_options
from pipeline.policy.training_statistics import Statistics, widened, with_indicator

OURS = "gen3_vla"

# Not fields of a configuration, but of how one begins.
PATH = "path"
ALLOW_DOWNLOAD = "allow_download"

# Options that name a model, of which the configuration and the tokenizer are read in any case.
_BACKBONES = ("vlm_model_name", "vlm")


@dataclass(frozen=True)
class TableFacts:
    """What of the data decides a policy's inputs: the cameras' names and the side of their images."""

    cameras: tuple[str, ...]
    image_size: int


def table_facts(table: FrameTable) -> TableFacts:
    """Of a table of frames."""
    return TableFacts(table.cameras, table.image_shape[1])


def new_checkpoint(
    policy_type: str,
    facts: TableFacts,
    stats: Statistics,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Checkpoint:
    """A policy of ``policy_type`` for this data, with its processors, on ``device``.

    ``stats``: :func:`pipeline.policy.training_statistics.table_statistics`. ``options`` are fields of the
    type's configuration (:func:`pipeline.policy.policy_options.decoded_options`), and ``path``, a folder
    or hub id to take weights and the configuration from; an id is only fetched with ``allow_download``.
    Weights that are made anew are drawn with torch's generator. A policy that reads no text gets a state
    that is one longer: see :mod:`pipeline.policy.advantage_prompt`. Raises ``InputError``, one line, for
    an unknown type or option, values that contradict each other, and weights that are not there.
    """
    path, allow, decoded = _wanted(policy_type, options)
    with local_only(not allow), contextlib.redirect_stdout(io.StringIO()):
        config = _config(policy_type, facts, path, allow, decoded, device)
        require_backbone_weights(getattr(config, BACKBONE_WEIGHTS, None), allow)
        require_tokenizer(policy_type, allow)
        stats = stats if policy_type == OURS else {**stats, ACTION: widened(stats[ACTION])}
        if not takes_language(config):
            stats = with_indicator(stats)
        try:
            policy = _build(config, path)
            processors = make_pre_post_processors(config, dataset_stats=stats)
        except InputError:
            raise
        except Exception as error:  # constructors raise whatever they like, and loaders too
            changed = _changed(path, decoded) if path is not None else {}
            raise InputError(_reason(policy_type, error, allow, changed)) from error
    checkpoint = Checkpoint(policy, *processors)
    step = AdvantagePromptStep() if takes_language(config) else AdvantageStateStep()
    add_advantage_step(checkpoint.preprocessor, step)
    return checkpoint


def check_policy(
    policy_type: str, facts: TableFacts, options: Mapping[str, Any] | None = None, *, here: bool = True
) -> None:
    """Raises ``InputError`` for what :func:`new_checkpoint` would refuse before it reads or makes weights.

    Unknown types and options, values that contradict each other, a policy that learns from rewards, and,
    where the weights are to be read on this machine (``here``), files of a hub that are not on it.
    """
    path, allow, decoded = _wanted(policy_type, options)
    with local_only(not allow), contextlib.redirect_stdout(io.StringIO()):
        config = _config(policy_type, facts, path, allow, decoded, "cpu")
        require_imitation(config)
        if here:
            require_backbone_weights(getattr(config, BACKBONE_WEIGHTS, None), allow)
            require_tokenizer(policy_type, allow)
            for name in _BACKBONES:
                require_backbone_files(name, str(getattr(config, name, "") or ""), allow)


def _wanted(policy_type: str, options: Mapping[str, Any] | None) -> tuple[str | None, bool, dict[str, Any]]:
    """The weights to begin with, whether they may be fetched, and the options as the type wants them."""
    rest = dict(options or {})
    path, allow = rest.pop(PATH, None), bool(rest.pop(ALLOW_DOWNLOAD, False))
    config_class(policy_type)
    return None if path is None else str(path), allow, decoded_options(policy_type, rest)


def _config(
    policy_type: str,
    facts: TableFacts,
    path: str | None,
    allow: bool,
    decoded: Mapping[str, Any],
    device: str,
) -> PreTrainedConfig:
    if path is not None:
        return _stored_config(require_local(path, allow), policy_type, facts, decoded, device)
    try:
        return _new_config(policy_type, facts, decoded, device)
    except (OSError, ImportError) as error:  # some read a hub, or import a package of their own, here
        raise InputError(_reason(policy_type, error, allow)) from error


def fits(folder: Path, facts: TableFacts) -> bool:
    """Whether the checkpoint in ``folder`` is one of this project's for such data, to be trained further.

    Then its statistics and features stay as they are; of any other only the weights are taken.
    """
    if any(not (folder / name).is_file() for name in FILES):
        return False
    config = _read_config(str(folder))
    inputs, outputs = _features(config.type, facts)
    wanted = {**inputs, OBS_STATE: _state(config)}
    return config.input_features == wanted and config.output_features == outputs


def stored_type(path: str, allow_download: bool = False) -> str:
    """The type of the policy in a folder or under a hub id; ``InputError`` where there is none."""
    with local_only(not allow_download):
        return str(_read_config(require_local(path, allow_download)).type)


def _read_config(path: str) -> PreTrainedConfig:
    try:
        return PreTrainedConfig.from_pretrained(path)
    except Exception as error:  # draccus raises several types
        raise InputError(f"{path} holds no LeRobot policy: {_line(error)}") from error


def _state(config: PreTrainedConfig) -> PolicyFeature:
    size = len(POLICY_STATE_NAMES) + (not takes_language(config))
    return PolicyFeature(FeatureType.STATE, (size,))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _features(
    policy_type: str, facts: TableFacts
) -> tuple[dict[str, PolicyFeature], dict[str, PolicyFeature]]:
    if policy_type == OURS:
        return gen3_features(facts.image_size)
    shape = (3, facts.image_size, facts.image_size)
    inputs = {f"{OBS_IMAGES}.{camera}": PolicyFeature(FeatureType.VISUAL, shape) for camera in facts.cameras}
    inputs[OBS_STATE] = PolicyFeature(FeatureType.STATE, (len(POLICY_STATE_NAMES),))
    return inputs, {ACTION: PolicyFeature(FeatureType.ACTION, (len(ACTION_NAMES),))}


def _new_config(
    policy_type: str, facts: TableFacts, decoded: Mapping[str, Any], device: str
) -> PreTrainedConfig:
    inputs, outputs = _features(policy_type, facts)
    try:
        config = make_policy_config(
            policy_type, input_features=inputs, output_features=outputs, device=device, **decoded
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"policy options: {error}") from error
    return _with_features(config, inputs)


def _stored_config(
    path: str, policy_type: str, facts: TableFacts, decoded: Mapping[str, Any], device: str
) -> PreTrainedConfig:
    """The configuration beside the weights, with our features and the options."""
    config = _read_config(path)
    if config.type != policy_type:
        raise InputError(
            f"{path} holds a {config.type}, not a {policy_type}: the type has to be {config.type}"
        )
    inputs, outputs = _features(policy_type, facts)
    values = {**vars(config), "input_features": inputs, "output_features": outputs, "device": device}
    try:
        # Built anew, so that its own checks see the options.
        settled = {"use_peft": False, "pretrained_path": None}
        config = type(config)(**{**values, **decoded, **settled, **_no_backbone(config)})
    except (TypeError, ValueError) as error:
        raise InputError(f"policy options: {error}") from error
    return _with_features(config, inputs)


def _with_features(config: PreTrainedConfig, inputs: dict[str, PolicyFeature]) -> PreTrainedConfig:
    if config.type == "xvla" and config.action_mode != "auto":
        raise InputError(
            f"xvla: action_mode {config.action_mode!r} is of other arms, this one is moved by a twist of the "
            "tool and a gripper: set action_mode to auto"
        )
    if not takes_language(config):
        config.input_features = {**inputs, OBS_STATE: _state(config)}
    return config


def _build(config: PreTrainedConfig, path: str | None) -> PreTrainedPolicy:
    policy_class = get_policy_class(config.type)
    if path is not None:
        policy = policy_class.from_pretrained(path, config=config)
        require_loaded(policy, path)
        return policy
    policy = policy_class(config).to(config.device)
    # The checkpoint will hold them: who loads it must not fetch them again to throw them away.
    vars(policy.config).update(_no_backbone(config))
    return policy


def _no_backbone(config: PreTrainedConfig) -> dict[str, Any]:
    return {BACKBONE_WEIGHTS: None} if hasattr(config, BACKBONE_WEIGHTS) else {}


def _changed(path: str, decoded: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the weights in ``path`` were made with other values of: these."""
    stored = vars(_read_config(path))
    return {name: stored.get(name) for name, value in decoded.items() if stored.get(name) != value}


def _reason(policy_type: str, error: Exception, allow: bool, changed: Mapping[str, Any] | None = None) -> str:
    text = _line(error)
    if isinstance(error, ImportError):
        return f"{policy_type} needs a package that is not installed: {text}"
    if "size mismatch" in text and changed:
        made = ", ".join(f"{name} {value!r}" for name, value in changed.items())
        return (
            f"the weights were made with {made}, and do not fit the options: leave {', '.join(changed)} out"
        )
    if "size mismatch" in text:
        return f"the weights do not fit this robot's cameras, state (15) and actions (7): {text}"
    offline = any(
        word in text.lower() for word in ("offline", "couldn't connect", "cached files", "connection")
    )
    if offline and not allow:
        return (
            f"{policy_type} begins with files of a hub that are not on this machine ({text[:160]}): add "
            "--allow-download, or name a folder"
        )
    return f"policy options: {text}"

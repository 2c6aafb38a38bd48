"""Whether a policy holds the weights that it was loaded from: some of LeRobot's go on without a word.

The loaders of π0, π0.5 and π0-FAST (LeRobot 0.6.1) print "could not load state dict" where a file is not
there, or does not fit, and give the policy with random weights; others only log what a file lacks. Trained
further, or on a robot, such a policy is a policy that knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from safetensors import SafetensorError, safe_open

from pipeline.errors import InputError

WEIGHTS = "model.safetensors"


def require_loaded(policy: PreTrainedPolicy, source: str | Path) -> None:
    """Raises ``InputError`` where ``policy`` does not hold the weights of ``source``, a folder or a hub id.

    Compares names and shapes of all tensors, and the first row of each: a few thousand numbers of billions,
    which random weights do not share. Weights that the policy ties to others count once.
    """
    path = _weights_file(source)
    state = policy.state_dict()
    try:
        with safe_open(path, "pt") as stored:
            names = _names_in_policy(policy, list(stored.keys()), state)
            for name, target in names:
                part = stored.get_slice(name)
                if list(part.get_shape()) != list(state[target].shape):
                    raise InputError(
                        f"{path} does not fit the policy: size mismatch for {target}, "
                        f"{part.get_shape()} in the file and {list(state[target].shape)} by its configuration"
                    )
                if not _equal(part[:1] if state[target].ndim else stored.get_tensor(name), state[target]):
                    raise InputError(f"{path} was not loaded: {target} is not what the file says")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    held = {state[target].data_ptr() for _, target in names}
    lacking = [name for name, tensor in state.items() if tensor.numel() and tensor.data_ptr() not in held]
    if lacking:
        raise InputError(
            f"{path} has no {lacking[0]} ({len(lacking)} of the policy's {len(state)} tensors are absent): "
            "these weights are of another network, or of another version of LeRobot"
        )


def _weights_file(source: str | Path) -> Path:
    if Path(source).is_dir():
        path = Path(source) / WEIGHTS
        if not path.is_file():
            raise InputError(f"{source} has no {WEIGHTS}: the policy's weights are not there")
        return path
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(str(source), WEIGHTS)
    if not isinstance(found, str):
        raise InputError(f"{source} has no {WEIGHTS} among the files that were fetched from the hub")
    return Path(found)


def _names_in_policy(
    policy: PreTrainedPolicy, names: Iterable[str], state: dict[str, torch.Tensor]
) -> list[tuple[str, str]]:
    """Each tensor of the file with the policy's name for it; those that it has no place for are left out."""
    # What LeRobot's π policies do to the names of weights that were converted from openpi.
    rename: Callable[[dict[str, Any], Any], dict[str, Any]] | None
    rename = getattr(policy, "_fix_pytorch_state_dict_keys", None)
    found: dict[str, str] = {}
    for name in names:
        wanted = [name, f"model.{name}"]
        if rename is not None and not any(one in state for one in wanted):
            wanted += [f"model.{one}" for one in rename({name: torch.empty(0)}, policy.config)]
        found |= {target: name for target in wanted if target in state}
    heads = [name for name in names if name.endswith(_HEAD)]
    for name in heads if rename is not None else ():
        # The same numbers serve as embedding where the file says these once.
        found.setdefault(_EMBEDDING, name)
    return [(name, target) for target, name in found.items() if target in state]


_HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
_EMBEDDING = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


def _equal(stored: torch.Tensor, held: torch.Tensor) -> bool:
    if held.ndim:
        held = held[:1]
    held = held.detach().cpu()
    stored = stored.to(held.dtype)
    return bool(((stored == held) | (stored.isnan() & held.isnan())).all())

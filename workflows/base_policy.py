"""Whether ``[policy]`` of ``recap.toml`` can be had: as a new base policy, or as the one that there is.

A base policy is trained once, of one type with one set of options; all fine-tunes start from it. So a file
that asks for another policy later cannot be followed, and is not silently ignored either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.episode import CAMERAS
from pipeline.errors import InputError
from workflows.labelled_subtasks import OPTION, says_from_labels, with_any_name
from workflows.settings import LoopSettings, PolicySettings
from workflows.step_recipe import ExternalInput
from workflows.step_result import StepResult

_WHERE = "recap.toml, [policy]"
_ANEW = (
    "fine-tunes start from the base policy; for another one copy episodes/, labels.sqlite and recap.toml "
    "into a new folder and name that with --workspace"
)


def require_base_policy(settings: LoopSettings, base: StepResult | None, *, here: bool = True) -> None:
    """Raises ``InputError`` where the settings ask for a policy that the loop cannot give.

    With a ``base`` (what ``train_base`` published): where it is of another type, has other options, sees
    images of another size or began with other weights. Without one: where the base could not be built, which
    is found out without weights; where it is trained on this machine (``here``), also for files of a hub that
    are not on it. How much and how fast is trained makes no difference. Loads LeRobot only where a base is to
    be trained and the settings name a type, options or weights.
    """
    policy = settings.policy
    if base is not None:
        _require_same(policy, base.manifest)
        _require_same_images(settings.recording.image_size, base.manifest)
    elif policy.path or policy.options or policy.type != PolicySettings().type:
        _require_buildable(policy, settings.recording.image_size, here)


def weights_of(policy: PolicySettings) -> ExternalInput | None:
    """The folder that the base policy begins with; ``InputError`` naming the key where it is not there."""
    if not policy.path:
        return None
    folder = Path(policy.path)
    if not folder.is_dir():
        raise InputError(
            f"{_WHERE}: path = {policy.path!r}: there is no such folder; name one that holds a LeRobot "
            "checkpoint (a model of a hub is fetched with 'hf download NAME --local-dir FOLDER')"
        )
    return ExternalInput.of(folder.resolve())


def _require_buildable(policy: PolicySettings, image_size: int, here: bool) -> None:
    if policy.path and not Path(policy.path).is_dir():
        weights_of(policy)
    from pipeline.policy.new_policy import PATH, TableFacts, check_policy

    options = with_any_name(policy.options) | ({PATH: policy.path} if policy.path else {})
    try:
        check_policy(policy.type, TableFacts(CAMERAS, image_size), options, here=here)
    except InputError as error:
        raise InputError(f"{_WHERE}: {error}") from error


def _require_same(policy: PolicySettings, manifest: Mapping[str, Any]) -> None:
    training = manifest["parameters"].get("training", {})
    stored = str(training.get("policy_type", PolicySettings().type))
    options = dict(training.get("policy_options", {}))
    if policy.type != stored:
        raise InputError(
            f"the base policy is a {stored}, and {_WHERE} says {policy.type}: {_ANEW}, or "
            + ("take type out" if stored == PolicySettings().type else f'set type = "{stored}"')
        )
    wanted = json.loads(json.dumps(dict(policy.options)))
    if says_from_labels(wanted.get(OPTION)) and options.get(OPTION):
        # The labels of its own training gave it names, which it keeps.
        wanted[OPTION] = options[OPTION]
    different = sorted(
        name for name in {*options, *wanted} if options.get(name, ...) != wanted.get(name, ...)
    )
    if different:
        name = different[0]
        has = f"{name} = {json.dumps(options[name])}" if name in options else f"no option {name}"
        says = f"{name} = {json.dumps(wanted[name])}" if name in wanted else "nothing of it"
        back = f"set {has}" if name in options else f"take {name} out"
        raise InputError(
            f"the base policy was trained with {has}, and [policy.options] in recap.toml says {says}: "
            f"{_ANEW}, or {back}"
        )
    _require_same_weights(policy, manifest["inputs"].get("weights"))


def _require_same_images(image_size: int, manifest: Mapping[str, Any]) -> None:
    stored = int(manifest["parameters"].get("image_size", image_size))
    if image_size != stored:
        raise InputError(
            f"the base policy sees images of {stored}×{stored} pixels, and [defaults] in recap.toml asks for "
            f"{image_size}×{image_size}: {_ANEW}, or set image_size = {stored}"
        )


def _require_same_weights(policy: PolicySettings, stored: Any) -> None:
    if not policy.path:
        if stored is not None:
            raise InputError(
                f"the base policy began with the weights of a folder, and {_WHERE} names no path: {_ANEW}, "
                "or put path back"
            )
        return
    if stored is None:
        raise InputError(
            f"the base policy was trained from scratch, and {_WHERE} says path = {policy.path!r}: {_ANEW}, "
            "or take path out"
        )
    # Weights that were removed since are in the base policy; nothing reads them any more.
    if Path(policy.path).is_dir():
        found = weights_of(policy)
        if found is not None and stored != f"external:{found.digest}":
            raise InputError(
                f"the base policy began with other weights than {_WHERE} path = {policy.path!r} holds now: "
                f"{_ANEW}, or put the former weights back"
            )

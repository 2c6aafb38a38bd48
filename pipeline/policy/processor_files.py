"""What a checkpoint's processor files may name: steps that are registered, and nothing to be imported.

LeRobot builds a pipeline from ``policy_preprocessor.json`` and ``policy_postprocessor.json``. A step there is
named by ``registry_name``, or by ``class``, the path of anything that can be imported, which is then called
with the ``config`` beside it: ``subprocess.Popen`` as well as a processor. Who can write a checkpoint could
so run programs on the machine that loads it. The two steps of ours that are saved by their path are taken.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import InputError

# See pipeline.policy.advantage_prompt on why these are not registered.
_OURS = (
    "pipeline.policy.advantage_prompt.AdvantagePromptStep",
    "pipeline.policy.advantage_prompt.AdvantageStateStep",
)


def require_registered_steps(folder: Path) -> None:
    """Raises ``InputError`` where a processor file of the checkpoint in ``folder`` names a class to import.

    Only files that LeRobot would read as processors are looked at: those with ``steps``.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be used: {error}; copy the checkpoint again") from error
        steps = document.get("steps", []) if isinstance(document, dict) else []
        for step in steps if isinstance(steps, list) else []:
            if not _is_harmless(step):
                said = step.get("class") if isinstance(step, dict) else step
                raise InputError(
                    f"{path} names a class to import, {said!r}, which could run anything: only registered "
                    "processor steps are taken"
                )


def _is_harmless(step: object) -> bool:
    if not isinstance(step, dict):
        return False
    if "class" in step:
        return step["class"] in _OURS and "registry_name" not in step
    return isinstance(step.get("registry_name"), str) and bool(step["registry_name"])

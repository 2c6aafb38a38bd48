"""What a checkpoint's processor files may name: steps that are registered, and nothing to be imported.

LeRobot builds a pipeline from ``policy_preprocessor.json`` and ``policy_postprocessor.json``. A step there is
named by ``registry_name``, or by ``class``, the path of anything that can be imported, which is then called
with the ``config`` beside it: ``subprocess.Popen`` as well as a processor. Who can write a checkpoint could
so run programs on the machine that loads it. The two steps of ours that are saved by their path are taken.

Some of LeRobot's policies and steps (π0-FAST, GR00T, WALL-X) have transformers trust the code of a model that
they name. A folder with such code may lie beside the checkpoint, so none is taken; a model that somebody on
this machine has fetched from a hub, by its name there, is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError

# See pipeline.policy.advantage_prompt on why these are not registered.
_OURS = (
    "pipeline.policy.advantage_prompt.AdvantagePromptStep",
    "pipeline.policy.advantage_prompt.AdvantageStateStep",
)


def require_registered_steps(folder: Path) -> None:
    """Raises ``InputError`` where the checkpoint in ``folder`` names a class, or a folder of code, to import.

    Classes are looked for in files that LeRobot would read as processors, those with ``steps``; folders in
    all files.
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
        for text in _texts(document):
            if _brings_code(text) or _brings_code(str(folder / text)):
                raise InputError(
                    f"{path} names the folder {text}, whose files have transformers run the code in it: only "
                    "models without code are taken from a folder; fetch it from its hub ('hf download NAME') "
                    "and name it as it is called there"
                )


def _is_harmless(step: object) -> bool:
    if not isinstance(step, dict):
        return False
    if "class" in step:
        return step["class"] in _OURS and "registry_name" not in step
    return isinstance(step.get("registry_name"), str) and bool(step["registry_name"])


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _brings_code(text: str) -> bool:
    """Whether ``text`` is a folder whose configuration maps transformers' names to classes of its own."""
    if not text or "\0" in text or len(text) > _LONGEST_PATH or not Path(text).is_dir():
        return False
    return any(b'"auto_map"' in file.read_bytes() for file in Path(text).glob("*.json"))


_LONGEST_PATH = 4000

"""Which value models a workspace uses, as ``value-model.json`` says; read without loading any of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.workspace import Workspace
from workflows.json_documents import damaged, read_json
from workflows.step_recipe import StepAddress
from workflows.value_ensemble import ensemble_path

_REMEDY = "put it back from a copy, train them with 'recap value train', or remove it where there are none"


@dataclass(frozen=True)
class ValueModels:
    """The models' folders, relative to the workspace, and the digest of the labels they were trained on."""

    members: tuple[str, ...]
    snapshot: str

    @property
    def steps(self) -> list[StepAddress]:
        """The steps that trained them; models elsewhere, as of a copy, have none."""
        places = [Path(member).parts for member in self.members]
        return [StepAddress(parts[1], parts[2]) for parts in places if len(parts) > 2 and parts[0] == "steps"]


def read_value_models(workspace: Workspace) -> ValueModels | None:
    """The value models in use; ``None`` before any were trained. Raises ``InputError`` for a damaged file."""
    path = ensemble_path(workspace)
    try:
        document = read_json(path, _REMEDY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(path, error.strerror or error, _REMEDY) from error
    try:
        return ValueModels(tuple(map(str, document["members"])), str(document["snapshot"]))
    except (KeyError, TypeError) as error:
        raise damaged(path, f"{type(error).__name__} {error}", _REMEDY) from error

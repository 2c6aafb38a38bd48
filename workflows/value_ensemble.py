"""Which value models a workspace scores with: ``value-model.json``, written once they are all trained.

The models themselves lie in the folders of the steps that trained them; the file names those folders,
relative to the workspace, so that the workspace may move.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.durable_files import write_file
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.json_documents import damaged, read_json

FORMAT_VERSION = 1
ENSEMBLE_FILE = "value-model.json"
_TRAIN = "train one with 'recap value train'"
_REMEDY = f"put it back from a copy, or {_TRAIN}"


@dataclass(frozen=True)
class ValueEnsemble:
    """The value models of one training: every fold's members.

    members: their checkpoint folders, every (fold, member) once, in the order of folds.
    training: ``ValueTrainingConfig.to_parameters()``. image_size: pixels on a side of the cached frames
    that the models take. snapshot: the digest of the labels that they were trained on.
    """

    members: tuple[Path, ...]
    training: dict[str, Any]
    image_size: int
    snapshot: str


def ensemble_path(workspace: Workspace) -> Path:
    """Where a workspace keeps the name of its value models."""
    return workspace.root / ENSEMBLE_FILE


def save_ensemble(workspace: Workspace, ensemble: ValueEnsemble) -> None:
    """Makes ``ensemble`` the workspace's value models, atomically, in place of those it had.

    Raises ``InputError`` when a (fold, member) is there twice, or not at all, or a folder holds no model.
    """
    root = workspace.root.absolute()
    members = [os.path.relpath(member.absolute(), root) for member in ensemble.members]
    _check_members(tuple(root / member for member in members), ensemble.training)
    document = {
        "format_version": FORMAT_VERSION,
        **asdict(ensemble),
        "members": members,
    }
    write_file(ensemble_path(workspace), (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def load_ensemble(workspace: Workspace) -> ValueEnsemble:
    """The workspace's value models, their folders as paths that can be opened from here.

    Raises ``InputError`` where none were trained yet, where the file cannot be read, or where a model is
    gone or is another than it is said to be.
    """
    path = ensemble_path(workspace)
    try:
        document = read_json(path, _REMEDY)
        version = document.pop("format_version")
        if version != FORMAT_VERSION:
            raise InputError(f"{path} has format {version}, this software knows {FORMAT_VERSION}: {_TRAIN}")
        members = tuple(workspace.root / member for member in document.pop("members"))
        ensemble = ValueEnsemble(members, **document)
    except FileNotFoundError:
        raise InputError(f"{workspace.root} has no value model yet: {_TRAIN}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(path, error, _REMEDY) from error
    _check_members(ensemble.members, ensemble.training)
    return ensemble


def _check_members(members: tuple[Path, ...], training: dict[str, Any]) -> None:
    from value_model.checkpoint import RECORD_NAME, read_record  # loads torch

    for member in members:
        if not (member / RECORD_NAME).is_file():
            raise InputError(f"the value model {member} is gone: {_TRAIN}")
    found = sorted((record.fold, record.member) for record in map(read_record, members))
    wanted = [(f, m) for f in range(int(training["folds"])) for m in range(int(training["members"]))]
    if found != wanted:
        raise InputError(f"value models for (fold, member) {found}, but {wanted} are needed: {_TRAIN}")

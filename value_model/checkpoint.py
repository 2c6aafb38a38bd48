"""One trained value model on disk: ``model.safetensors`` (weights) and ``value.json`` (everything else).

The JSON names every episode that had a part in the model, its validation episodes included, by id and by
content, and those lists are what scoring goes by: a model may score any episode that is on neither. It also
has the SHA-256 of the weights' file, so that a damaged one is noticed before it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError, one_line
from value_model.network import NetworkConfig, ValueNetwork, build_network, network_config
from value_model.returns import TaskScale

FORMAT_VERSION = 1
WEIGHTS_NAME = "model.safetensors"
RECORD_NAME = "value.json"


@dataclass(frozen=True)
class ModelRecord:
    """What is known about one trained model.

    fold, member: which held-out fold, and which of its ensemble. seen: ids of all episodes that it
    was trained on or stopped by, sorted. seen_contents: their content keys, sorted; a copy of a recording has
    another id but the same key. scales: what the values of each task are multiples of. Both are empty in the
    record of an earlier version. network: which network, and its shape. training: the training
    configuration as plain JSON, for the record. best_step: where its weights come from. train_loss,
    validation_loss: cross-entropies in nats there (``validation_loss`` is ``None`` where no episode
    could be spared). weights_sha256: of the weights' file, set when saving; empty in an earlier record.
    """

    fold: int
    member: int
    seen: tuple[str, ...]
    network: NetworkConfig
    training: dict[str, Any]
    best_step: int
    train_loss: float
    validation_loss: float | None
    seen_contents: tuple[str, ...] = ()
    scales: Mapping[str, TaskScale] = field(default_factory=dict)
    weights_sha256: str = ""


def save_checkpoint(out: Path, network: ValueNetwork, record: ModelRecord) -> None:
    """Writes a model into the folder ``out``; the record last, so that a folder with one is complete.

    The network's own configuration goes into the record: it knows the digest of its backbone. So does the
    digest of the weights' file.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / RECORD_NAME).unlink(missing_ok=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in network.trained_state().items()}
    save_file(weights, out / WEIGHTS_NAME)
    # safetensors writes for the owner alone; others on a shared disk may load what they may list.
    (out / WEIGHTS_NAME).chmod(out.stat().st_mode & 0o666)
    record = replace(record, network=network.config, weights_sha256=_sha256(out / WEIGHTS_NAME))
    document = {"format_version": FORMAT_VERSION, **asdict(record)}
    (out / RECORD_NAME).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def read_record(path: Path) -> ModelRecord:
    """The record in the folder ``path``. Raises ``InputError`` where there is none that can be read."""
    try:
        document = json.loads((path / RECORD_NAME).read_text())
        version = document.pop("format_version")
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path} is a value model of format {version}, not {FORMAT_VERSION}: train it again"
            )
        network = network_config(document.pop("network"))
        for name in ("seen", "seen_contents"):
            document[name] = tuple(document.get(name, ()))
        document["scales"] = {str(t): TaskScale(**s) for t, s in document.get("scales", {}).items()}
        return ModelRecord(**{**document, "network": network})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a finished value model ({error}): train it again") from error


def verify_weights(path: Path) -> None:
    """Raises ``InputError`` where the weights in ``path`` cannot be read, or are not those that were saved.

    A record of an earlier version has no digest: then only that the file can be opened is known.
    """
    _verify(path, read_record(path))


def _verify(path: Path, record: ModelRecord) -> None:
    try:
        digest = _sha256(path / WEIGHTS_NAME)
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error
    if record.weights_sha256 and digest != record.weights_sha256:
        raise _damaged(path, "is damaged: it is not what was saved after training")


def _damaged(path: Path, how: str) -> InputError:
    # A model that a step trained lies within the step's folder; without that the step is computed again.
    folder = path.parent if (path.parent / "manifest.json").is_file() else path
    return InputError(
        f"{path / WEIGHTS_NAME} {how}: delete that step's folder ({folder}) and run 'recap value train'"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def agreed_scales(records: Sequence[ModelRecord]) -> dict[str, TaskScale]:
    """For each task what the values of these models together are multiples of.

    Empty where a record does not say. Raises ``InputError`` where models differ: a mean of their values
    would be of no unit at all.
    """
    if not all(record.scales for record in records):
        return {}
    agreed: dict[str, TaskScale] = {}
    for record in records:
        for task, scale in record.scales.items():
            known = agreed.setdefault(task, scale)
            if not math.isclose(known.normaliser_s, scale.normaliser_s, rel_tol=1e-9):
                raise InputError(
                    f"the value models differ in the unit of their values for {task!r} ("
                    f"{known.normaliser_s:g} s and {scale.normaliser_s:g} s): they were not trained on the "
                    "same labels, train all of them again"
                )
    return agreed


def load_network(path: Path, record: ModelRecord, device: str = "cpu") -> ValueNetwork:
    """The network in ``path``, ready to evaluate.

    Raises ``InputError`` if its weights were damaged or do not fit, or if the backbone that it was trained on
    is gone or another.
    """
    _verify(path, record)
    network = build_network(record.network)
    try:
        weights = load_file(path / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, f"cannot be read ({one_line(error)})") from error
    try:
        network.load_trained_state(weights)
    except InputError as error:
        raise InputError(f"the weights in {path} do not fit its {RECORD_NAME}: {one_line(error)}") from error
    return network.to(device).eval()

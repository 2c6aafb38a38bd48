"""Which step ``recap policy train`` asks for: the data, the policy, and how it is trained.

Only names, parameters and dependencies; the work is done by :mod:`workflows.policy_door_steps`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pipeline.episode import CAMERAS
from pipeline.errors import InputError
from pipeline.label_snapshot import read_snapshot
from pipeline.workspace import Workspace
from workflows import policy_door_steps
from workflows.gpu_share import gpus_to_reserve
from workflows.labelled_subtasks import (
    OPTION,
    names_of,
    subtask_lines,
    trained_rows,
    with_any_name,
    with_names,
)
from workflows.policy_folders import folders_of
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.settings import FULL, LEARNING_RATES
from workflows.step_code import TRAINING
from workflows.step_recipe import ExternalInput, Step, files_below
from workflows.step_store import StepResult, StepStore
from workflows.turn_labels import freeze_labels
from workflows.value_check import snapshot_path
from workflows.value_graph import LoopStep

STEP = "train_policy"


@dataclass(frozen=True)
class DoorConfig:
    """What was asked for. ``training`` are fields of ``PolicyTrainingConfig`` that were given.

    ``image_size`` is the side of a dataset's images; those of the workspace's advantages have their own.
    """

    policy_type: str
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    allow_download: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)
    image_size: int = FULL.recording.image_size

    def parameters(self, indicator_dropout: float = FULL.policy.indicator_dropout) -> dict[str, Any]:
        """The training's parameters: what was given, and defaults that fit the policy and the data."""
        policy = FULL.policy
        options = dict(self.options)
        if self.path is not None and not Path(self.path).is_dir():
            options["path"] = self.path
        if self.allow_download:
            options["allow_download"] = True
        return {
            "steps": policy.fine_tune_steps,
            "learning_rate": LEARNING_RATES.get(self.policy_type, policy.fine_tune_learning_rate),
            "indicator_dropout": indicator_dropout,
            "policy_type": self.policy_type,
            **{name: value for name, value in self.training.items() if _UNSAID.get(name, ...) != value},
            "policy_options": options,
        }


# A default that is said is no other training.
_UNSAID = {
    one.name: one.default
    for one in fields(PolicyTrainingConfig)
    if one.name
    in ("batch_size", "accumulate", "lora_rank", "precision", "ema_decay", "device", "workers", "threads")
}


@dataclass(frozen=True)
class ConditionedData:
    """The frames and indicators that a workspace has: advantages, and the labels that they are of."""

    advantages: StepResult
    snapshot: Path
    digest: str

    @property
    def image_size(self) -> int:
        """The side of the cached images."""
        return int(self.advantages.manifest["parameters"]["image_size"])


def newest_data(workspace: Workspace) -> ConditionedData:
    """The advantages that were computed last.

    Raises ``InputError`` where there are none, and where the labels that they are of are gone.
    """
    found = StepStore(workspace.steps).published("advantages")
    if not found:
        raise InputError(
            "there are no advantages to condition a policy on: run 'recap value train' and then "
            "'recap advantages', or 'recap improve'; or name a conditioned dataset with --dataset"
        )
    newest = max(found, key=lambda result: (result.manifest["finished"], result.key))
    digest = str(newest.manifest["inputs"]["snapshot"]).removeprefix("external:")
    path = snapshot_path(workspace, digest)
    if path is None:
        raise InputError(f"the labels that {newest.path} is of are gone: run 'recap advantages' again")
    return ConditionedData(newest, path, digest)


def workspace_step(workspace: Workspace, data: ConditionedData, config: DoorConfig) -> Step:
    """Trains on the workspace's own frames, and on the sub-tasks that people marked in them.

    Where the option ``subtasks`` is ``from labels``, their names are those of the labels; ``InputError``
    where nobody marked any.
    """
    try:
        options = with_names(config.options, trained_rows(read_snapshot(data.snapshot)))
    except InputError as error:
        told = "; ".join(["'recap label set --mark' marks them too", *labels_told(workspace, data)])
        raise InputError(f"{error}; {told}") from error
    config = replace(config, options=options)
    inputs: dict[str, Any] = {
        "workspace": ExternalInput(workspace.root, "workspace"),
        "snapshot": ExternalInput(data.snapshot, data.digest),
        "advantages": data.advantages,
    }
    return _step(policy_door_steps.train_on_advantages, config, inputs, data.image_size, config.parameters())


def dataset_step(dataset: Path, config: DoorConfig) -> Step:
    """Trains on a LeRobotDataset.

    No further indicators are left out, unless that was asked for: a conditioned dataset has done so already.
    """
    require_dataset(dataset)
    if config.options.get(OPTION):
        raise InputError(f"--policy.{OPTION}: a dataset says none of them: leave out --dataset, or {OPTION}")
    inputs = {"dataset": ExternalInput(dataset, _dataset_digest(dataset))}
    training = config.parameters(0.0)
    return _step(policy_door_steps.train_on_dataset, config, inputs, config.image_size, training)


def labels_told(workspace: Workspace, data: ConditionedData) -> list[str]:
    """A line where people said something else of these episodes since, which the training does not see.

    Episodes that came in later do not count: which of them are learnt from, the next advantages say.
    """
    if not workspace.labels_path.exists():
        return []  # opening them would make a new store
    rows = read_snapshot(data.snapshot)
    here = {entry.id for entry in workspace.list_episodes()}
    known = [row.episode_id for row in rows if row.episode_id in here]
    with tempfile.TemporaryDirectory() as aside:
        now = freeze_labels(workspace, known, Path(aside)).rows
    if list(now) == rows:
        return []
    return ["labels changed since these advantages: 'recap advantages' takes them in"]


def subtasks_told(data: ConditionedData, step: Step, path: str | None) -> list[str]:
    """What the training makes of the segments that people marked; ``path``: weights to begin with."""
    known = step.parameters["training"]["policy_options"].get(OPTION)
    if known is None and path is not None:
        known = names_of(Path(path))
    return subtask_lines(trained_rows(read_snapshot(data.snapshot)), known or [])


def require_dataset(dataset: Path) -> None:
    """Raises ``InputError`` where there is no LeRobotDataset in that folder."""
    if not (dataset / "meta/info.json").is_file():
        raise InputError(f"--dataset {dataset}: there is no LeRobotDataset (no meta/info.json)")


def check_training(config: DoorConfig) -> None:
    """Raises ``InputError`` for values of the training out of range. Loads nothing large."""
    PolicyTrainingConfig(**config.parameters())


def check_policy(config: DoorConfig, image_size: int) -> None:
    """Raises ``InputError`` for a policy that cannot be trained, which a worker would say after minutes.

    Loads LeRobot.
    """
    from pipeline.policy import new_policy
    from pipeline.policy.training_fields import require_groups, require_rate

    facts = new_policy.TableFacts(CAMERAS, image_size)
    options = with_any_name(config.parameters()["policy_options"])
    if config.path is not None and Path(config.path).is_dir():
        if new_policy.fits(Path(config.path), facts):
            if config.options:
                raise InputError(
                    f"{config.path} is trained further as it is: leave --policy.{min(config.options)} out "
                    "(options of the network apply to a new one, or to weights that are not of this project)"
                )
            return
        options = {**options, new_policy.PATH: config.path}
    lora_rank = int(config.training.get("lora_rank", 0))
    require_groups(config.policy_type, options, lora_rank)
    if "learning_rate" in config.training:
        require_rate(config.policy_type, lora_rank)
    new_policy.check_policy(config.policy_type, facts, options)


def _step(
    function: Any, config: DoorConfig, inputs: dict[str, Any], image_size: int, training: dict[str, Any]
) -> Step:
    if config.path is not None and Path(config.path).is_dir():
        inputs["start"] = ExternalInput.of(Path(config.path))
    if folders := folders_of(config.options):
        inputs["option_folders"] = folders
    check_training(config)
    device, workers = str(training.get("device", "cpu")), int(training.get("workers", 1))
    threads = int(training.get("threads", 1))
    return LoopStep(
        STEP,
        function,
        {"image_size": image_size, "training": training},
        inputs,
        TRAINING,
        # Several processes reserve cores of their own.
        num_cpus=threads if workers == 1 else 0,
        num_gpus=gpus_to_reserve(device, workers),
        title=f"train {config.policy_type}",
    )


def _dataset_digest(dataset: Path) -> str:
    """Of a dataset's metadata to the last byte, and of all other files' names and sizes: videos are large."""
    lines = []
    for path in files_below(dataset):
        name = path.relative_to(dataset).as_posix()
        small = name.startswith("meta/") or path.parent == dataset
        what = hashlib.sha256(path.read_bytes()).hexdigest() if small else path.stat().st_size
        lines.append([name, what])
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

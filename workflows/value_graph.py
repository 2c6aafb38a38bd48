"""The steps from labels to advantages: training the value models, scoring with them, judging the values.

Names and dependencies only, as in :mod:`workflows.loop_graph`; what the commands for the value model and the
loop have in common, so that each finds what the other has computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.label_snapshot import Snapshot
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from value_model.gate_config import GateConfig
from workflows import value_judgement, value_steps
from workflows.gpu_share import gpus_to_reserve
from workflows.settings import LoopSettings, value_training
from workflows.step_code import ADVANTAGES, JUDGING, SCORING, VALUE_TRAINING
from workflows.step_files import JUDGEMENT
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepResult, StepStore
from workflows.value_ensemble import ValueEnsemble

AnyStep = Step | StepResult
AnyInput = AnyStep | ExternalInput

LONGEST_STEP_S = 48 * 3600.0
"""What takes longer hangs: a day is what fine-tuning a large policy on a GPU takes. See :class:`LoopStep`."""


@dataclass(frozen=True)
class LoopStep(Step):
    """A step of the loop: ended, as having failed, after 48 hours. Its key is that of any other step.

    A night's work must not stand still for ever because one process waits for what never comes. Training
    value models goes on where it was when the command is given again.
    """

    timeout_s: float | None = LONGEST_STEP_S


class ValueGraph:
    """Makes the value model's steps of a workspace under given settings."""

    def __init__(
        self, workspace: Workspace, settings: LoopSettings, gate: Mapping[str, float] | None = None
    ) -> None:
        """``gate``: bounds that values must pass, by name; ``None``: those of ``recap.toml``."""
        self.settings = settings
        site = load_site_config(workspace.config_path)
        # Refused now, and not after hours of training, when the gate is asked. All bounds are in the key, so
        # that saying what is the default anyway asks nobody anew.
        with site.named_in_errors():
            self._gate = asdict(GateConfig.from_site(site.gate if gate is None else gate))
        # The folder may move: what it holds enters keys through snapshots, not through its path.
        self._workspace = ExternalInput(workspace.root, "workspace")

    def value_members(self, snapshot: Snapshot) -> list[Step]:
        """The training of each model of the value ensemble, fold after fold."""
        value = self.settings.value
        # Several processes reserve cores of their own.
        together = {"workers": value.workers} if value.workers > 1 else {}
        return [
            LoopStep(
                "train_value",
                value_steps.train_value_member,
                self._sized(fold=fold, member=member, training=self._value_training(), **together),
                self._on(snapshot),
                VALUE_TRAINING,
                num_cpus=0 if together else 1,
                num_gpus=gpus_to_reserve(value.device, value.workers),
                title=f"train value model {member + 1} of fold {fold + 1}",
            )
            for fold in range(value.folds)
            for member in range(value.members)
        ]

    def score_values(
        self,
        snapshot: Snapshot,
        members: Sequence[AnyInput],
        training: dict[str, Any] | None = None,
    ) -> Step:
        """The values of the snapshot's frames, from these models (fold after fold).

        ``training``: how they were trained, where it was not under these settings.
        """
        return LoopStep(
            "score_values",
            value_steps.score_values,
            self._sized(training=training or self._value_training()),
            {**self._on(snapshot), "members": list(members)},
            SCORING,
            # It waits for actors, which reserve cores of their own.
            num_cpus=0,
            title="score frames",
        )

    def advantages(self, snapshot: Snapshot, scores: AnyStep, training: dict[str, Any] | None = None) -> Step:
        """Advantages, thresholds and indicators from values and labels."""
        value = self.settings.value
        advantage = {
            "horizon": value.n_step,
            "horizon_s": value.n_seconds,
            "positive_fraction": value.positive_fraction,
        }
        return LoopStep(
            "advantages",
            value_steps.compute_advantages,
            self._sized(training=training or self._value_training(), advantage=advantage),
            {**self._on(snapshot), "scores": scores},
            ADVANTAGES,
            title="compute advantages",
        )

    def judgement(
        self, snapshot: Snapshot, advantages: AnyStep, training: dict[str, Any] | None = None
    ) -> Step:
        """What the gate says about the values, under the bounds of ``recap.toml``; nothing is made of it."""
        return LoopStep(
            JUDGEMENT,
            value_judgement.judge_values,
            self._sized(
                training=training or self._value_training(),
                gate=self._gate,
                positive_fraction=self.settings.value.positive_fraction,
            ),
            {**self._on(snapshot), "advantages": advantages},
            JUDGING,
            title="judge the values",
        )

    def _value_training(self) -> dict[str, Any]:
        """The parameters of ``ValueTrainingConfig``.

        Of a small network's not those that have their defaults: the source is in the key, too, and this way
        a driver whose steps are all done needs no torch.
        """
        if self.settings.value.network != "small":
            # Names the backbone's weights; loads torch.
            return value_training(self.settings).to_parameters()
        value = self.settings.value
        return {
            "network": {"kind": "small", "image_size": self.settings.recording.image_size},
            "folds": value.folds,
            "members": value.members,
            "steps": value.steps,
            "failure_penalty": value.failure_penalty,
            "seed": self.settings.seed,
            "device": value.device,
        }

    def _on(self, snapshot: Snapshot) -> dict[str, Any]:
        return {
            "workspace": self._workspace,
            "snapshot": ExternalInput(snapshot.path, snapshot.digest),
        }

    def _sized(self, **parameters: Any) -> dict[str, Any]:
        return {"image_size": self.settings.recording.image_size, **parameters}


@dataclass(frozen=True)
class _Address:
    name: str
    key: str


def trained_models(store: StepStore, ensemble: ValueEnsemble) -> list[AnyInput]:
    """An ensemble's models as inputs of a step: the steps that trained them, or else their folders."""
    members: list[AnyInput] = []
    for folder in ensemble.members:
        trained = store.find(_Address(folder.parent.parent.name, folder.parent.name))
        of_step = trained is not None and trained.path.resolve() == folder.parent.resolve()
        members.append(trained if of_step and trained is not None else ExternalInput.of(folder))
    return members

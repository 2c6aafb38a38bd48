"""The steps from labels to advantages: training the value models, scoring with them, judging the values.

Names and dependencies only, as in :mod:`workflows.loop_graph`; what the commands for the value model and the
loop have in common, so that each finds what the other has computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.label_snapshot import Snapshot
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows import value_steps
from workflows.settings import LoopSettings, value_training
from workflows.step_code import SCORING, VALUE
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepResult, StepStore
from workflows.value_ensemble import ValueEnsemble

AnyStep = Step | StepResult
AnyInput = AnyStep | ExternalInput


class ValueGraph:
    """Makes the value model's steps of a workspace under given settings."""

    def __init__(
        self, workspace: Workspace, settings: LoopSettings, gate: Mapping[str, float] | None = None
    ) -> None:
        """``gate``: bounds that values must pass, by name; ``None``: those of ``recap.toml``."""
        self.settings = settings
        self._gate = dict(load_site_config(workspace.config_path).gate if gate is None else gate)
        # The folder may move: what it holds enters keys through snapshots, not through its path.
        self._workspace = ExternalInput(workspace.root, "workspace")

    def value_members(self, snapshot: Snapshot) -> list[Step]:
        """The training of each model of the value ensemble, fold after fold."""
        value = self.settings.value
        # Several processes reserve cores of their own.
        together = {"workers": value.workers} if value.workers > 1 else {}
        return [
            Step(
                "train_value",
                value_steps.train_value_member,
                self._sized(fold=fold, member=member, training=self._value_training(), **together),
                self._on(snapshot),
                VALUE,
                num_cpus=0 if together else 1,
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
        return Step(
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
        """Advantages, thresholds and indicators from values and labels; and the gate's judgement."""
        value = self.settings.value
        advantage = {
            "horizon": value.n_step,
            "horizon_s": value.n_seconds,
            "positive_fraction": value.positive_fraction,
        }
        return Step(
            "advantages",
            value_steps.compute_advantages,
            self._sized(training=training or self._value_training(), advantage=advantage, gate=self._gate),
            {**self._on(snapshot), "scores": scores},
            VALUE,
            title="compute advantages, judge the values",
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

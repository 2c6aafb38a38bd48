"""Which steps one turn of the loop consists of: only names and dependencies, nothing runs here.

Every function returns steps whose keys follow from their recipes, so that a driver knows before it
starts anything what is already done.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from workflows import loop_steps, value_steps
from workflows.base_policy import weights_of
from workflows.evaluation_graph import (
    ASKED_NEGATIVE,
    BASE,
    CANDIDATE,
    CHAMPION,
    FILTERED,
    EvaluationGraph,
    TurnSteps,
)
from workflows.gpu_share import gpus_to_reserve
from workflows.labelled_subtasks import with_names
from workflows.policy_folders import folders_of
from workflows.step_code import CACHE, COLLECTING, DATASET, TRAINING
from workflows.step_recipe import Keyed, Step
from workflows.value_graph import AnyStep, LoopStep

__all__ = ["ASKED_NEGATIVE", "BASE", "CANDIDATE", "CHAMPION", "FILTERED", "AnyStep", "LoopGraph", "TurnSteps"]

# Scene seeds: recorded scenes and evaluated starts never meet.
DEMONSTRATION_SCENES = {"skilled": 0, "sloppy": 100_000}
ROLLOUT_SCENES = {"observer": 200_000, "supervisor": 300_000}
_SCENES_A_TURN = 10_000
_TURNS = (ROLLOUT_SCENES["supervisor"] - ROLLOUT_SCENES["observer"]) // _SCENES_A_TURN
# Sessions from the command line; beyond the evaluated starts, whatever the seed.
COMMAND_SCENES = {"record": 2_000_000, "rollout": 1_000_000_000}

_SESSION_TITLES = {
    "skilled": "record a skilled operator",
    "sloppy": "record a sloppy operator",
    "observer": "roll out the policy alone",
    "supervisor": "roll out with a supervisor",
}


class LoopGraph(EvaluationGraph):
    """Makes the steps of a workspace under given settings."""

    def demonstrations(self, person: str, episodes: int) -> list[Step]:
        """A scripted person's demonstrations."""
        return self._session(f"demo-{person}", person, episodes, DEMONSTRATION_SCENES[person])

    def rollouts(
        self, person: str, episodes: int, policy: Keyed, *, turn: int = 1, indicator: str | None = None
    ) -> list[Step]:
        """Rollouts of ``policy``'s checkpoint with an observer (autonomous) or a supervisor, in parts.

        Each ``turn`` has scenes of its own. Raises ``InputError`` for more than there are: a policy would be
        trained on scenes that were recorded before, or that it is evaluated on. ``indicator`` is what the
        policy is asked for.
        """
        if not 1 <= turn <= _TURNS or episodes > _SCENES_A_TURN:
            raise InputError(
                f"rollouts of turn {turn}, {episodes} episodes: the simulator has scenes for turns 1 to "
                f"{_TURNS} of up to {_SCENES_A_TURN} episodes each; go on in a new workspace"
            )
        kind = "supervised" if person == "supervisor" else "autonomous"
        name = f"rollout{turn if turn > 1 else ''}-{policy.key[:8]}-{kind}"
        first = ROLLOUT_SCENES[person] + (turn - 1) * _SCENES_A_TURN
        return self._session(name, person, episodes, first, policy, indicator)

    def _session(
        self,
        name: str,
        person: str,
        episodes: int,
        first_scene: int,
        policy: Keyed | None = None,
        indicator: str | None = None,
    ) -> list[Step]:
        recording = self.settings.recording
        session = {
            "name": name,
            "person": person,
            "episodes": episodes,
            "tasks": recording.tasks,
            "seed": self.settings.seed,
            "first_scene_seed": first_scene,
            "max_steps": recording.max_steps,
            "rate_hz": recording.rate_hz,
            "image_size": recording.image_size,
        }
        if indicator is not None:
            session["indicator"] = indicator
        inputs: dict[str, Any] = {"workspace": self._workspace}
        parameters: dict[str, Any] = {"session": session}
        if policy is not None:
            inputs["checkpoint"] = policy
            parameters["checkpoint_name"] = f"{policy.name}/{policy.key}"
        return [
            LoopStep(
                "record" if policy is None else "roll_out",
                loop_steps.record_session,
                {**parameters, "part": [k, self.parts]},
                inputs,
                COLLECTING,
                title=self._part(_SESSION_TITLES[person], k),
            )
            for k in range(self.parts)
        ]

    def cache(self, snapshot: Snapshot) -> list[Step]:
        """Decodes the snapshot's frames."""
        return [
            LoopStep(
                "cache_frames",
                loop_steps.cache_frames,
                {"image_size": self.settings.recording.image_size, "part": [k, self.parts]},
                self._on(snapshot),
                CACHE,
                title=self._part("decode frames", k),
            )
            for k in range(self.parts)
        ]

    def base(self, snapshot: Snapshot) -> Step:
        """The base policy, from every demonstration.

        Raises ``InputError`` where it is to predict sub-tasks, and nobody marked a segment of one.
        """
        policy = self.settings.policy
        training = {
            "steps": policy.base_steps,
            "learning_rate": policy.base_learning_rate,
            "seed": self.settings.seed,
            "indicator_dropout": 0.0,
            "policy_type": policy.type,
            "policy_options": with_names(policy.options, snapshot.rows),
            **self._resources(),
        }
        inputs = self._on(snapshot)
        if (weights := weights_of(policy)) is not None:
            inputs["weights"] = weights
        if folders := folders_of(policy.options):
            inputs["option_folders"] = folders
        return LoopStep(
            "train_base",
            loop_steps.train_base,
            self._sized(training=training),
            inputs,
            TRAINING,
            **self._reserved(),
            title="train the base policy",
        )

    def turn(self, snapshot: Snapshot, base: AnyStep) -> TurnSteps:
        """One turn: values, advantages, fine-tunes from ``base``, evaluations on paired starts."""
        members = self.value_members(snapshot)
        scores = self.score_values(snapshot, members)
        advantages = self.advantages(snapshot, scores)
        recap = self._recap(snapshot, base, advantages)
        filtered = self._filtered(snapshot, base)
        turn = TurnSteps(
            cache=self.cache(snapshot),
            members=members,
            scores=scores,
            advantages=advantages,
            gate=self.judgement(snapshot, advantages),
            dataset=self._dataset(snapshot, advantages),
            recap=recap,
            filtered=filtered,
            evaluations={},
            checkpoints={BASE: base, CANDIDATE: recap, FILTERED: filtered},
            asked={
                BASE: (base, None),
                FILTERED: (filtered, None),
                CANDIDATE: (recap, "positive"),
                ASKED_NEGATIVE: (recap, "negative"),
            },
        )
        self.add_first_rounds(turn)
        return turn

    def _recap(self, snapshot: Snapshot, base: AnyStep, advantages: Step) -> Step:
        policy = self.settings.policy
        training = {
            **self._fine_tuning(),
            "indicator_dropout": policy.indicator_dropout,
            "positive_share": policy.positive_share,
        }
        inputs = {**self._on(snapshot), "base": base, "advantages": advantages}
        return LoopStep(
            "fine_tune_recap",
            loop_steps.fine_tune_recap,
            self._sized(training=training),
            inputs,
            TRAINING,
            **self._reserved(),
            title="fine-tune on everything, conditioned on the advantage (RECAP)",
        )

    def _filtered(self, snapshot: Snapshot, base: AnyStep) -> Step:
        inputs = {**self._on(snapshot), "base": base}
        parameters = self._sized(training={**self._fine_tuning(), "indicator_dropout": 0.0})
        return LoopStep(
            "fine_tune_filtered",
            loop_steps.fine_tune_filtered,
            parameters,
            inputs,
            TRAINING,
            **self._reserved(),
            title="fine-tune on successes and corrections (filtered BC)",
        )

    def _fine_tuning(self) -> dict[str, Any]:
        policy = self.settings.policy
        return {
            "steps": policy.fine_tune_steps,
            "learning_rate": policy.fine_tune_learning_rate,
            "seed": self.settings.seed,
            "lora_rank": policy.lora_rank,
            **self._resources(),
        }

    def _resources(self) -> dict[str, Any]:
        policy = self.settings.policy
        return {
            "batch_size": policy.batch_size,
            "accumulate": policy.accumulate,
            "precision": policy.precision,
            "device": policy.device,
            # One process, one thread are what every training was before there were several: not in the key.
            **({"workers": policy.workers} if policy.workers > 1 else {}),
            **({"threads": policy.threads} if policy.threads > 1 else {}),
        }

    def _reserved(self) -> dict[str, Any]:
        """What a training of the policy reserves; of several processes each does so for itself."""
        policy = self.settings.policy
        return {
            "num_cpus": policy.threads if policy.workers == 1 else 0,
            "num_gpus": gpus_to_reserve(policy.device, policy.workers),
        }

    def _dataset(self, snapshot: Snapshot, advantages: Step) -> Step:
        """The conditioned view, and before it the dataset that it is of, which needs no scores."""
        episodes = LoopStep(
            "episode_dataset",
            value_steps.build_episode_dataset,
            inputs=self._on(snapshot),
            code=DATASET,
            title="write the episodes as a dataset",
        )
        return LoopStep(
            "conditioned_dataset",
            value_steps.build_conditioned_dataset,
            {"indicator_dropout": self.settings.policy.indicator_dropout},
            {"episodes": episodes, "advantages": advantages},
            (*DATASET, "pipeline.conditioned_view", "pipeline.view_files", "pipeline.prompts"),
            seed=self.settings.seed,
            title="condition the dataset on the advantages",
        )

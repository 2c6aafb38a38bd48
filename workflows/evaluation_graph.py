"""The evaluations of a turn: every policy on the same starts, round after round, as names and dependencies.

A round is a number of starts that all policies run, cut into parts for the cores that there are. Which round
comes next is known before it is needed; whether it is needed, the loop asks :mod:`workflows.promotion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.workspace import Workspace
from workflows import loop_steps
from workflows.recording_settings import RENDERED_SIZES
from workflows.settings import LoopSettings
from workflows.step_code import EVALUATING
from workflows.step_recipe import Step
from workflows.value_graph import AnyStep, LoopStep, ValueGraph

BASE = "base"
CHAMPION = "champion"
CANDIDATE = "RECAP"
FILTERED = "filtered BC"
ASKED_NEGATIVE = "RECAP, asked for negative"


@dataclass(frozen=True)
class TurnSteps:
    """The steps of one turn; ``evaluations``, ``checkpoints`` and ``asked`` are by the policy's name.

    ``evaluations`` are in rounds, and these in parts; they grow by :meth:`LoopGraph.add_round`. ``asked`` is
    each policy with the indicator that it is asked for.
    """

    cache: list[Step]
    members: list[Step]
    scores: Step
    advantages: Step
    gate: Step
    dataset: Step
    recap: Step
    filtered: Step
    evaluations: dict[str, list[Step]]
    checkpoints: dict[str, AnyStep]
    asked: dict[str, tuple[AnyStep, str | None]]

    def all(self) -> list[Step]:
        """Every step, in an order that keeps two cores busy."""
        evaluations = [step for parts in self.evaluations.values() for step in parts]
        return [
            *self.cache,
            *self.members,
            self.filtered,
            self.scores,
            self.advantages,
            self.gate,
            self.recap,
            self.dataset,
            *evaluations,
        ]


class EvaluationGraph(ValueGraph):
    """Makes the evaluations of a workspace under given settings."""

    def __init__(
        self,
        workspace: Workspace,
        settings: LoopSettings,
        parts: int = 2,
        gate: Mapping[str, float] | None = None,
    ) -> None:
        """``parts``: how many pieces recordings and evaluations are cut into, to use several cores.

        ``gate``: bounds that values must pass, by name; ``None``: those of the workspace's ``recap.toml``.
        """
        super().__init__(workspace, settings, gate)
        self.parts = parts

    def _part(self, title: str, k: int) -> str:
        return f"{title} ({k + 1} of {self.parts})"

    def add_first_rounds(self, turn: TurnSteps) -> None:
        """Adds the rounds that are needed in any case: the first, or all where nothing is decided before."""
        for _ in range(1 if self.settings.promotion.stop_early else len(self._rounds)):
            self.add_round(turn)

    @property
    def _rounds(self) -> list[int]:
        return self.settings.promotion.rounds(self.settings.evaluation_starts)

    def add_champion(self, turn: TurnSteps, champion: AnyStep) -> None:
        """Has the champion evaluated, and compared, in every round of ``turn`` so far and to come."""
        rounds = len(turn.evaluations[CANDIDATE]) // self.parts
        turn.checkpoints[CHAMPION] = champion
        turn.asked[CHAMPION] = (champion, "positive")
        turn.evaluations[CHAMPION] = [
            step for k in range(rounds) for step in self.evaluation(champion, "positive", CHAMPION, k)
        ]

    def add_round(self, turn: TurnSteps) -> list[Step]:
        """Adds the next round of every policy's evaluation to ``turn``; its steps, or none at the end.

        Every policy runs every round, so that all pairs exist. A policy that only the report shows runs no
        start that the decision did not take.
        """
        k = len(turn.evaluations.get(CANDIDATE, [])) // self.parts
        if k == len(self._rounds):
            return []
        added = []
        for name, (policy, indicator) in turn.asked.items():
            steps = self.evaluation(policy, indicator, name, k)
            turn.evaluations[name] = [*turn.evaluations.get(name, []), *steps]
            added += steps
        return added

    def evaluation(self, policy: AnyStep, indicator: str | None, name: str, round: int) -> list[Step]:
        """A checkpoint on the starts of one round (the first is 0), in parts."""
        recording = self.settings.recording
        ends = [0, *self._rounds]
        evaluation = {
            "tasks": recording.tasks,
            "first": ends[round],
            "starts": ends[round + 1],
            "max_steps": recording.max_steps,
            "rate_hz": recording.rate_hz,
            "indicator": indicator,
            # Small images are what every evaluation had before there were others: not in the key.
            **({"image_size": rendered} if (rendered := recording.rendered_size) > RENDERED_SIZES[0] else {}),
        }
        return [
            LoopStep(
                "evaluate",
                loop_steps.evaluate_policy,
                {"evaluation": evaluation, "part": [k, self.parts]},
                {"checkpoint": policy},
                EVALUATING,
                title=self._part(f"evaluate {name}, starts {ends[round] + 1} to {ends[round + 1]}", k),
            )
            for k in range(self.parts)
        ]

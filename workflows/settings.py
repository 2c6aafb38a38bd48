"""The numbers of one turn of the loop, in one place: how much is recorded, trained and evaluated.

``FULL`` is what ``recap demo`` runs by default, sized for 15 minutes on two cores; ``QUICK`` shows
that everything works in under 4 minutes and is too small to improve a policy reliably.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

PICK_TASKS = ("pick up the red cube", "pick up the blue cube")


@dataclass(frozen=True)
class RecordingSettings:
    """How many episodes the scripted people record, in the simulator."""

    skilled_demonstrations: int = 60
    sloppy_demonstrations: int = 60
    autonomous_rollouts: int = 60
    supervised_rollouts: int = 60
    tasks: tuple[str, ...] = PICK_TASKS
    max_steps: int = 80
    rate_hz: float = 10.0
    image_size: int = 84


@dataclass(frozen=True)
class ValueSettings:
    """Cross-fitted value model and advantages.

    ``n_step`` is the look-ahead N of the advantage in frames; ``positive_fraction`` the share of a
    task's frames, corrections apart, that count as positive.
    """

    folds: int = 2
    members: int = 2
    steps: int = 400
    n_step: int = 10
    positive_fraction: float = 0.3


@dataclass(frozen=True)
class PolicySettings:
    """Training of the base policy and the fine-tunes that start from it.

    ``positive_share`` is the share of each batch drawn from positive frames; ``indicator_dropout``
    the share of samples whose prompt is the bare task.
    """

    base_steps: int = 1000
    base_learning_rate: float = 1e-3
    fine_tune_steps: int = 1200
    fine_tune_learning_rate: float = 5e-4
    positive_share: float = 0.85
    indicator_dropout: float = 0.3


@dataclass(frozen=True)
class LoopSettings:
    """Everything that decides what one iteration computes; its parts are the steps' parameters."""

    recording: RecordingSettings = field(default_factory=RecordingSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    evaluation_starts: int = 200
    seed: int = 0


FULL = LoopSettings()
QUICK = replace(
    FULL,
    recording=replace(
        FULL.recording,
        skilled_demonstrations=12,
        sloppy_demonstrations=12,
        autonomous_rollouts=8,
        supervised_rollouts=8,
    ),
    value=replace(FULL.value, members=1, steps=60),
    policy=replace(FULL.policy, base_steps=120, fine_tune_steps=80),
    evaluation_starts=20,
)


def resized(
    settings: LoopSettings,
    *,
    seed: int,
    tasks: tuple[str, ...] | None = None,
    demonstrations: int | None = None,
    rollouts: int | None = None,
    policy_steps: int | None = None,
    value_steps: int | None = None,
    starts: int | None = None,
) -> LoopSettings:
    """The settings with those numbers changed that are given."""
    recording, policy, value = settings.recording, settings.policy, settings.value
    if tasks is not None:
        recording = replace(recording, tasks=tasks)
    if demonstrations is not None:
        recording = replace(
            recording, skilled_demonstrations=demonstrations, sloppy_demonstrations=demonstrations
        )
    if rollouts is not None:
        recording = replace(recording, autonomous_rollouts=rollouts, supervised_rollouts=rollouts)
    if policy_steps is not None:
        policy = replace(policy, base_steps=policy_steps, fine_tune_steps=policy_steps)
    if value_steps is not None:
        value = replace(value, steps=value_steps)
    return LoopSettings(recording, value, policy, starts or settings.evaluation_starts, seed)

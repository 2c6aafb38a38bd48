"""The numbers of one turn of the loop, in one place: how much is recorded, trained and evaluated.

``FULL`` is what ``recap demo`` runs by default, sized for 15 minutes on two cores; ``QUICK`` shows
that everything works in under 4 minutes and is too small to improve a policy reliably.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import InputError
from pipeline.site_config import SiteConfig
from pipeline.site_policy import PolicySection
from pipeline.site_value import TO_THE_END, ValueSection
from workflows.policy_training_config import require_threads_alone
from workflows.promotion_rule import PromotionRule
from workflows.recording_settings import RecordingSettings, recording_with

if TYPE_CHECKING:  # loads torch
    from value_model.network import NetworkConfig
    from value_model.training_config import ValueTrainingConfig


@dataclass(frozen=True)
class ValueSettings:
    """Cross-fitted value model and advantages.

    ``network`` is "small" (from scratch) or "vlm" (a pretrained ``backbone``, a folder or hub id, of which
    ``tune`` is trained; an id is fetched only with ``allow_download``). ``n_step`` is the look-ahead N of
    the advantage in frames, ``n_seconds`` the same in seconds: one of them, or neither to look to the
    episode's end. ``positive_fraction`` is the share of a task's frames, corrections apart, that count as
    positive; ``failure_penalty`` what a failure costs, in lengths of the task's longest episode. ``workers``
    processes train each model together; their number decides nothing but the order of sums.
    """

    network: Literal["small", "vlm"] = "small"
    backbone: str = ""
    allow_download: bool = False
    tune: Literal["frozen", "lora", "full"] = "lora"
    folds: int = 2
    members: int = 2
    steps: int = 400
    n_step: int | None = 10
    n_seconds: float | None = None
    positive_fraction: float = 0.3
    failure_penalty: float = 1.0
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        """Rejects contradictions."""
        if self.n_step is not None and self.n_seconds is not None:
            raise InputError(
                f"look-ahead of {self.n_step} frames and of {self.n_seconds} s: give one of them"
            )
        if (self.network == "vlm") != bool(self.backbone):
            raise InputError(
                "a vlm value network needs a backbone, the folder of a Hugging Face checkpoint"
                if self.network == "vlm"
                else f"the backbone {self.backbone!r} is for a vlm value network: choose network vlm"
            )


@dataclass(frozen=True)
class PolicySettings:
    """Training of the base policy and the fine-tunes that start from it.

    ``type`` is the LeRobot policy, with ``options`` of its own configuration; ``path``, a folder, holds
    weights that the base begins with. ``lora_rank`` is of the fine-tunes. ``positive_share`` is the share of
    each batch drawn from positive frames; ``indicator_dropout`` the share of samples whose prompt is the bare
    task. ``workers`` processes train each policy together, a share of each batch in each; one alone computes
    in ``threads`` threads.
    """

    type: str = "gen3_vla"
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    base_steps: int = 1000
    base_learning_rate: float = 1e-3
    fine_tune_steps: int = 1200
    fine_tune_learning_rate: float = 5e-4
    positive_share: float = 0.85
    indicator_dropout: float = 0.3
    batch_size: int = 64
    accumulate: int = 1
    lora_rank: int = 0
    precision: str = "float32"
    device: str = "cpu"
    workers: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        """Rejects more processes than a batch has observations, and several with threads."""
        if self.workers > self.batch_size:
            raise InputError(
                f"policy: batches of {self.batch_size} observations are too small for {self.workers} workers"
            )
        require_threads_alone(self.threads, self.workers, self.device)


@dataclass(frozen=True)
class LoopSettings:
    """Everything that decides what one iteration computes; its parts are the steps' parameters.

    ``evaluation_starts`` are those of an evaluation at most; ``promotion`` says whether it stops before.
    """

    recording: RecordingSettings = field(default_factory=RecordingSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    evaluation_starts: int = 200
    promotion: PromotionRule = field(default_factory=PromotionRule)
    seed: int = 0
    quick: bool = False  # few of everything; then recap.toml does not say how much is trained


# Learning rates of a policy that is not our own: LeRobot's presets for the types. They are of pretrained or
# large networks; the settings' own suit the small gen3_vla.
LEARNING_RATES = {
    **dict.fromkeys(("act", "evo1", "lingbot_va", "molmoact2"), 1e-5),
    **dict.fromkeys(("multi_task_dit", "wall_x"), 2e-5),
    **dict.fromkeys(("pi0", "pi05", "pi0_fast"), 2.5e-5),
    **dict.fromkeys(("diffusion", "eo1", "fastwam", "groot", "smolvla", "vla_jepa", "vqbet", "xvla"), 1e-4),
}
_SIZES = ("folds", "members", "steps")
_POLICY_SIZES = ("base_steps", "fine_tune_steps")
# Fresh weights on frozen features learn as fast as a small network; pretrained ones are only nudged.
_VLM_LEARNING_RATES = {"frozen": 5e-4, "lora": 2e-4, "full": 2e-5}
# The small network's is there because it learns a hundred episodes by heart.
_VLM_WEIGHT_DECAY = 0.01

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
    promotion=replace(FULL.promotion, round_starts=10),
    quick=True,
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
    starts = starts or settings.evaluation_starts
    return replace(
        settings, recording=recording, value=value, policy=policy, evaluation_starts=starts, seed=seed
    )


def settings_from_site(settings: LoopSettings, site: SiteConfig) -> LoopSettings:
    """A turn's settings, with what ``[defaults]`` and the sections of ``recap.toml`` for each part say.

    What the command line says comes after. Evaluations stop as soon as they are decided, unless the file says
    otherwise. ``--quick`` stays quick: folds, members, steps, starts and rounds are then not taken from the
    file. Raises ``InputError`` naming the file for what contradicts itself.
    """
    sizes, said = not settings.quick, site.promotion
    with site.named_in_errors():
        return replace(
            settings,
            recording=recording_with(settings.recording, site.defaults),
            value=value_with(settings.value, site.value, sizes=sizes),
            policy=_policy_with(settings.policy, site.policy, sizes=sizes),
            promotion=replace(settings.promotion, stop_early=True).with_site(said, sizes=sizes),
            evaluation_starts=(said.starts if sizes else None) or settings.evaluation_starts,
        )


def _policy_with(policy: PolicySettings, said: PolicySection, *, sizes: bool) -> PolicySettings:
    """``policy`` with what ``[policy]`` says; without ``sizes`` the numbers of steps stay as they are.

    Where it says a type and no learning rate, the rate is LeRobot's for the type.
    """
    changes = said.said()
    if said.type in LEARNING_RATES:
        rate = LEARNING_RATES[said.type]
        changes = {"base_learning_rate": rate, "fine_tune_learning_rate": rate, **changes}
    if not sizes:
        changes = {name: found for name, found in changes.items() if name not in _POLICY_SIZES}
    return replace(policy, **changes)


def value_with(value: ValueSettings, said: ValueSection, *, sizes: bool = True) -> ValueSettings:
    """``value`` with what ``said`` says; without ``sizes`` folds, members and steps stay as they are."""
    changes = {f.name: getattr(said, f.name) for f in fields(said) if getattr(said, f.name) is not None}
    if not sizes:
        changes = {name: found for name, found in changes.items() if name not in _SIZES}
    if "n_seconds" in changes:
        changes["n_step"] = None
    elif "n_step" in changes:
        changes["n_seconds"] = None
        changes["n_step"] = None if said.n_step == TO_THE_END else said.n_step
    if changes.get("network") == "small":
        changes["backbone"] = ""
    elif "backbone" in changes:
        changes["network"] = "vlm"
    return replace(value, **changes)


def value_training(settings: LoopSettings) -> ValueTrainingConfig:
    """How the value models are trained: its ``to_parameters()`` are in the keys of all that need values.

    A pretrained backbone is named by the digest of its files. Raises ``InputError`` where it cannot be
    read. Imports torch.
    """
    from value_model.training_config import ValueTrainingConfig

    value = settings.value
    config = ValueTrainingConfig(
        network=_network(settings),
        folds=value.folds,
        members=value.members,
        steps=value.steps,
        failure_penalty=value.failure_penalty,
        seed=settings.seed,
        device=value.device,
    )
    if value.network == "small":
        return config
    return replace(
        config,
        learning_rate=_VLM_LEARNING_RATES[value.tune],
        weight_decay=_VLM_WEIGHT_DECAY,
        # On a CPU bfloat16 saves nothing, and is emulated on many.
        precision="bfloat16" if value.device != "cpu" else "float32",
    )


def _network(settings: LoopSettings) -> NetworkConfig:
    from value_model.network import SmallNetworkConfig, VlmNetworkConfig, pin_backbone

    value, size = settings.value, settings.recording.image_size
    if value.network == "small":
        return SmallNetworkConfig(image_size=size)
    return pin_backbone(
        VlmNetworkConfig(
            # Steps may run elsewhere, and later from another folder.
            backbone=str(Path(value.backbone).resolve()) if Path(value.backbone).is_dir() else value.backbone,
            allow_download=value.allow_download,
            tune=value.tune,
            image_size=size,
            precision="bfloat16" if value.device != "cpu" else "float32",
        )
    )

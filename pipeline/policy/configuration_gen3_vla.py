"""Configuration of ``gen3_vla``: a small language-conditioned flow-matching policy for two cameras.

LeRobot finds the model and its processors from this module's name: ``configuration_gen3_vla`` has the
siblings ``modeling_gen3_vla`` and ``processor_gen3_vla``.
"""

from dataclasses import dataclass, field

from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.episode import ACTION_NAMES, CAMERAS, POLICY_STATE_NAMES
from pipeline.policy.gen3.choices import check_choices

QUATERNION_NAMES = ("tool.qw", "tool.qx", "tool.qy", "tool.qz")


@PreTrainedConfig.register_subclass("gen3_vla")
@dataclass
class Gen3VLAConfig(PreTrainedConfig):
    """What the network looks like and how it is run; the defaults train from scratch on one CPU core.

    Absolute position is left out of the default ``state_components``: a policy that sees it memorises
    the demonstrated places instead of looking at the cubes.
    """

    # Chunks: how many control steps are predicted at once, and how many of them are executed.
    chunk_size: int = 8
    n_action_steps: int = 4

    # States and images are scaled inside the network, so only actions need statistics: clipped to the
    # 1st and 99th percentile and scaled to [-1, 1] (as in RoboVLMs).
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.IDENTITY,
            "ACTION": NormalizationMode.QUANTILES,
        }
    )
    # The narrowest q01..q99 range (m/s, rad/s or 1) that is scaled to [-1, 1]; keeps the noise of an
    # axis that nobody moved from being blown up.
    min_action_range: float = 0.02

    # Names of the components of observation.state, in order, and those of them that the policy sees.
    state_names: list[str] = field(default_factory=lambda: list(POLICY_STATE_NAMES))
    state_components: list[str] = field(default_factory=lambda: ["tool.z", *QUATERNION_NAMES, "gripper.pos"])

    # Text: words are hashed into buckets, so there is no vocabulary file to ship.
    word_buckets: int = 512
    max_words: int = 16
    word_width: int = 64

    # Vision: non-overlapping patches, then two 3x3 convolutions; one encoder a camera.
    patch_size: int = 4
    vision_channels: list[int] = field(default_factory=lambda: [32, 48, 48])
    keypoints: int = 16  # spatial-softmax points a camera
    map_channels: int = 8  # channels of the flattened small feature map

    # The flow expert: an adaLN MLP over the flattened chunk.
    width: int = 256
    expert_blocks: int = 3
    expert_hidden: int = 512
    num_inference_steps: int = 6
    noise_samples: int = 4  # noise draws an observation in training; the observation is encoded once

    # Classifier-free guidance on the indicator: 1 follows the prompt as it is, more exaggerates it.
    guidance: float = 1.0

    # What the expert's output means: the flow's "velocity", or the clean "actions", from which the
    # velocity follows. The second also learns where width is small beside chunk_size x actions.
    prediction: str = "velocity"

    # The design space: what each value means, its source, and what contradicts what, is in gen3.choices.
    # The defaults are the small network above; what follows them is read by the other choices alone.
    backbone: str = "conv"
    action_head: str = "flow"
    training: str = "joint"
    backbone_tokens: str = "none"
    conditioning: str = "adaln"
    bridge: str = "pooled"
    state_input: str = "continuous"
    history: str = "one_step"
    indicator_input: str = "slot"
    # Sub-tasks that the backbone predicts, one of them, before it acts (pi0.5's high level); the prompts of
    # training say which it is (gen3.subtasks).
    subtasks: list[str] = field(default_factory=list)
    # A folder or hub id of a vision-language model, for backbone "vlm"; what its weights are held in: where
    # they are trained, "float32" (in bfloat16 an update below a 256th of a weight is lost), where they are
    # frozen or under LoRA "bfloat16" does. Whether its image tower is run twice instead of kept in memory.
    vlm: str = ""
    vlm_dtype: str = "float32"
    gradient_checkpointing: bool = False
    # The folder of another gen3_vla checkpoint: a new policy begins with the weights of its backbone. Empty
    # as soon as a policy is built, whose own checkpoint holds them then.
    pretrained_backbone: str = ""

    # Weights of the losses beside the action's: cross-entropy of action tokens and of sub-tasks (KI, eq. of
    # the joint loss), and lambda of the gripper's BCE (RoboVLMs, continuous actions).
    token_weight: float = 1.0
    subtask_weight: float = 0.3
    gripper_weight: float = 0.1
    # Action tokens: bins a number, and FAST's scale (its gamma), vocabulary, and trained merges: pairs of
    # token numbers, in the order in which they were learned.
    action_bins: int = 256
    fast_scale: float = 10.0
    fast_vocabulary: int = 256
    fast_merges: list[list[int]] = field(default_factory=list)
    # What a FAST token's place in a chunk is counted in; every checkpoint with such tokens says it. Those
    # that do not are of a time when it was counted in tokens, and mean something else: they are refused.
    fast_places: str = ""
    # The small transformer and the transformer expert.
    token_width: int = 128
    token_layers: int = 2
    token_heads: int = 4
    pool_queries: int = 8  # of the pooled bridge's attention

    # Training-time augmentation: images are shifted by up to this many pixels, brightness and contrast
    # scaled by up to this fraction.
    random_shift: int = 2
    color_jitter: float = 0.1

    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-4
    scheduler_warmup_steps: int = 100
    scheduler_decay_steps: int = 2_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}; it must lie between 1 and "
                f"chunk_size ({self.chunk_size})"
            )
        unknown = [name for name in self.state_components if name not in self.state_names]
        if unknown:
            raise ValueError(f"state_components names {unknown}, which state_names does not have")
        if 0 < len(set(QUATERNION_NAMES) & set(self.state_components)) < 4:
            raise ValueError("state_components must name all four of tool.q[wxyz], or none of them")
        if self.prediction not in ("velocity", "actions"):
            raise ValueError(f"prediction is {self.prediction!r}; use 'velocity' or 'actions'")
        if self.vlm_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"vlm_dtype is {self.vlm_dtype!r}; use 'float32' or 'bfloat16'")
        if self.gradient_checkpointing and self.backbone != "vlm":
            raise ValueError("gradient_checkpointing is for the image tower of backbone 'vlm': leave it off")
        if len(self.vision_channels) != 3:
            raise ValueError(f"vision_channels needs 3 numbers, not {self.vision_channels}")
        for name in ("width", "expert_blocks", "num_inference_steps", "noise_samples", "patch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.guidance < 0 or self.random_shift < 0 or not 0 <= self.color_jitter < 1:
            raise ValueError("guidance and random_shift must not be negative, color_jitter in [0, 1)")
        check_choices(self)

    def validate_features(self) -> None:
        """Raises ``ValueError`` where the inputs or outputs are not ones that this network takes."""
        if not self.image_features:
            raise ValueError("gen3_vla needs at least one observation.images.* input")
        if len({f.shape for f in self.image_features.values()}) != 1:
            raise ValueError("gen3_vla needs all of its cameras to have the same image shape")
        state = self.robot_state_feature
        if state is None or state.shape != (len(self.state_names),):
            raise ValueError(
                f"gen3_vla needs observation.state of shape ({len(self.state_names)},), "
                f"one for each of state_names, not {state.shape if state else None}"
            )
        if self.action_feature is None or len(self.action_feature.shape) != 1:
            raise ValueError("gen3_vla needs a flat `action` output")

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW, as ``lerobot-train`` uses it."""
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """Linear warm-up, then a cosine, as ``lerobot-train`` uses it."""
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
            peak_lr=self.optimizer_lr,
            decay_lr=self.optimizer_lr * 0.01,
        )

    @property
    def observation_delta_indices(self) -> list[int] | None:
        """The observations that are seen, relative to the present one; ``None``: it alone, no axis for it."""
        return None if self.n_obs_steps == 1 else list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        """The frames whose actions make up a chunk, relative to the observation."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""
        return None


def gen3_features(image_size: int) -> tuple[dict[str, PolicyFeature], dict[str, PolicyFeature]]:
    """The input and output features of this project's own episodes, cameras at ``image_size``²."""
    images = {
        f"{OBS_IMAGES}.{camera}": PolicyFeature(FeatureType.VISUAL, (3, image_size, image_size))
        for camera in CAMERAS
    }
    state = {OBS_STATE: PolicyFeature(FeatureType.STATE, (len(POLICY_STATE_NAMES),))}
    return {**images, **state}, {ACTION: PolicyFeature(FeatureType.ACTION, (len(ACTION_NAMES),))}

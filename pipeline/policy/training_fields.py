"""Fields of LeRobot's policy configurations that would have no effect here, and what to do instead.

LeRobot says in one configuration what a policy is and how ``lerobot-train`` trains it: its optimiser, its
schedule, uploads. This project's training has its own, so a value that was given for such a field would be
lost without a word; so would one of a field that nothing reads any more. Both are refused. What the policy's
own code reads is heeded, among it settings of groups of its weights (``get_optim_params``).
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import InputError

GROUP_FIELDS = {
    "act": frozenset({"optimizer_lr_backbone"}),
    "evo1": frozenset({"optimizer_weight_decay"}),
    "molmoact2": frozenset(
        {"optimizer_lr", "optimizer_vit_lr", "optimizer_connector_lr", "optimizer_action_expert_lr"}
    ),
    "multi_task_dit": frozenset({"optimizer_lr", "vision_encoder_lr_multiplier"}),
    "vqbet": frozenset({"optimizer_vqvae_lr", "optimizer_vqvae_weight_decay"}),
}
"""By type: rates and decays of groups of its weights, which training heeds; LoRA has no groups."""

OWN_RATES = frozenset({"molmoact2"})
"""Types each of whose groups of weights has a rate of its own, so that no other one is heeded."""

_FEATURES = "features follow from the data and cannot be set"
_UPLOADS = "training uploads nothing"
_START = "use --policy.path (in recap.toml: path under [policy])"
_LORA = "use --lora-rank and --policy.path (in recap.toml: lora_rank and path under [policy])"
_RATE = "use --learning-rate (in recap.toml: base_learning_rate and fine_tune_learning_rate under [policy])"
_STEPS = "use --steps (in recap.toml: base_steps and fine_tune_steps under [policy])"
_THEIRS = "only lerobot-train reads it; here"
_RESUMED = "a training that was stopped goes on when the command is given again"
_SCHEDULE = f"{_THEIRS} the rate warms up over 50 steps, and a cosine takes it to 0 over --steps"
_PADDING = (
    f"{_THEIRS} every frame is drawn, and --policy.do_mask_loss_for_padding=true leaves what lies past an "
    "episode's end out of the loss"
)

# Of every type that has them.
_INSTEAD = {
    "device": "use --device (in recap.toml: device under [policy])",
    "input_features": _FEATURES,
    "output_features": _FEATURES,
    "use_peft": _LORA,
    "use_amp": "use --precision bfloat16 (in recap.toml: precision under [policy])",
    "pretrained_path": _START,
    "pretrained_revision": _START,
    **dict.fromkeys(("push_to_hub", "repo_id", "private", "tags", "license"), _UPLOADS),
    "drop_n_last_frames": _PADDING,
    "optimizer_lr": _RATE,
    "optimizer_weight_decay": f"{_THEIRS} AdamW's weight decay is 0.0001",
    "optimizer_grad_clip_norm": f"{_THEIRS} gradients are clipped at a norm of 1",
}
# Of one type: under the same name another type may have what its own code reads.
_INSTEAD_OF_TYPE = {
    "groot": {
        "warmup_ratio": _SCHEDULE,
        "max_steps": _STEPS,
        "batch_size": "use --batch-size (in recap.toml: batch_size under [policy])",
        **dict.fromkeys(("lora_rank", "lora_alpha", "lora_dropout", "lora_full_model"), _LORA),
        "dataset_paths": "use --dataset",
        "output_dir": "checkpoints lie in the workspace, under steps/train_policy",
        "save_steps": _RESUMED,
        "resume": _RESUMED,
    },
    "xvla": dict.fromkeys(
        ("optimizer_soft_prompt_lr_scale", "optimizer_soft_prompt_warmup_lr_scale"),
        f"{_THEIRS} all weights are trained at --learning-rate",
    ),
}
# The policy's own code reads it.
_READ_BY_TYPE = {"evo1": frozenset({"use_amp"})}

# What LeRobot 0.6.1 has in a configuration and reads nowhere in training or acting.
_NO_HISTORY = frozenset(
    {"eo1", "evo1", "fastwam", "gaussian_actor", "groot", "lingbot_va", "pi0", "pi05", "pi0_fast"}
    | {"smolvla", "vla_jepa", "wall_x", "xvla"}
)
_UNREAD = {
    "fastwam": frozenset({"context_len"}),
    "gaussian_actor": frozenset(
        {"dataset_stats", "storage_device", "state_encoder_hidden_dim", "online_steps", "async_prefetch"}
        | {"online_buffer_capacity", "offline_buffer_capacity", "online_step_before_learning"}
        | {"actor_learner_config", "concurrency"}
    ),
    "groot": frozenset(
        {"image_size", "video_backend", "balance_dataset_weights", "balance_trajectory_weights"}
        | {"dataloader_num_workers", "report_to"}
    ),
    "pi0_fast": frozenset({"action_expert_variant"}),
    "vla_jepa": frozenset({"num_target_vision_tokens", "action_max_seq_len", "predictor_dropout"}),
}


def instead_of(policy_type: str, name: str) -> str | None:
    """What to do in place of a field that has no effect here, one phrase; ``None`` for one that is heeded.

    A name that the type does not have is no matter of this: ``None``, or what is said of its kind.
    """
    if name in GROUP_FIELDS.get(policy_type, ()) or name in _READ_BY_TYPE.get(policy_type, ()):
        return None
    if said := _INSTEAD_OF_TYPE.get(policy_type, {}).get(name) or _INSTEAD.get(name):
        return said
    if name.startswith("scheduler_"):
        return _SCHEDULE
    if name.startswith("optimizer_"):
        return f"{_THEIRS} the optimiser is AdamW, with torch's other settings"
    if name in _UNREAD.get(policy_type, ()) or (name == "n_obs_steps" and policy_type in _NO_HISTORY):
        return f"nothing of {policy_type} reads it"
    return None


def require_rate(policy_type: str, lora_rank: int) -> None:
    """Raises ``InputError`` where a learning rate that was given would have no effect."""
    if policy_type in OWN_RATES and not lora_rank:
        names = ", ".join(f"--policy.{name}" for name in sorted(GROUP_FIELDS[policy_type]))
        raise InputError(f"{policy_type} has rates of its own: leave --learning-rate out, and use {names}")


def require_groups(policy_type: str, names: Iterable[str], lora_rank: int) -> None:
    """Raises ``InputError`` where one of these options is of groups of weights, of which LoRA trains none."""
    lost = sorted(GROUP_FIELDS.get(policy_type, frozenset()) & set(names))
    if lora_rank and lost:
        raise InputError(
            f"--policy.{lost[0]} has no effect on low-rank updates, which are trained at --learning-rate: "
            "leave it or lora_rank out"
        )

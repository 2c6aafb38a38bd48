"""The design space of ``gen3_vla``: its choices, where each comes from, and which contradict each other.

Sources, by the short names used below. KI: Driess et al., "Knowledge Insulating Vision-Language-Action
Models" (2025). pi0: Black et al. (arXiv 2410.24164). pi0.5: Physical Intelligence (arXiv 2504.16054).
pi*0.6: Amin et al. (arXiv 2511.14759). FAST: Pertsch et al. (arXiv 2501.09747). RoboVLMs: Li et al.
(arXiv 2412.14058). RT-1, RT-2: Brohan et al. (arXiv 2212.06817, 2307.15818). DiT: Peebles and Xie
(arXiv 2212.09748). SmolVLA: Shukor et al. (arXiv 2506.01844). CogACT: Li et al. (arXiv 2411.19650).
OTTER: Huang et al. (arXiv 2503.03734). GR00T N1: NVIDIA (arXiv 2503.14734).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig

BACKBONES = {
    "conv": "a convolutional encoder a camera, all in one vector: no tokens",
    "transformer": "a small prefix transformer over tokens of cameras, words and state",
    "vlm": "a pretrained vision-language model (SmolVLM, Idefics3, PaliGemma, LLaVA) from a folder",
}
ACTION_HEADS = {
    "flow": "a flow-matching expert (pi0, section IV: conditional flow matching over a chunk)",
    "bins": "next-token prediction of 256 bins a number (RT-2, section 3.2; RoboVLMs, discrete actions)",
    "fast": "next-token prediction of DCT coefficients under BPE (FAST, algorithm 1)",
    "regression": "MSE on the pose and lambda BCE on the gripper (RoboVLMs, continuous actions)",
}
TRAININGS = {
    "joint": "the action loss trains backbone and expert together (pi0)",
    "insulated": "tokens train the backbone, the expert reads it through a stop-gradient (KI, section IV)",
    "frozen": "only the expert is trained (KI's frozen baseline)",
}
BACKBONE_TOKENS = {
    "none": "no tokens beside the expert",
    "bins": "256 bins a number, as the action head of that name",
    "fast": "FAST tokens, as in KI",
}
CONDITIONINGS = {
    "adaln": "one vector scales, shifts and gates every block (DiT, adaLN-Zero)",
    "cross_attention": "every block attends to the backbone's keys and values (pi0, SmolVLA)",
    "in_context": "the backbone's tokens stand before the actions in the expert's sequence (DiT; CogACT)",
}
BRIDGES = {
    "pooled": "one vector, by learned attention over all hidden states (OTTER)",
    "special_token": "the last hidden state of one reserved token (CogACT; RoboVLMs' [LRN])",
    "full_sequence": "everything that the backbone holds (pi0, GR00T N1)",
}
STATE_INPUTS = {
    "continuous": "a learned projection (pi0; KI, continuous state)",
    "tokens": "each number in 256 bins, a learned token a bin (KI, special token state)",
    "text": "each number in 256 bins, written as digits among the words (pi0.5; KI, text state)",
}
HISTORIES = {
    "one_step": "the present observation alone (RoboVLMs, one-step)",
    "interleaved": "all n_obs_steps observations in one sequence of the backbone (RoboVLMs, interleaved)",
    "policy_head": "the backbone reads each alone, a head joins its vectors (RoboVLMs, policy head)",
}
INDICATOR_INPUTS = {
    "slot": "a learned vector for positive, negative and none, wherever the expert is conditioned",
    "text": 'the words "Advantage: positive" behind the task, as in pi*0.6',
}

_CHOICES = {
    "backbone": BACKBONES,
    "action_head": ACTION_HEADS,
    "training": TRAININGS,
    "backbone_tokens": BACKBONE_TOKENS,
    "conditioning": CONDITIONINGS,
    "bridge": BRIDGES,
    "state_input": STATE_INPUTS,
    "history": HISTORIES,
    "indicator_input": INDICATOR_INPUTS,
}

TOKEN_HEADS = ("bins", "fast")


def check_choices(config: Gen3VLAConfig) -> None:
    """Raises ``ValueError``, one sentence, where a choice is unknown or contradicts another."""
    for name, known in _CHOICES.items():
        if getattr(config, name) not in known:
            raise ValueError(f"{name} is {getattr(config, name)!r}; use {', '.join(map(repr, known))}")
    for rules in (_about_backbone, _about_head, _about_training, _about_history, _about_subtasks):
        for wrong, sentence in rules(config):
            if wrong:
                raise ValueError(sentence)
    _check_sizes(config)


_Rules = list[tuple[bool, str]]


def _about_backbone(config: Gen3VLAConfig) -> _Rules:
    one_vector = config.backbone == "conv"
    token_like = {
        "bridge": "pooled",
        "state_input": "continuous",
        "conditioning": "adaln",
        "backbone_tokens": "none",
    }
    return [
        *(
            (
                one_vector and getattr(config, name) != value,
                f"{name} {getattr(config, name)!r} needs a backbone that reads tokens, and 'conv' gives one "
                "vector: set backbone to 'transformer' or 'vlm'",
            )
            for name, value in token_like.items()
        ),
        (
            one_vector and config.action_head in TOKEN_HEADS,
            f"action_head {config.action_head!r} predicts tokens, which backbone 'conv' cannot: set backbone "
            "to 'transformer' or 'vlm'",
        ),
        (
            (config.backbone == "vlm") != bool(config.vlm),
            "backbone 'vlm' needs vlm, the folder or hub id of a vision-language model"
            if config.backbone == "vlm"
            else f"vlm names {config.vlm!r}, which only backbone 'vlm' reads: set that, or leave vlm empty",
        ),
    ]


def _about_head(config: Gen3VLAConfig) -> _Rules:
    head, flow = config.action_head, config.action_head == "flow"
    return [
        (
            not flow and config.guidance != 1.0,
            f"guidance {config.guidance} works on a flow's velocity, and action_head {head!r} has none: "
            "leave it at 1",
        ),
        (
            not flow and config.conditioning != "adaln",
            f"conditioning {config.conditioning!r} is that of a flow expert, and action_head {head!r} has "
            "none: leave it at 'adaln'",
        ),
        (
            not flow and config.prediction != "velocity",
            f"prediction {config.prediction!r} is that of a flow expert, and action_head {head!r} has none",
        ),
        (
            flow and config.conditioning == "adaln" and config.bridge == "full_sequence",
            "conditioning 'adaln' takes one vector, and bridge 'full_sequence' gives many: use bridge "
            "'pooled' or 'special_token', or conditioning 'cross_attention' or 'in_context'",
        ),
        (
            head == "regression" and config.bridge == "full_sequence",
            "action_head 'regression' reads one vector, and bridge 'full_sequence' gives many: use bridge "
            "'pooled' or 'special_token'",
        ),
        (
            head in TOKEN_HEADS and config.bridge != "pooled",
            f"bridge {config.bridge!r} leads to an expert, and action_head {head!r} has none: leave it at "
            "'pooled'",
        ),
    ]


def _about_training(config: Gen3VLAConfig) -> _Rules:
    tokens = config.backbone_tokens != "none"
    return [
        (
            config.action_head in TOKEN_HEADS and config.training != "joint",
            f"training {config.training!r} keeps the expert from the backbone, and action_head "
            f"{config.action_head!r} is the backbone: use training 'joint'",
        ),
        (
            config.action_head in TOKEN_HEADS and tokens,
            f"backbone_tokens {config.backbone_tokens!r} go beside an expert, and action_head "
            f"{config.action_head!r} is tokens itself: use backbone_tokens 'none'",
        ),
        (
            config.training == "insulated" and not tokens,
            "training 'insulated' leaves the backbone to its tokens: set backbone_tokens to 'fast' or 'bins'",
        ),
        (
            config.training == "frozen" and (tokens or bool(config.subtasks)),
            "training 'frozen' trains nothing of the backbone, and tokens and sub-tasks would: leave out "
            "backbone_tokens and subtasks, or train 'insulated'",
        ),
    ]


def _about_history(config: Gen3VLAConfig) -> _Rules:
    several, head = config.history != "one_step", config.history == "policy_head"
    return [
        (
            several != (config.n_obs_steps > 1),
            f"history {config.history!r} and n_obs_steps {config.n_obs_steps} contradict each other: "
            "'one_step' is 1 observation, any other history 2 or more",
        ),
        (
            config.backbone == "conv" and config.history == "interleaved",
            "history 'interleaved' needs a backbone that reads tokens: use 'policy_head', or backbone "
            "'transformer'",
        ),
        (
            head and config.bridge == "full_sequence",
            "history 'policy_head' joins one vector an observation, and bridge 'full_sequence' gives many: "
            "use bridge 'pooled' or 'special_token'",
        ),
        (
            head and (config.action_head in TOKEN_HEADS or config.backbone_tokens != "none"),
            "history 'policy_head' joins vectors behind the backbone, and tokens are predicted inside it: "
            "use history 'interleaved' for them",
        ),
    ]


def _about_subtasks(config: Gen3VLAConfig) -> _Rules:
    names = config.subtasks
    return [
        (
            bool(names) and config.backbone == "conv",
            "subtasks are predicted as words, which backbone 'conv' cannot: set backbone to 'transformer' or "
            "'vlm'",
        ),
        (
            bool(names) and config.history == "policy_head",
            "subtasks are predicted once for all observations: use history 'one_step' or 'interleaved'",
        ),
        (
            len({name.strip().lower() for name in names}) != len(names) or not all(n.strip() for n in names),
            f"subtasks are {names}: each needs a name of its own",
        ),
    ]


def _check_sizes(config: Gen3VLAConfig) -> None:
    for name in ("n_obs_steps", "token_layers", "token_heads", "pool_queries"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if config.token_width < 1 or config.token_width % config.token_heads:
        raise ValueError(f"token_width {config.token_width} does not divide into {config.token_heads} heads")
    if min(config.token_weight, config.subtask_weight, config.gripper_weight) < 0:
        raise ValueError("token_weight, subtask_weight and gripper_weight must not be negative")
    if config.action_bins < 2 or config.fast_scale <= 0:
        raise ValueError("action_bins must be 2 or more, fast_scale above 0")
    alphabet = fast_alphabet(config.chunk_size, config.fast_scale)
    if "fast" in (config.action_head, config.backbone_tokens) and config.fast_vocabulary < alphabet:
        raise ValueError(
            f"fast_vocabulary is {config.fast_vocabulary}, and the coefficients of chunks of "
            f"{config.chunk_size} alone take {alphabet}: raise it, or lower fast_scale"
        )


def fast_alphabet(chunk_size: int, scale: float) -> int:
    """How many whole numbers a scaled, rounded DCT coefficient of a chunk in [-1, 1] can be.

    An orthonormal DCT keeps lengths, so a coefficient is at most sqrt(chunk_size).
    """
    return 2 * fast_bound(chunk_size, scale) + 1


def fast_bound(chunk_size: int, scale: float) -> int:
    """The largest of these whole numbers."""
    return round(scale * math.sqrt(chunk_size)) + 1

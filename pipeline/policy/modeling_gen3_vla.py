"""``gen3_vla``: a language-conditioned policy whose parts are choices (a LeRobot policy).

An encoder reads the observation once; a bridge says what of that an expert sees; the expert makes a chunk
of actions. By default: convolutions, one vector, and a flow expert that turns noise into actions in a few
Euler steps, under the advantage indicator. :mod:`pipeline.policy.gen3.choices` has the other choices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from pipeline.errors import InputError
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.action_tokens import FastTokens
from pipeline.policy.gen3.bridges import build_bridge
from pipeline.policy.gen3.build import build_encoder, build_expert, build_history, hidden_width
from pipeline.policy.gen3.encoding import Memory, Prefix, Reading, TokenErrors
from pipeline.policy.gen3.observations import STATE_IS_PAD, ObservationQueue, one_by_one, with_history
from pipeline.policy.gen3.pretrained_backbone import load_backbone_weights
from pipeline.policy.gen3.token_encoder import TokenEncoder
from pipeline.policy.processor_gen3_vla import OBS_INDICATOR
from pipeline.prompts import NONE

ACTION_IS_PAD = f"{ACTION}_is_pad"
# In a checkpoint: the configuration, tokenizer and image preprocessor of its vision-language backbone.
VLM_FOLDER = "vlm"
# Of a token the last of the chunk's numbers that it stands for: see TokenEncoder.
FAST_PLACES = "numbers"


class Gen3VLAPolicy(PreTrainedPolicy):
    """The LeRobot policy ``gen3_vla``; batches come from its preprocessor pipeline."""

    config_class = Gen3VLAConfig
    name = "gen3_vla"

    def __init__(self, config: Gen3VLAConfig, **_: Any) -> None:
        """LeRobot's factory also passes dataset statistics, which belong to the processors here."""
        super().__init__(config)
        config.validate_features()
        self.config: Gen3VLAConfig = config
        assert config.action_feature is not None
        self.action_size = config.action_feature.shape[0]
        self.encoder = build_encoder(config)
        self.expert = build_expert(config, self.encoder)
        width = hidden_width(config, self.encoder)
        self.bridge = build_bridge(config, width) if self.expert is not None else None
        self.history = build_history(config, width)
        if config.pretrained_backbone:
            load_backbone_weights(self.encoder, config.pretrained_backbone)
            config.pretrained_backbone = ""
        self._mark_trained()
        self.reset()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **options: Any
    ) -> Gen3VLAPolicy:
        """As LeRobot's; a vision-language backbone is built from what the checkpoint holds of it.

        Raises ``InputError`` for a policy whose FAST tokens had other places.
        """
        folder = Path(pretrained_name_or_path) / VLM_FOLDER
        if folder.is_dir():
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path) if config is None else config
            assert isinstance(config, Gen3VLAConfig)
            config.vlm = str(folder)
        policy = super().from_pretrained(pretrained_name_or_path, config=config, **options)
        if policy._fast() is not None and policy.config.fast_places != FAST_PLACES:
            raise InputError(
                f"{pretrained_name_or_path} was trained with FAST tokens whose places were counted in "
                "another way, and would act differently now: train it again"
            )
        return policy

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        if self._fast() is not None:
            self.config.fast_places = FAST_PLACES
        super()._save_pretrained(save_directory, state_dict=state_dict)
        if self.config.backbone == "vlm":
            self.encoder.backbone.save_shape(save_directory / VLM_FOLDER)

    def get_optim_params(self) -> list[nn.Parameter]:
        """All parameters that are trained, in one group."""
        return [p for p in self.parameters() if p.requires_grad]

    def reset(self) -> None:
        """Forgets queued actions and past observations; call it when an episode starts."""
        self._queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)
        self._observations = ObservationQueue(self.config.n_obs_steps)

    @property
    def learns_from_actions(self) -> bool:
        """Whether :meth:`fit_actions` has something to learn before training from scratch starts."""
        return self._fast() is not None

    def fit_actions(self, chunks: Tensor) -> None:
        """Learns FAST's merges from the training set's normalised chunks (N, chunk_size, action size).

        To be called once, before training from scratch: tokens learned later would mean other things. The
        merges are in the configuration, and so in the checkpoint. Nothing happens where
        :attr:`learns_from_actions` is False. Without the call every coefficient is a token of its own.
        """
        if self._fast() is None:
            return
        if chunks.ndim != 3 or chunks.shape[1:] != (self.config.chunk_size, self.action_size):
            raise InputError(
                f"chunks of shape {tuple(chunks.shape)}: FAST learns from (N, {self.config.chunk_size}, "
                f"{self.action_size})"
            )
        tokens = FastTokens.trained(chunks, self.config.fast_scale, self.config.fast_vocabulary)
        self.config.fast_merges = [list(pair) for pair in tokens.merges]
        self.encoder.tokens = tokens

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """The loss of normalised chunks ``action`` (B, chunk_size, action size), and its parts.

        Steps that ``action_is_pad`` (B, chunk_size) marks do not count. ``reduction`` is ``"mean"`` over all
        counted steps, or ``"none"`` for one loss per sample (B,). Raises ``InputError`` where observations
        lack the history that the policy is to learn from.
        """
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction is {reduction!r}; use 'mean' or 'none'")
        if (self.config.n_obs_steps > 1) != (batch[OBS_STATE].ndim == 3):
            raise InputError(
                f"the policy reads {self.config.n_obs_steps} observations, and the batch's "
                f"{OBS_STATE} has shape {tuple(batch[OBS_STATE].shape)}"
            )
        actions, indicator = batch[ACTION], batch[OBS_INDICATOR] - NONE
        padded = batch.get(ACTION_IS_PAD)
        if padded is None:
            padded = torch.zeros(actions.shape[:2], dtype=torch.bool, device=actions.device)
        memory, tokens = self._look(batch, indicator, actions, ~padded)
        if self.expert is not None:
            error = self.expert.errors(Reading(memory, indicator), actions, ~padded)
        else:
            assert tokens.actions is not None
            error = tokens.actions
        counted = (~padded).to(error.dtype)
        loss = _reduced(error, counted, reduction)
        info = {"loss": 0.0}
        if self.expert is not None and tokens.actions is not None:
            beside = _reduced(tokens.actions, counted, reduction)
            info |= {"expert_loss": _number(loss), "token_loss": _number(beside)}
            loss = loss + self.config.token_weight * beside
        if tokens.subtask is not None and tokens.subtask_known is not None:
            known = tokens.subtask_known.to(error.dtype)
            beside = (
                tokens.subtask if reduction == "none" else tokens.subtask.sum() / known.sum().clamp_min(1)
            )
            info["subtask_loss"] = _number(beside)
            loss = loss + self.config.subtask_weight * beside
        return loss, info | {"loss": _number(loss)}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], noise: Tensor | None = None) -> Tensor:
        """Normalised actions (B, chunk_size, action size), about in [-1, 1].

        ``noise`` (B, chunk_size, action size) is drawn from torch's global generator unless it is given; only
        a flow needs it. A policy with history takes observations (B, n_obs_steps, ...); where they lack that
        axis they are an episode's first. Raises ``InputError`` for guidance of a policy without a flow.
        """
        self.eval()
        indicator = batch[OBS_INDICATOR] - NONE
        if self.config.action_head != "flow" and self.config.guidance != 1.0:
            raise InputError(
                f"guidance {self.config.guidance} works on a flow's velocity, and this policy's actions are "
                f"by {self.config.action_head!r}: leave it at 1"
            )
        if self.config.n_obs_steps > 1:
            batch = with_history(batch, self.config.n_obs_steps)
        if self.expert is None:
            return self.encoder.speak(batch, indicator)
        readings = [Reading(self._look(batch, indicator)[0], indicator)]
        if self.config.guidance != 1.0 and bool((indicator != 0).any()):
            none = torch.zeros_like(indicator)
            again = self.encoder.knows_indicator
            readings.append(Reading(self._look(batch, none)[0] if again else readings[0].memory, none))
        return self.expert.chunk(readings, noise)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], noise: Tensor | None = None) -> Tensor:
        """The next normalised action (B, action size); predicts a new chunk when none is queued.

        A policy with history remembers the observation of every call since :meth:`reset`.
        """
        if self.config.n_obs_steps > 1:
            batch = self._observations.add(batch)
        if not self._queue:
            chunk = self.predict_action_chunk(batch, noise)
            self._queue.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()

    @torch.no_grad()
    def predict_subtask(self, batch: dict[str, Any]) -> list[str]:
        """The sub-task, one of ``config.subtasks``, that the backbone would act on, for each sample.

        Raises ``InputError`` where the policy knows none.
        """
        if not self.config.subtasks:
            raise InputError("this policy predicts no sub-tasks: it was trained without any")
        self.eval()
        if self.config.n_obs_steps > 1:
            batch = with_history(batch, self.config.n_obs_steps)
        numbers = self.encoder.predicted_subtask(batch, batch[OBS_INDICATOR] - NONE)
        return [self.config.subtasks[number] for number in numbers.tolist()]

    def _look(
        self,
        batch: Mapping[str, Any],
        indicator: Tensor,
        actions: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> tuple[Memory, TokenErrors]:
        """What the expert sees of a batch; its gradients end there unless they are to train the backbone."""
        if self.history is None:
            prefix, errors = self._read(batch, indicator, actions, counted)
            return (self.bridge(prefix) if self.bridge is not None else Memory()), errors
        steps = self.config.n_obs_steps
        prefix, errors = self._read(one_by_one(batch, steps), indicator.repeat_interleave(steps))
        assert self.bridge is not None
        memory: Memory = self.bridge(prefix)
        padded = batch.get(STATE_IS_PAD)
        if padded is None:
            padded = torch.zeros(len(indicator), steps, dtype=torch.bool, device=indicator.device)
        vectors = memory.one_vector().unflatten(0, (-1, steps))
        return memory.with_vector(self.history(vectors, padded)), errors

    def _read(self, batch: Mapping[str, Any], indicator: Tensor, *given: Tensor | None) -> tuple[Prefix, Any]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.training != "frozen"):
            prefix, errors = self.encoder(batch, indicator, *given)
        prefix = _as_hidden(prefix)
        return (prefix if self.config.training == "joint" else prefix.detached()), errors

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """What LeRobot and :mod:`pipeline.policy.tuning` adapt by LoRA: each linear layer that is trained."""
        return {
            "target_modules": [
                name
                for name, module in self.named_modules()
                # Not those inside torch's own attention, which reads their weights past their forward.
                if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
                if module.weight.requires_grad
            ]
        }

    def _mark_trained(self) -> None:
        """Leaves out of training what is frozen and what has no part in any loss."""
        config = self.config
        if config.training == "frozen":
            self.encoder.requires_grad_(False)
        keys_only = config.conditioning == "cross_attention" and config.bridge == "full_sequence"
        if keys_only and config.backbone_tokens == "none" and isinstance(self.encoder, TokenEncoder):
            for part in () if config.subtasks else self.encoder.backbone.last_only():
                part.requires_grad_(False)

    def _fast(self) -> FastTokens | None:
        tokens = getattr(self.encoder, "tokens", None)
        return tokens if isinstance(tokens, FastTokens) else None


def _reduced(error: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """The mean of ``error`` (B, T) over counted steps: of all samples, or for ``"none"`` of each, (B,)."""
    if reduction == "none":
        return (error * counted).sum(1) / counted.sum(1).clamp_min(1)
    return (error * counted).sum() / counted.sum().clamp_min(1)


def _as_hidden(prefix: Prefix) -> Prefix:
    """Keys and values in the float32 of hidden states, which an expert without autocast computes in."""
    hidden = prefix.hidden
    if torch.is_autocast_enabled(hidden.device.type):
        return prefix
    layers = tuple((keys.to(hidden.dtype), values.to(hidden.dtype)) for keys, values in prefix.layers)
    return replace(prefix, layers=layers)


def _number(loss: Tensor) -> float:
    return float(loss.detach().mean())

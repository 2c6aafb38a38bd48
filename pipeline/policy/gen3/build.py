"""Puts a policy's parts together: which module each choice stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.bridges import HistoryHead
from pipeline.policy.gen3.chunk_expert import ChunkExpert
from pipeline.policy.gen3.conv_encoder import ObservationEncoder
from pipeline.policy.gen3.encoding import ActionHead
from pipeline.policy.gen3.flow import FlowExpert
from pipeline.policy.gen3.regression import RegressionHead
from pipeline.policy.gen3.token_encoder import TokenEncoder
from pipeline.policy.gen3.transformer import SmallBackbone


def _small(config: Gen3VLAConfig) -> TokenEncoder:
    return TokenEncoder(config, SmallBackbone(config))


def _vlm(config: Gen3VLAConfig) -> TokenEncoder:
    from pipeline.policy.gen3.vlm_backbone import build_vlm_backbone  # loads transformers

    backbone = build_vlm_backbone(config)
    return TokenEncoder(config, backbone, backbone.scale)


_ENCODERS: dict[str, Callable[[Gen3VLAConfig], nn.Module]] = {
    "conv": ObservationEncoder,
    "transformer": _small,
    "vlm": _vlm,
}


def build_encoder(config: Gen3VLAConfig) -> Any:
    """The backbone with what belongs to it: an ``ObservationEncoder`` or a ``TokenEncoder``."""
    return _ENCODERS[config.backbone](config)


def hidden_width(config: Gen3VLAConfig, encoder: Any) -> int:
    """The width of the encoder's hidden states."""
    return int(encoder.backbone.width) if isinstance(encoder, TokenEncoder) else config.width


def _flow(config: Gen3VLAConfig, encoder: Any) -> ActionHead:
    assert config.action_feature is not None
    if isinstance(encoder, TokenEncoder):
        backbone = encoder.backbone
        return ChunkExpert(config, backbone.width, backbone.key_width, backbone.layer_count)
    return FlowExpert(config, config.chunk_size * config.action_feature.shape[0])


def _regression(config: Gen3VLAConfig, encoder: Any) -> ActionHead:
    return RegressionHead(config, hidden_width(config, encoder))


def _none(config: Gen3VLAConfig, encoder: Any) -> None:
    """The backbone's own tokens are the actions."""


_HEADS: dict[str, Callable[[Gen3VLAConfig, Any], ActionHead | None]] = {
    "flow": _flow,
    "regression": _regression,
    "bins": _none,
    "fast": _none,
}


def build_expert(config: Gen3VLAConfig, encoder: Any) -> ActionHead | None:
    """The action head behind the backbone, or ``None`` where the backbone speaks the actions itself."""
    return _HEADS[config.action_head](config, encoder)


def build_history(config: Gen3VLAConfig, width: int) -> HistoryHead | None:
    """The head that joins several observations' vectors, where that is the choice."""
    if config.history != "policy_head":
        return None
    heads = config.token_heads if width % config.token_heads == 0 else 1
    return HistoryHead(width, config.n_obs_steps, heads)

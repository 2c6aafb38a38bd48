"""Which value networks there are: from a configuration to a network, and from JSON to a configuration.

π*0.6 (arXiv 2511.14759) values frames with a 670 M vision-language model. ``small`` has the same
inputs and output at a size that two CPU cores train in seconds, so that a lab without a GPU closes the
loop; ``vlm`` reads the value out of any Hugging Face vision-language model or image-text encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from pipeline.errors import InputError
from value_model.small_network import SmallNetworkConfig, SmallValueNetwork, tokenize
from value_model.value_network import ValueNetwork, flops_per_frame, parameter_counts
from value_model.vlm_config import VlmNetworkConfig, backbone_and_digest

__all__ = [
    "NetworkConfig",
    "SmallNetworkConfig",
    "SmallValueNetwork",
    "ValueNetwork",
    "ValueNetworkConfig",
    "VlmNetworkConfig",
    "build_network",
    "flops_per_frame",
    "network_config",
    "parameter_counts",
    "pin_backbone",
    "tokenize",
]

NetworkConfig = SmallNetworkConfig | VlmNetworkConfig

# The name of the small network's configuration before there was another network.
ValueNetworkConfig = SmallNetworkConfig

_CONFIGS: dict[str, type[SmallNetworkConfig] | type[VlmNetworkConfig]] = {
    "small": SmallNetworkConfig,
    "vlm": VlmNetworkConfig,
}


def build_network(config: NetworkConfig) -> ValueNetwork:
    """The network, with fresh weights from torch's global generator outside of a pretrained backbone.

    Raises ``InputError`` where the backbone cannot be read or is not the one that ``config`` names.
    """
    if isinstance(config, SmallNetworkConfig):
        return SmallValueNetwork(config)
    # Transformers takes seconds to import, which the small network shall not cost.
    from value_model.vlm_network import build_vlm_network

    return build_vlm_network(config)


def network_config(document: Mapping[str, Any]) -> NetworkConfig:
    """The configuration that ``dataclasses.asdict`` wrote, also after JSON (lists become tuples).

    Without a kind it is small: so were all before the kind was written down. Raises ``InputError`` for
    an unknown kind or field and for values that no network has.
    """
    kind = document.get("kind", "small")
    config = _CONFIGS.get(kind) if isinstance(kind, str) else None
    if config is None:
        raise InputError(f"value network of kind {kind!r}: there are {' and '.join(_CONFIGS)}")
    unknown = sorted(set(document) - {f.name for f in fields(config)})
    if unknown:
        raise InputError(f"value network of kind {kind}: it has no field {', '.join(map(repr, unknown))}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
    try:
        return config(**values)
    except TypeError as error:
        raise InputError(f"value network of kind {kind}: a field has the wrong type ({error})") from error


def pin_backbone(config: NetworkConfig) -> NetworkConfig:
    """``config`` with the digest of its backbone's files, so that its record names the very weights.

    A network without a backbone stays as it is. Raises ``InputError`` as :func:`build_network` does.
    """
    if isinstance(config, SmallNetworkConfig):
        return config
    return replace(config, backbone_digest=backbone_and_digest(config)[1])

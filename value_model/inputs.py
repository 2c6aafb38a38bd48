"""From a table of frames to what a value network takes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.network import NetworkConfig, ValueNetwork


def episode_tokens(table: FrameTable, network: ValueNetwork) -> Tensor:
    """The task tokens of each of the table's episodes, int64 ``(episodes, words)``, for ``network``."""
    return network.tokenize(table.tasks)


def check_table(table: FrameTable, config: NetworkConfig) -> None:
    """Raises ``InputError`` unless the table's images and states have the shapes of the network's inputs."""
    images = table.images(np.array([0])).shape
    wanted = (1, config.cameras, config.image_size, config.image_size, 3)
    if images != wanted:
        raise InputError(f"frames have images of shape {images[1:]}, the value network takes {wanted[1:]}")
    if config.state_size and table.state.shape[1] != config.state_size:
        raise InputError(
            f"frames have {table.state.shape[1]} state values, the value network takes {config.state_size}"
        )

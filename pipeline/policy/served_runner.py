"""A checkpoint as a policy server offers it: with its name and what it needs of a robot."""

from __future__ import annotations

from pathlib import Path

import torch
from lerobot.utils.constants import OBS_IMAGES

from pipeline.episode import POLICY_STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.runner import PolicyRunner
from pipeline.prompts import Indicator


class ServedRunner(PolicyRunner):
    """A :class:`PolicyRunner` that introduces itself: a ``pipeline.policy.server.ServedPolicy``."""

    def __init__(
        self,
        checkpoint: Path,
        device: str | None = None,
        indicator: Indicator | None = "positive",
        name: str | None = None,
    ) -> None:
        """Loads the checkpoint on ``device``, by default a GPU where there is one.

        ``name`` is what episodes will say of who drove; the folder by default. Raises ``InputError`` for an
        unknown device and for a checkpoint that cannot drive any robot of this project.
        """
        super().__init__(checkpoint, _usable(device), indicator)
        self._name = name or str(Path(checkpoint).resolve())
        self.check_robot(dict.fromkeys(POLICY_STATE_NAMES, float) | dict.fromkeys(self.cameras, (1, 1, 3)))

    @property
    def checkpoint_name(self) -> str:
        """What episodes say of who drove."""
        return self._name

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that it looks at; images of any size, it resizes them."""
        return tuple(key.removeprefix(f"{OBS_IMAGES}.") for key in self._image_shapes)


def _usable(device: str | None) -> str:
    """The device's name, checked by using it."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device}: {reason}") from None
    return device

"""What the loop records in simulation, and what of all episodes value models and policies see.

Part of :mod:`workflows.settings`; ``[defaults]`` of ``recap.toml`` decides how large images are and how often
an arm is driven.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.site_config import DefaultsSection

PICK_TASKS = ("pick up the red cube", "pick up the blue cube")
RENDERED_SIZES = (84, 720)
"""Pixels, smallest and largest side of simulated images: below, cubes are a few pixels; above, it refuses."""
SIMULATED_RATES = (10.0, 20.0)
"""Hz, slowest and fastest that the simulated arm is driven."""


@dataclass(frozen=True)
class RecordingSettings:
    """How many episodes the scripted people record, in the simulator, and what is seen of all episodes.

    ``image_size`` is the side of the images that value models and policies see, in pixels. Evaluations run at
    ``rate_hz`` for ``max_steps``, with images of ``rendered_size``.
    """

    skilled_demonstrations: int = 60
    sloppy_demonstrations: int = 60
    autonomous_rollouts: int = 60
    supervised_rollouts: int = 60
    tasks: tuple[str, ...] = PICK_TASKS
    max_steps: int = 80
    rate_hz: float = 10.0
    image_size: int = 84

    @property
    def rendered_size(self) -> int:
        """The side of simulated images: what is trained on, within what the simulated arm renders."""
        return min(max(RENDERED_SIZES[0], self.image_size), RENDERED_SIZES[1])


def recording_with(recording: RecordingSettings, said: DefaultsSection) -> RecordingSettings:
    """``recording`` with the images' size and the rate of ``[defaults]``; episodes last as long as before.

    A policy acts as often as those who taught it, as far as the simulated arm, which evaluates it, can.
    """
    rate = min(max(SIMULATED_RATES[0], float(said.rate_hz)), SIMULATED_RATES[1])
    steps = round(recording.max_steps * rate / recording.rate_hz)
    return replace(recording, image_size=said.image_size, rate_hz=rate, max_steps=steps)

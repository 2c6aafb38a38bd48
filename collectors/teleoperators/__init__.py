"""Operators' devices as LeRobot teleoperators.

They are ``gen3_gamepad``, ``gen3_spacemouse``, ``gen3_keyboard`` and ``gen3_phone``. Importing registers
them, so ``--teleop.discover_packages_path=collectors`` finds them; the libraries that read the devices are
imported by ``connect``.
"""

from collectors.teleoperators.gamepad import Gen3Gamepad, Gen3GamepadConfig
from collectors.teleoperators.keyboard import Gen3Keyboard, Gen3KeyboardConfig
from collectors.teleoperators.phone import Gen3Phone, Gen3PhoneConfig
from collectors.teleoperators.spacemouse import Gen3SpaceMouse, Gen3SpaceMouseConfig

__all__ = [
    "Gen3Gamepad",
    "Gen3GamepadConfig",
    "Gen3Keyboard",
    "Gen3KeyboardConfig",
    "Gen3Phone",
    "Gen3PhoneConfig",
    "Gen3SpaceMouse",
    "Gen3SpaceMouseConfig",
]

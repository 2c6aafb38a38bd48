"""What is wrong with a camera's settings, in one line: which camera, which line of recap.toml, what to do."""

from __future__ import annotations

from collections.abc import Mapping

from lerobot.cameras import CameraConfig, ColorMode

from collectors.camera_finding import LIBUSB_REMEDY, describe_connected
from collectors.camera_reader import WrongImage, one_line
from pipeline.errors import InputError

IDENTIFYING = (
    "serial_number_or_name",
    "serial_number",
    "index_or_path",
    "recording",
    "url",
    "server_address",
    "ip_address",
)
"""Options that say which device is meant, in any camera type; the first that is set is named in errors."""


def check_settings(configs: Mapping[str, CameraConfig]) -> dict[str, tuple[int, int, int]]:
    """Each camera's image shape (height, width, 3); ``InputError`` for settings that cannot work.

    The size must be written down: it is what the episode file, the policy and the camera have to agree on.
    """
    features = {}
    for name, config in configs.items():
        if not config.width or not config.height:
            raise InputError(
                f"camera {name!r}: its image size is not known; "
                f"write width and height (and fps) into [cameras.{name}.options] in recap.toml"
            )
        if getattr(config, "color_mode", ColorMode.RGB) != ColorMode.RGB:
            raise InputError(
                f"camera {name!r}: color_mode is {config.color_mode.value!r} in [cameras.{name}.options], "
                "but episodes hold RGB: remove that line"
            )
        if not getattr(config, "use_rgb", True):
            raise InputError(
                f"camera {name!r}: use_rgb is false in [cameras.{name}.options], but its colour images are "
                "what is recorded: remove that line"
            )
        features[name] = (config.height, config.width, 3)
    return features


def opening_error(name: str, config: CameraConfig, error: Exception | None) -> InputError:
    """Why a camera cannot be used: its settings in recap.toml, what its SDK said, and what is connected."""
    error = error or ConnectionError("it gave no reason")
    reason = _reason(error)
    start = f"camera {name!r} ({config.type})"
    if isinstance(error, WrongImage):
        return InputError(f"{start} {reason}; change width and height in [cameras.{name}.options]")
    if _lacks_library(error):
        return InputError(f"{start}: {reason}")
    connected = describe_connected()
    there = "; ".join(connected) if connected else "none"
    option = next((field for field in IDENTIFYING if getattr(config, field, None) not in (None, "")), None)
    if option is None:
        return InputError(f"{start} cannot be opened: {reason}; cameras connected: {there}")
    value = getattr(config, option)
    setting = f'[cameras.{name}.options] {option} = "{value}"'
    if config.type != "opencv" and any(str(value) in line for line in connected):
        size = f"{config.width}x{config.height} at {config.fps} Hz"
        return InputError(
            f"{start}, {setting}, is connected but cannot be opened with {size}: {reason}; change width, "
            "height and fps to what it offers, and see that no other program uses it"
        )
    return InputError(f"{start} cannot be opened with {setting}: {reason}; cameras connected: {there}")


def _reason(error: Exception) -> str:
    """The SDK's words; LeRobot's advice to run its own finder is left out, as the finder's answer follows."""
    if "libusb" in str(error) or "libusb" in str(error.__cause__):
        return f"pyrealsense2 cannot be loaded, libusb-1.0 is missing: {LIBUSB_REMEDY}"
    text = one_line(error)
    for advice in (
        "Run `lerobot-find-cameras realsense` to find available cameras.",
        "Run `lerobot-find-cameras opencv` to find available cameras.",
    ):
        text = text.replace(advice, "")
    return text.strip(" .;")


def _lacks_library(error: Exception) -> bool:
    """Whether the camera's software is missing, so that listing devices would not help."""
    causes = (error, error.__cause__)
    return any(isinstance(cause, ImportError) or "libusb" in str(cause) for cause in causes)

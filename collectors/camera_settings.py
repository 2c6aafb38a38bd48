"""The ``[cameras.*]`` tables of recap.toml, turned into LeRobot camera configurations."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import draccus
from lerobot.cameras import CameraConfig

from collectors.camera_finding import LIBUSB_REMEDY
from pipeline.errors import InputError
from pipeline.site_config import CameraSection, require_known_keys

DEFINED_IN = {
    "opencv": "lerobot.cameras.opencv",
    "intelrealsense": "lerobot.cameras.realsense",
    "zmq": "lerobot.cameras.zmq",
    "realsense": "collectors.config_realsense",
    "orbbec": "collectors.config_orbbec",
    "azure_kinect": "collectors.config_azure_kinect",
    "network_camera": "collectors.config_network_camera",
    "simulated_camera": "collectors.config_simulated_camera",
}
"""Which module registers a type. Only the wanted one is loaded: LeRobot's RealSense loads the SDK at once."""


def camera_configs(sections: Mapping[str, CameraSection]) -> dict[str, CameraConfig]:
    """A configuration for each camera, by its name.

    Raises ``InputError`` that names the table and the key: unknown types, unknown, missing and bad options.
    """
    return {name: _config(name, section) for name, section in sections.items()}


def _config(name: str, section: CameraSection) -> CameraConfig:
    config_class = _class(name, section.type)
    where = f"[cameras.{name}.options]"
    known = {field.name: field for field in fields(config_class) if field.init}
    require_known_keys(f"{where} of type {section.type}", section.options, known)
    for option, field in known.items():
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and option not in section.options:
            raise InputError(f"{where} lacks {option}, which a camera of type {section.type} needs")
    try:
        decoded: Any = draccus.decode(CameraConfig, {"type": section.type, **section.options})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:  # draccus raises several kinds, and LeRobot's configs their own
        hidden = isinstance(error.__cause__, InputError) or "Couldn't instantiate" in str(error)
        cause = error.__cause__ if hidden and error.__cause__ is not None else error
        raise InputError(f"{where}: {' '.join(str(cause).split())}") from error
    if not isinstance(decoded, CameraConfig):
        raise InputError(f"{where} is not a camera's settings")
    return decoded


def _class(name: str, type_name: str) -> type[Any]:
    """The configuration class of that type; types that a plug-in has registered are known, too."""
    try:
        if type_name in DEFINED_IN:
            importlib.import_module(DEFINED_IN[type_name])
    except ImportError as error:
        if "libusb" in str(error):
            raise InputError(
                f"camera {name!r}: pyrealsense2 cannot be loaded, libusb-1.0 is missing: {LIBUSB_REMEDY}"
            ) from error
        raise InputError(
            f"camera {name!r}: the software of type {type_name} cannot be loaded: {error}"
        ) from error
    try:
        return CameraConfig.get_choice_class(type_name)
    except Exception as error:  # draccus: KeyError or its own
        known = sorted(set(DEFINED_IN) | set(CameraConfig.get_known_choices()))
        raise InputError(
            f"[cameras.{name}] has unknown type {type_name!r}; known are {', '.join(known)}"
        ) from error

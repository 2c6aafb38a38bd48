"""From ``recap.toml`` to devices: the robot, its cameras and the operator's input device.

Anything that is registered with LeRobot can be named there: ours, LeRobot's own, and what installed
packages called ``lerobot_robot_*``, ``lerobot_teleoperator_*`` or ``lerobot_camera_*`` bring. Nothing is
connected here. Whatever does not fit is one ``InputError`` that names the table of ``recap.toml``, and for
robots and cameras the file.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import draccus
from lerobot.robots import Robot, RobotConfig, make_robot_from_config
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig, make_teleoperator_from_config
from lerobot.utils.import_utils import register_third_party_plugins

from collectors.camera_settings import camera_configs
from collectors.lerobot_operator import LeRobotOperator, check_action_fits
from pipeline.episode import ACTION_NAMES, STATE_NAMES
from pipeline.errors import InputError, one_line
from pipeline.site_config import SiteConfig, require_known_keys

# Where registrations are, by what is registered: our modules first, which are quick to import.
_OURS = {
    RobotConfig: ("collectors.simulated_gen3", "collectors.kinova_gen3"),
    TeleoperatorConfig: ("collectors.teleoperators",),
}
OUR_PREFIX = "gen3_"
SHORT_NAMES = {name: OUR_PREFIX + name for name in ("gamepad", "spacemouse", "keyboard", "phone")}
_THEIRS = {RobotConfig: "lerobot.robots", TeleoperatorConfig: "lerobot.teleoperators"}


def make_robot(site: SiteConfig) -> Robot:
    """The robot of ``[robot]`` with the cameras of ``[cameras.*]``, not connected.

    Raises ``InputError`` for an unknown type, options that it does not take, and a robot that does not
    observe and act by the names of :mod:`pipeline.episode`, which is what is recorded.
    """
    with site.named_in_errors():
        return _robot(site)


def _robot(site: SiteConfig) -> Robot:
    options = dict(site.robot.options)
    config = _decoded(RobotConfig, site.robot.type, options, "robot")
    if site.cameras:
        cameras = camera_configs(site.cameras)
        if not hasattr(config, "cameras"):
            raise InputError(f"[cameras] cannot be used: a robot of type {site.robot.type!r} takes none")
        config.cameras = cameras
    robot: Robot = _made(lambda: make_robot_from_config(config), "robot")
    _check_names(f"robot {robot.name!r} observes", robot.observation_features, STATE_NAMES)
    _check_names(f"robot {robot.name!r} is driven by", robot.action_features, ACTION_NAMES)
    return robot


def make_operator(kind: str, options: Mapping[str, Any], action_features: Mapping[str, Any]) -> Any:
    """The input device registered as ``kind``, not connected, as the collection loop wants it.

    ``gamepad`` is short for ``gen3_gamepad``, and so on. Teleoperators of others are wrapped, see
    :class:`LeRobotOperator`. ``InputError`` as in :func:`make_robot`, and for one whose action is not
    the robot's.
    """
    kind = kind if kind.startswith(OUR_PREFIX) else SHORT_NAMES.get(kind, kind)
    config = _decoded(TeleoperatorConfig, kind, options, "operator")
    teleoperator: Teleoperator = _made(lambda: make_teleoperator_from_config(config), "operator")
    if kind.startswith(OUR_PREFIX):
        check_action_fits(teleoperator, action_features)
        return teleoperator
    return LeRobotOperator(teleoperator, action_features)


def _decoded(base: Any, kind: str, options: Mapping[str, Any], where: str) -> Any:
    if "type" in options:
        raise InputError(f"[{where}.options]: 'type' belongs into [{where}]")
    _require_known(base, kind, where)
    known = [field.name for field in fields(base.get_choice_class(kind)) if field.init]
    require_known_keys(f"[{where}.options] of type {kind}", options, known)
    try:
        return draccus.decode(base, {"type": kind, **options})
    except Exception as error:  # draccus raises several types, and configurations whatever they like
        # What a configuration says of its values is draccus's cause; of a value's type it speaks itself.
        hidden = error.__cause__ is not None and "Couldn't instantiate" in str(error)
        cause = error.__cause__ if hidden and error.__cause__ is not None else error
        raise InputError(f"[{where}.options] of {kind!r}: {one_line(cause, None)}") from error


def _made(make: Any, where: str) -> Any:
    try:
        return make()
    except InputError:
        raise
    except Exception as error:  # a driver that is not installed, above all
        raise InputError(f"[{where}]: {one_line(error, None)}") from error


def _require_known(base: Any, kind: str, where: str) -> None:
    for module in _OURS[base]:
        importlib.import_module(module)
    if kind not in base.get_known_choices():
        _import_theirs(base)
    known = sorted(base.get_known_choices())
    if kind not in known:
        near = difflib.get_close_matches(kind, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise InputError(f"[{where}]: unknown type {kind!r}; {hint}")


def _import_theirs(base: type) -> None:
    """Imports LeRobot's own devices and installed plugins; those that lack their drivers stay unknown."""
    package = importlib.import_module(_THEIRS[base])
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.ispkg:
            with contextlib.suppress(Exception):
                importlib.import_module(module.name)
    with contextlib.redirect_stderr(io.StringIO()):
        register_third_party_plugins()


def _check_names(what: str, features: Mapping[str, Any], needed: tuple[str, ...]) -> None:
    lacking = [name for name in needed if name not in features]
    if lacking:
        raise InputError(
            f"{what} {len(features)} values, but not {lacking[0]!r}: an episode needs {', '.join(needed)}"
        )

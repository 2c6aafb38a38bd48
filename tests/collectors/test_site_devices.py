"""recap.toml to devices: anything registered with LeRobot, and one line for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from collectors.simulated_gen3 import SimulatedGen3
from collectors.site_devices import make_operator, make_robot
from pipeline.episode import ACTION_NAMES
from pipeline.errors import InputError
from pipeline.site_config import CameraSection, RobotSection, SiteConfig, load_site_config


def site(robot: str, options: Mapping[str, Any] | None = None, **cameras: CameraSection) -> SiteConfig:
    return SiteConfig(robot=RobotSection(robot, options or {}), cameras=cameras)


def test_options_reach_the_robot_and_nothing_is_connected() -> None:
    robot = make_robot(site("simulated_gen3", {"rate_hz": 12, "image_size": 96}))
    assert isinstance(robot, SimulatedGen3)
    assert (robot.config.rate_hz, robot.config.image_size) == (12.0, 96)
    assert not robot.is_connected


def test_the_real_arm_gets_the_cameras_of_the_file() -> None:
    cameras = {
        "table": CameraSection("opencv", {"index_or_path": 4, "width": 640, "height": 480, "fps": 30}),
        "wrist": CameraSection(
            "intelrealsense", {"serial_number_or_name": "0123", "width": 320, "height": 240, "fps": 30}
        ),
    }
    config = site("kinova_gen3", {"ip": "10.0.0.7", "tcp_port": 11000}, **cameras)
    robot = make_robot(config)
    assert (robot.name, robot.config.ip, robot.config.tcp_port) == ("kinova_gen3", "10.0.0.7", 11000)
    assert robot.observation_features["table"] == (480, 640, 3)
    assert robot.observation_features["wrist"] == (240, 320, 3)
    assert not robot.is_connected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (site("kinova_gen4"), r"\[robot\]: unknown type 'kinova_gen4'; did you mean 'kinova_gen3'?"),
        (site("zzz"), r"\[robot\]: unknown type 'zzz'; there are .*simulated_gen3"),
        (site("simulated_gen3", {"rat_hz": 5}), r"'rat_hz' in \[robot.options\] .*'rate_hz'\? known are "),
        (site("simulated_gen3", {"rate_hz": 5}), r"\[robot.options\].*rate_hz is 5.0, must be 10 to 20"),
        (site("simulated_gen3", {"rate_hz": "fast"}), r"\[robot.options\].*rate_hz"),
        (site("simulated_gen3", {"type": "so100_follower"}), r"'type' belongs into \[robot\]"),
        (
            site("kinova_gen3", table=CameraSection("opencv", {"index": 0})),
            r"unknown key 'index' in \[cameras.table.options\]",
        ),
        (site("kinova_gen3", table=CameraSection("openvc")), r"\[cameras.table\] has unknown type 'openvc'"),
        # LeRobot's own arms are known; one that speaks of other joints cannot be recorded.
        (site("so100_follower", {"port": "/dev/none"}), r"\[robot\]|robot 'so_follower' observes"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_table(config: SiteConfig, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_robot(config)
    assert "\n" not in str(caught.value)


ACTION = dict.fromkeys(ACTION_NAMES, float)


def test_an_input_device_may_be_named_short() -> None:
    for name in ("gen3_keyboard", "keyboard"):
        assert make_operator(name, {"slow_factor": 0.5}, ACTION).name == "gen3_keyboard"


def test_an_unknown_input_device_is_named() -> None:
    with pytest.raises(InputError, match=r"\[operator\]: unknown type 'gen3_gampad'; did you mean"):
        make_operator("gen3_gampad", {}, ACTION)
    with pytest.raises(InputError, match=r"'slow_facto' in \[operator.options\] .*'slow_factor'\? known"):
        make_operator("gen3_keyboard", {"slow_facto": 1}, ACTION)


def test_errors_of_the_robot_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recap.toml"
    path.write_text('[robot]\ntype = "kinova_gen3"\n[robot.options]\nipp = "10.0.0.7"\n')
    with pytest.raises(InputError, match=r"unknown key 'ipp' .*did you mean 'ip'\? known") as caught:
        make_robot(load_site_config(path))
    assert str(caught.value).startswith(f"{path}: ")

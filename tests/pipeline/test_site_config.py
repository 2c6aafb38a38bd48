"""recap.toml: everything optional, everything unknown or contradictory refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.site_config import (
    CacheSection,
    CameraSection,
    DefaultsSection,
    RobotSection,
    SiteConfig,
    load_site_config,
)

FULL = """
tasks = ["pick up the red cube", "открой ящик"]
[robot]
type = "kinova_gen3"
[robot.options]
ip = "192.168.1.10"
[cameras.table]
type = "intelrealsense"
[cameras.table.options]
serial_number_or_name = "0123"
[defaults]
operator = "ana"
rate_hz = 20
[cache]
max_gib = 1.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recap.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_file_is_read(tmp_path: Path) -> None:
    config = load_site_config(write(tmp_path, FULL))
    assert config == SiteConfig(
        robot=RobotSection("kinova_gen3", {"ip": "192.168.1.10"}),
        cameras={"table": CameraSection("intelrealsense", {"serial_number_or_name": "0123"})},
        tasks=("pick up the red cube", "открой ящик"),
        defaults=DefaultsSection(operator="ana", rate_hz=20),
        cache=CacheSection(max_gib=1.5),
    )
    assert pickle.loads(pickle.dumps(config)) == config


def test_no_file_and_an_empty_file_mean_the_simulated_arm(tmp_path: Path) -> None:
    assert load_site_config(tmp_path / "recap.toml") == SiteConfig()
    assert load_site_config(write(tmp_path, "")) == SiteConfig()
    assert SiteConfig().robot.type == "simulated_gen3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks = [", "cannot read"),
        (
            "taks = []",
            "unknown key 'taks' in the top level; known are robot, cameras, tasks, defaults, cache",
        ),
        ("[robot]\nip = '1'", r"unknown key 'ip' in \[robot\]"),
        ("[cameras.a]\ntype='x'\nfps=1", r"unknown key 'fps' in \[cameras.a\]"),
        ("[defaults]\nrate = 1", "unknown key 'rate'"),
        ("robot = 'kinova'", "robot must be a table"),
        ("cameras = 3", "cameras must be a table"),
        ("tasks = 'one'", "tasks must be a list"),
        ("tasks = ['']", "tasks must be a text"),
        ("tasks = [3]", "tasks must be a text"),
        ("tasks = ['a', 'a']", "names a task twice"),
        ("[robot]\ntype = ''", "robot.type must be a text"),
        ("[robot]\ntype = 'k'\noptions = 3", "robot.options must be a table"),
        ("[robot]\ntype = 'k'\n[cameras.a]", "cameras.a.type must be a text"),
        ("[robot]\ntype = 'k'\n[cameras.'a/b']\ntype='x'", "camera name 'a/b'"),
        ("[cameras.a]\ntype = 'x'", "contradicts robot.type 'simulated_gen3'"),
        ("[defaults]\nrate_hz = 0", "rate_hz must lie"),
        ("[defaults]\nrate_hz = nan", "rate_hz must lie"),
        ("[defaults]\nrate_hz = true", "rate_hz must be a number"),
        ("[defaults]\nimage_size = 84.5", "image_size must be a whole number"),
        ("[defaults]\nimage_size = 8", "image_size must lie"),
        ("[cache]\nmax_gib = -1", "cache.max_gib must be 0 or more"),
        ("[cache]\nmax_gib = nan", "cache.max_gib must be 0 or more"),
        ("[cache]\nmax_gib = true", "cache.max_gib must be a number"),
        ("[cache]\nmax = 1", r"unknown key 'max' in \[cache\]"),
        ("[defaults]\noperator = ' '", "defaults.operator must be a text"),
    ],
)
def test_each_mistake_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_site_config(path)
    assert str(path) in str(caught.value)

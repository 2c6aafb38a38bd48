"""The contract suite over real cameras: those that ``[cameras.*]`` of a recap.toml names.

RECAP_TOML=workspace/recap.toml pytest -m hardware tests/hardware/test_cameras_hardware.py
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from lerobot.cameras import CameraConfig

from collectors.camera_finding import describe_connected
from collectors.camera_settings import camera_configs
from collectors.cameras import CameraSet
from pipeline.site_config import load_site_config
from tests.contracts.camera_contract import next_image, wait_for

pytestmark = pytest.mark.hardware


@pytest.fixture(scope="module")
def configs() -> dict[str, CameraConfig]:
    """The cameras of the site, by name."""
    path = os.environ.get("RECAP_TOML")
    if not path:
        pytest.skip("needs RECAP_TOML, a recap.toml whose [cameras.*] are connected")
    configs = camera_configs(load_site_config(Path(path)).cameras)
    if not configs:
        pytest.skip(f"{path} names no cameras")
    return configs


def test_all_cameras_together_keep_their_rates(configs: dict[str, CameraConfig]) -> None:
    """Ten seconds of all of them: none lost, nine images out of ten there, times that ascend."""
    cameras = CameraSet(configs)
    cameras.connect()
    try:
        began, first = time.monotonic(), cameras.latest()
        while time.monotonic() - began < 10:
            assert cameras.lost == {}
            for image in cameras.latest().values():
                assert 0 <= time.time_ns() - image.timestamp_ns < 1e9
            time.sleep(0.02)
        last = cameras.latest()
    finally:
        cameras.disconnect()
    for name, config in configs.items():
        count = last[name].sequence - first[name].sequence
        assert count > 0.9 * 10 * (config.fps or 30), f"{name}: {count} images in 10 s"
        assert last[name].image.shape == cameras.features[name]
        assert last[name].image.std() > 1, f"{name} sees nothing"


def test_images_are_not_reused_and_reconnecting_works(configs: dict[str, CameraConfig]) -> None:
    cameras = CameraSet(configs)
    for _ in range(2):
        cameras.connect()
        try:
            kept = {name: (image, image.image.copy()) for name, image in cameras.latest().items()}
            for name, (image, copy) in kept.items():
                next_image(cameras, name)
                np.testing.assert_array_equal(image.image, copy)
        finally:
            cameras.disconnect()


def test_what_is_connected_is_listed(configs: dict[str, CameraConfig]) -> None:
    connected = describe_connected()
    assert len(connected) >= len(configs), connected


def test_a_cable_that_a_person_unplugs(
    configs: dict[str, CameraConfig], capfd: pytest.CaptureFixture
) -> None:
    """Asks for one cable to be unplugged and plugged in again; a minute for each."""
    if not os.environ.get("SOMEONE_IS_THERE"):
        pytest.skip("needs a person at the cameras: set SOMEONE_IS_THERE=1")
    cameras = CameraSet(configs)
    cameras.connect()
    try:
        with capfd.disabled():
            print("\nunplug one camera now", flush=True)
        wait_for(lambda: cameras.lost, "a loss", patience_s=60)
        (name,) = cameras.lost
        others = set(configs) - {name}
        for other in others:
            next_image(cameras, other)
        with capfd.disabled():
            print(f"{cameras.lost}\nplug it in again", flush=True)
        wait_for(lambda: not cameras.lost, "its return", patience_s=60)
    finally:
        cameras.disconnect()

"""What every camera type must do, alone and in a ``CameraSet``: one suite, a subclass per type."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from lerobot.cameras import Camera, CameraConfig
from lerobot.cameras.utils import make_cameras_from_configs
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from collectors.cameras import CameraSet, CapturedImage

PATIENCE_S = 30.0  # a loaded machine must not fail a test


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Returns as soon as ``condition()`` is true; fails the test when it never is."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s in vain for {what}"
        time.sleep(0.01)


def next_image(cameras: CameraSet, name: str) -> CapturedImage:
    """The first image of that camera that is newer than the newest one."""
    before = cameras.latest()[name].sequence
    wait_for(lambda: cameras.latest()[name].sequence > before, f"a new image of {name}")
    return cameras.latest()[name]


class CameraContract(ABC):
    """Subclass as ``Test…`` and give :meth:`config`: a running device whose reddish picture changes."""

    type_name: str
    clock: str  # where its times come from, "device" or "arrival"

    @abstractmethod
    @pytest.fixture
    def config(self) -> CameraConfig:
        """The settings of a camera that is connected and running."""

    @staticmethod
    def make(config: CameraConfig) -> Camera:
        """The camera that LeRobot's own factory makes of its settings."""
        return make_cameras_from_configs({"table": config})["table"]

    @pytest.fixture
    def camera(self, config: CameraConfig) -> Iterator[Camera]:
        """A connected camera, disconnected afterwards."""
        camera = self.make(config)
        camera.connect()
        yield camera
        if camera.is_connected:
            camera.disconnect()

    @pytest.fixture
    def cameras(self, config: CameraConfig) -> Iterator[CameraSet]:
        """A connected set of this one camera."""
        cameras = CameraSet({"table": config})
        cameras.connect()
        yield cameras
        cameras.disconnect()

    def test_type_is_registered_and_size_is_known(self, config: CameraConfig) -> None:
        """LeRobot finds it by its type; what it will deliver is known without a device."""
        assert config.type == self.type_name
        assert CameraConfig.get_choice_class(self.type_name) is type(config)
        assert CameraSet({"table": config}).features == {"table": (config.height, config.width, 3)}

    def test_constructing_opens_nothing(self, config: CameraConfig) -> None:
        """Only ``connect`` touches the device; before it, reading is refused."""
        camera = self.make(config)
        assert not camera.is_connected
        for read in (camera.read, camera.async_read, camera.read_latest):
            with pytest.raises(DeviceNotConnectedError):
                read()

    def test_images_have_the_announced_shape(self, camera: Camera, config: CameraConfig) -> None:
        """By each of LeRobot's three ways to read: (height, width, 3) uint8, with something to see."""
        images = [camera.read(), camera.async_read(timeout_ms=5000), camera.read_latest(max_age_ms=5000)]
        for image in images:
            assert image.shape == (config.height, config.width, 3)
            assert image.dtype == np.uint8
            assert image.std() > 1
            assert image[..., 0].mean() > image[..., 2].mean() + 10, "red and blue are swapped"

    def test_connecting_twice_is_refused_and_again_works(self, camera: Camera) -> None:
        """LeRobot's convention."""
        with pytest.raises(DeviceAlreadyConnectedError):
            camera.connect()
        camera.disconnect()
        assert not camera.is_connected
        with pytest.raises(DeviceNotConnectedError):
            camera.read()
        camera.connect()
        assert camera.read().std() > 1

    def test_set_delivers_new_images_that_stay_as_they_are(
        self, cameras: CameraSet, config: CameraConfig
    ) -> None:
        """The picture changes, and an image that was kept does not change with it."""
        first = cameras.latest()["table"]
        copy = first.image.copy()
        assert first.image.shape == (config.height, config.width, 3)
        assert first.image.dtype == np.uint8
        later = [next_image(cameras, "table") for _ in range(5)]
        assert any(not np.array_equal(image.image, copy) for image in later)
        np.testing.assert_array_equal(first.image, copy)
        assert cameras.lost == {}

    def test_times_are_of_the_system_clock_and_ascend(self, config: CameraConfig) -> None:
        """Taken before it is seen, after connecting began, and never before the image that came earlier."""
        cameras = CameraSet({"table": config})
        began_ns = time.time_ns()
        cameras.connect()
        try:
            images = [next_image(cameras, "table") for _ in range(5)]
            now_ns = time.time_ns()
            assert cameras.clocks == {"table": self.clock}
        finally:
            cameras.disconnect()
        times = [image.timestamp_ns for image in images]
        assert times == sorted(times)
        assert began_ns - 1e9 <= times[0]  # a device may have taken its first image before it was asked
        assert times[-1] <= now_ns

    def test_set_can_be_connected_again(self, cameras: CameraSet) -> None:
        """Disconnecting twice is harmless; nothing is delivered in between."""
        cameras.disconnect()
        cameras.disconnect()
        assert cameras.latest() == {}
        assert not cameras.is_connected
        cameras.connect()
        assert next_image(cameras, "table").sequence > 1

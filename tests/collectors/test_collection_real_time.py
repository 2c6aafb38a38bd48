"""The loop in real time: arms that stop, cameras with their own clock, steps that are late."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.cameras import CameraSet
from collectors.collection_loop import End, EpisodeLog, LoopConfig, run_episode
from collectors.config_simulated_camera import SimulatedCameraConfig
from collectors.operator_keys import OperatorKey
from collectors.simulated_camera import SimulatedCable
from tests.collectors.moving_arm import Hand, MovingArm, ScriptedKeys
from tests.collectors.test_collection_loop import FAST, Frames, Person, PointRobot


def test_an_arm_that_stops_ends_the_episode_with_its_reason() -> None:
    arm, frames, log = MovingArm(), Frames(), EpisodeLog()
    arm.fault_at = 6
    summary = run_episode(arm, Hand(), LoopConfig(100.0, 50), recorder=frames, log=log)
    assert (summary.end, summary.steps, len(frames)) == (End.ARM_STOPPED, 6, 6)
    assert summary.why is not None and "joint 3" in summary.why and summary.truncated
    assert log.extra()["ended"] == {"by": "the arm stopped", "why": summary.why}
    assert not arm.is_moving()


def test_each_image_keeps_its_own_time_and_a_lost_camera_is_marked() -> None:
    arm, frames, log = MovingArm(), Frames(), EpisodeLog()
    arm.lost_from = {"wrist": 5}
    summary = run_episode(arm, Hand(), LoopConfig(100.0, 12), recorder=frames, log=log)
    assert summary.steps == 12 and summary.end is End.TIME
    for frame in frames:
        assert 0 < frame.timestamp_ns - frame.camera_timestamp_ns["table"] < 10**9
    wrist = [f.camera_timestamp_ns["wrist"] for f in frames]
    assert len(set(wrist)) == 5 and wrist == sorted(wrist)
    assert log.extra()["cameras_lost"] == {"wrist": {"first_frame": 5, "why": "unplugged"}}


def test_the_arm_holds_when_a_real_time_episode_ends_and_when_it_breaks_off() -> None:
    arm = MovingArm()
    run_episode(arm, Hand(), LoopConfig(100.0, 5))
    assert arm.sent[-2][2] == np.float32(0.05) and not arm.is_moving()
    assert arm.sent[-1][6] == 1.0, "what it holds stays held"
    arm.fails_after = {len(arm.sent) + 3: KeyboardInterrupt()}  # type: ignore[dict-item]  # Ctrl-C
    log = EpisodeLog()
    with pytest.raises(KeyboardInterrupt):
        run_episode(arm, Hand(), LoopConfig(100.0, 50), log=log)
    assert log.extra()["ended"] == {"by": "session stopped by the operator", "why": "Ctrl-C"}
    assert not arm.is_moving()


def test_a_teleoperator_feels_the_arm() -> None:
    hand = Hand()
    run_episode(PointRobot(), hand, FAST)
    assert hand.felt == [{"gripper.pos": 0.5}] * 11


def test_late_steps_are_counted_and_their_backlog_is_dropped() -> None:
    """Three steps take three periods each; none of the periods that they missed is made up for."""

    class Slow(PointRobot):
        def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
            if len(self.sent) in (3, 4, 5):
                time.sleep(0.06)
            return super().send_action(action)

    began = time.monotonic()
    summary = run_episode(Slow(), Person(), LoopConfig(50.0, 20))
    assert time.monotonic() - began >= 17 * 0.02 + 3 * 0.06 - 0.01
    assert summary.pace.overruns >= 3
    assert summary.pace.p99_jitter_ms >= 35 and summary.pace.rate_hz < 45
    assert summary.pace.p50_jitter_ms <= summary.pace.p99_jitter_ms


class ArmWithCameras(MovingArm):
    """The arm with two real camera threads in front of simulated devices."""

    def __init__(self, cable: SimulatedCable) -> None:
        """``cable`` is the wrist camera's."""
        super().__init__()
        wrist = SimulatedCameraConfig(fps=60, width=64, height=48, cable=cable.path)
        table = SimulatedCameraConfig(fps=60, width=64, height=48)
        self.cameras = CameraSet({"table": table, "wrist": wrist}, lost_after_s=0.2)

    def get_observation(self) -> dict[str, Any]:
        """With the newest images and their own times."""
        newest = self.cameras.latest()
        observation = super().get_observation() | {name: image.image for name, image in newest.items()}
        self.capture_times_ns = {name: image.timestamp_ns for name, image in newest.items()}
        self.lost_cameras = self.cameras.lost
        return observation


def test_a_camera_unplugged_in_the_middle_keeps_its_old_time_and_may_come_back(tmp_path: Path) -> None:
    cable = SimulatedCable(tmp_path / "cable")
    arm, frames, log, keys = ArmWithCameras(cable), Frames(), EpisodeLog(), ScriptedKeys()

    def is_back() -> bool:
        return "back_at_frame" in log.cameras_lost.get("wrist", {})

    keys.script = [(is_back, OperatorKey.SUCCESS)]
    arm.cameras.connect()
    try:

        def pull_and_put_back(_: Any) -> None:
            if log.steps == 10:
                cable.unplug()
            if "wrist" in log.cameras_lost and len(frames) >= 30:
                cable.mend()

        summary = run_episode(
            arm,
            Hand(),
            LoopConfig(50.0, 1500),
            recorder=frames,
            log=log,
            keys=keys,
            on_step=pull_and_put_back,
        )
    finally:
        arm.cameras.disconnect()
    assert summary.end is End.OPERATOR, "neither the cable nor the time ended it"
    lost = log.extra()["cameras_lost"]["wrist"]
    assert 10 <= lost["first_frame"] < lost["back_at_frame"] <= len(frames) and lost["why"]
    gone = frames[lost["first_frame"] : lost["back_at_frame"]]
    assert len({frame.camera_timestamp_ns["wrist"] for frame in gone[:5]}) == 1
    assert len({frame.camera_timestamp_ns["table"] for frame in gone}) > 1
    assert gone[4].timestamp_ns - gone[4].camera_timestamp_ns["wrist"] > 5 * 10**7

"""LeRobot's own ``lerobot-record`` drives our arms with our keyboard: the real command, in a terminal.

It reads the terminal too, for its own keys, so that each of the two gets only some of them; the keyboard is
pressed often here. People should record with ``recap record``, or use another device.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets import LeRobotDataset

from pipeline.episode import ACTION_NAMES, STATE_NAMES
from tests.kortex_stand_in.simulated_arm import SimulatedArm

TASK = "pick up the red cube"
KEY = b"j"  # turns the tool to the left; nothing to LeRobot
SECONDS = 3
RATE_HZ = 10


def documented() -> list[str]:
    """The options of the command line in ``docs/kinova.md``."""
    page = (Path(__file__).parents[2] / "docs" / "kinova.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"```sh\n(lerobot-record .*?)```", page, re.DOTALL)
    return shlex.split(line.replace("\\\n", ""))[1:]


def record(
    folder: Path, environment: dict[str, str], *words: str, before: Sequence[str] = ()
) -> LeRobotDataset:
    """Runs ``lerobot-record`` for one short episode, a key held down all the time; the finished dataset.

    Of an option that is given twice the later one counts: ours replace those of ``before``.
    """
    command = [
        str(Path(sys.executable).with_name("lerobot-record")),
        *before,
        "--robot.discover_packages_path=collectors",
        "--teleop.discover_packages_path=collectors",
        "--teleop.type=gen3_keyboard",
        "--dataset.repo_id=lab/test",
        f"--dataset.root={folder}",
        f"--dataset.single_task={TASK}",
        "--dataset.num_episodes=1",
        f"--dataset.episode_time_s={SECONDS}",
        f"--dataset.fps={RATE_HZ}",
        "--dataset.push_to_hub=false",
        "--play_sounds=false",
        *words,
    ]
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
        **environment,
    }
    environment.pop("DISPLAY", None)  # with a display LeRobot would listen to the whole desktop's keys
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment
    ) as process:
        os.close(theirs)
        said = _hold_a_key(process, ours)
    os.close(ours)
    assert process.returncode == 0, said[-3000:]
    return LeRobotDataset("lab/test", root=folder)


def _hold_a_key(process: subprocess.Popen[bytes], terminal: int) -> str:
    """Presses it 30 times a second while the episode is recorded; what the command said."""
    said = ""
    deadline = time.monotonic() + 150
    os.set_blocking(terminal, False)  # a command that reads no keys must not make us wait
    try:
        while True:
            assert time.monotonic() < deadline, f"it hangs; it said: {said[-3000:]}"
            try:
                if select.select([terminal], [], [], 1 / 30)[0]:
                    said += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # it has closed the terminal
                break
            # To the very end: a reader from which the other took the key waits for the next one.
            if "Recording episode 0" in said:
                with contextlib.suppress(OSError):
                    os.write(terminal, KEY)
        process.wait(60)
    finally:
        process.kill()
    return said


def check(dataset: LeRobotDataset, robot: str, height: int) -> None:
    """What is in it: our names, our cameras, the key's motion."""
    assert dataset.meta.robot_type == robot
    assert dataset.meta.total_episodes == 1
    assert dataset.features["action"]["names"] == list(ACTION_NAMES)
    assert dataset.features["observation.state"]["names"] == list(STATE_NAMES)
    frame = dataset[0]
    assert frame["task"] == TASK
    assert frame["observation.images.table"].shape[:2] == (3, height)
    assert frame["observation.images.wrist"].shape[:2] == (3, height)
    table = dataset.hf_dataset.with_format("numpy")
    turns = np.stack(table["action"])[:, ACTION_NAMES.index("tool.wz")]
    assert turns.max() > 0.05
    turned = np.stack(table["observation.state"])[:, STATE_NAMES.index("tool.qx")]
    assert np.ptp(turned) > 1e-3


def test_it_records_the_simulated_arm(tmp_path: Path) -> None:
    dataset = record(
        tmp_path / "data",
        {},
        "--robot.type=simulated_gen3",
        f"--robot.rate_hz={RATE_HZ}",
        "--robot.image_size=64",
    )
    check(dataset, "simulated_gen3", 64)


def test_it_records_a_kinova(tmp_path: Path) -> None:
    camera = "{type: simulated_camera, width: 96, height: 64, fps: 30}"
    with SimulatedArm() as arm:
        dataset = record(
            tmp_path / "data",
            arm.client_environment(),
            "--robot.type=kinova_gen3",
            f"--robot.ip={arm.address}",
            f"--robot.tcp_port={arm.tcp_port}",
            f"--robot.udp_port={arm.udp_port}",
            f"--robot.cameras={{table: {camera}, wrist: {camera}}}",
            before=documented(),
        )
        assert not arm.is_moving()
        assert not arm.violations
        assert any(command.name == "SendTwistCommand" for command in arm.log)
    check(dataset, "kinova_gen3", 64)


def test_a_wrong_setting_is_refused_before_anything_moves(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="rate_hz is 1000"):
        record(tmp_path / "data", {}, "--robot.type=simulated_gen3", "--robot.rate_hz=1000")
    assert not (tmp_path / "data").exists()

"""Two processes of Ray Train train one policy, one is killed, and it comes out as from one process."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.resume_state import Keeper
from tests.workflows.killed_policy_training import CONFIG, INDICATORS, OPTIONS, TABLE
from tests.workflows.refused_training import refused_by_one
from tests.workflows.test_value_training import training_processes
from workflows.local_ray import local_ray
from workflows.policy_training import train_policy
from workflows.policy_training_group_start import train_policy_together
from workflows.ray_training import train_together

# As in one process up to the order of sums, since nothing is drawn but batches and dropped indicators.
STILL = {**OPTIONS, "action_head": "regression", "random_shift": 0, "color_jitter": 0.0}
ALONE = replace(CONFIG, steps=80, batch_size=9, policy_options=STILL, learning_rate=1e-4)
KILLED_AT = 20


def kept_step(resume: Path) -> int:
    """The step of the state in that safetensors file, also while it is replaced; -1: there is none."""
    try:
        with resume.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    except FileNotFoundError:
        return -1
    return int(json.loads(header["__metadata__"]["recap"])["facts"]["step"])


def kill_one_worker(resume: Path, ended: threading.Event, kept: list[int]) -> None:
    """Kills a training process at some step; ``kept`` gets that step and those of all states after it."""
    deadline = time.monotonic() + 300
    while kept_step(resume) < KILLED_AT and time.monotonic() < deadline:
        time.sleep(0.002)
    workers = training_processes()
    kept.append(kept_step(resume))
    workers[-1].kill()
    while not ended.wait(0.005):
        kept.append(kept_step(resume))


def test_two_processes_one_of_them_killed_give_the_policy_of_one(tmp_path: Path) -> None:
    alone = train_policy(TABLE, INDICATORS, ALONE, None, tmp_path / "alone")
    resume, out = tmp_path / "resume.safetensors", tmp_path / "together"
    kept: list[int] = []
    told: list[tuple[int, int, float]] = []
    ended = threading.Event()
    killer = threading.Thread(target=kill_one_worker, args=(resume, ended, kept), daemon=True)
    with local_ray(2):
        killer.start()
        together = train_policy_together(
            TABLE,
            INDICATORS,
            replace(ALONE, workers=2),
            None,
            out,
            lambda *said: told.append(said),
            resume=resume,
            keeper=Keeper(0.0, math.inf),
        )
        ended.set()
        killer.join()
        # The machine's two cores are known to Ray now.
        with pytest.raises(InputError, match="3 workers need as many cores, and there are 2: use fewer"):
            train_policy_together(TABLE, INDICATORS, replace(ALONE, workers=3), None, tmp_path / "no")
        with pytest.raises(InputError, match=r"^the second process alone found something wrong$"):
            train_together(
                refused_by_one, (2,), workers=2, device="cpu", out=tmp_path / "refused", what="a policy"
            )
    assert len(kept) > 1 and min(kept) == kept[0], "it went on, and did not begin anew"
    assert resume.is_file(), "who publishes the result removes it"
    assert told[-1] == (ALONE.steps, ALONE.steps, together.final_loss)
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "alone").iterdir()}
    assert json.loads((out / "training.json").read_text())["config"]["workers"] == 2
    assert [step for step, _ in together.loss_curve] == [step for step, _ in alone.loss_curve]
    losses(together.loss_curve, alone.loss_curve)
    load_checkpoint(out)
    found, expected = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "alone"))
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, atol=1e-3, err_msg=name)


def losses(found: Sequence[tuple[int, float]], expected: Sequence[tuple[int, float]]) -> None:
    """Requires the same losses, up to what the order of sums makes of them."""
    np.testing.assert_allclose([loss for _, loss in found], [loss for _, loss in expected], rtol=1e-3)


def test_images_that_are_in_no_file_are_mapped_by_all(tmp_path: Path) -> None:
    mapped = TABLE.in_files(tmp_path / "frames")
    assert len(list((tmp_path / "frames").iterdir())) == len(TABLE.episode_ids)
    rows = np.array([0, 17, 39, 5])
    assert np.array_equal(mapped.images(rows), TABLE.images(rows))
    assert mapped.in_files(tmp_path / "again") is mapped and not (tmp_path / "again").exists()
    again = FrameTable.__new__(FrameTable)
    again.__setstate__(mapped.__getstate__())
    assert np.array_equal(again.images(rows), TABLE.images(rows))

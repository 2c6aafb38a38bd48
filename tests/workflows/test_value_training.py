"""Several processes train one value model through Ray Train, one is lost, and it comes out the same."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.errors import InputError
from tests.value_model.synthetic import BLUE, RED, SMALL, picture_table
from value_model.checkpoint import load_network, read_record
from value_model.scoring import predict
from value_model.training import FoldResult
from value_model.training_curves import CURVES_NAME, read_curves
from workflows.local_ray import local_ray
from workflows.step_resume import resume_path
from workflows.value_steps import step_key
from workflows.value_training import train_member

# Without dropout nothing but the order of sums differs. Batches so large that there is time for a kill, of
# an odd number, so that the shares differ. Two tasks, since one gives the task's features no gradient.
CONFIG = replace(
    SMALL,
    network=replace(SMALL.network, dropout=0.0),
    steps=40,
    batch_size=501,
    evaluate_every=5,
    patience=40,
    learning_rate=1e-3,
)


def kill_one_worker(resume: Path, killed: list[int]) -> None:
    """Kills one of the training processes as soon as there is something to go on from."""
    deadline = time.monotonic() + 240
    while not (workers := training_processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    while time.monotonic() < deadline:
        if resume.is_file():
            killed.append(workers[-1].pid)
            workers[-1].kill()
            return
        time.sleep(0.005)


def training_processes() -> list[psutil.Process]:
    """The workers of Ray Train among this process's descendants."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_two_processes_one_of_them_lost_give_the_model_of_one(tmp_path: Path) -> None:
    table, outcomes = picture_table(16, np.random.default_rng(0), honest=True, tasks=(RED, BLUE))
    alone = train_member(table, outcomes, CONFIG, 0, 0, tmp_path / "alone")
    resume = tmp_path / "resume"
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_worker, args=(resume, killed), daemon=True)
    told: list[int] = []
    with local_ray(2):
        killer.start()
        together = train_member(
            table,
            outcomes,
            CONFIG,
            0,
            0,
            tmp_path / "together",
            lambda done, _: told.append(done),
            resume=resume,
            workers=2,
        )
    assert killed and resume.is_file(), "who publishes the result removes it"
    assert told[-1] == CONFIG.steps
    assert together.steps_done == alone.steps_done == CONFIG.steps
    assert read_record(together.path).seen == read_record(alone.path).seen
    assert {p.name for p in together.path.iterdir()} == {p.name for p in alone.path.iterdir()}
    # Sums in another order differ by 1e-7, and Adam passes relative errors of the smallest gradients on, so
    # that the models drift apart: measured, by 2e-4 in the losses and 1e-4 in the values. With statistics of
    # each process's own share alone it was 2e-3 and 4e-3.
    (told_alone, losses_alone), (told_together, losses) = (losses_of(alone), losses_of(together))
    assert told_together == told_alone
    np.testing.assert_allclose(losses, losses_alone, atol=1e-3)
    values_alone, values = (
        predict(load_network(made.path, read_record(made.path)), table, np.arange(len(table)))
        for made in (alone, together)
    )
    assert values_alone.std() > 2e-3
    np.testing.assert_allclose(values, values_alone, atol=1e-3)


def losses_of(result: FoldResult) -> tuple[list[tuple[str, int]], list[float]]:
    """Names and steps of a training's losses, and the losses."""
    points = [p for p in read_curves(result.path / CURVES_NAME) if p[0].startswith("loss")]
    return [(name, step) for name, step, _ in points], [value for _, _, value in points]


def test_more_processes_than_frames_in_a_batch_are_refused(tmp_path: Path) -> None:
    from value_model.training import train_fold
    from value_model.training_group import Group

    table, outcomes = picture_table(8, np.random.default_rng(0), honest=True)
    group = Group()
    group.size = 3
    with pytest.raises(InputError, match="too small for 3 processes"):
        train_fold(table, outcomes, replace(SMALL, batch_size=2), 0, 0, tmp_path, group=group)


def test_the_resume_file_of_a_step_is_named_by_its_key_and_outlives_its_folder(tmp_path: Path) -> None:
    aside = tmp_path / "steps" / "train_value" / ".0123abcd.9f8e.partial"
    final = tmp_path / "steps" / "train_value" / "0123abcd"
    found, same = (resume_path(out.parent.parent, step_key(out)) for out in (aside, final))
    assert found == same == tmp_path / "steps" / ".resume" / "0123abcd.safetensors"

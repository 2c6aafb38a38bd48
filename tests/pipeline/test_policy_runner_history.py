"""The runner with policies of several observations: ``act`` and ``plan`` see what training showed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.policy.runner import PolicyRunner
from tests.pipeline.remembering import KINDS, save_remembering
from tests.pipeline.test_policy_runner import TASK, observation


@pytest.fixture(scope="module", params=KINDS)
def remembering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that looks at three observations and executes four actions of a chunk."""
    return save_remembering(request.param, tmp_path_factory.mktemp("remembering"))


def test_a_plan_sees_the_frames_that_act_sees(remembering: Path) -> None:
    runner = PolicyRunner(remembering)
    assert runner.observed_steps == 3
    frames = [observation(step) for step in range(8)]
    runner.reset(TASK, 0)
    acted = np.stack([runner.act(frame) for frame in frames])
    for now in (0, 4):
        runner.reset(TASK, 0)
        for frame in frames[:now]:
            runner.act(frame)  # so that as many random numbers are drawn
        plan = runner.plan(frames[now], frames[:now])
        np.testing.assert_allclose(plan[:4], acted[now : now + 4], atol=1e-5)
    chunks = []
    for before in ([], frames[:1], frames[1:4], frames[2:4]):
        runner.reset(TASK, 0)
        chunks.append(runner.plan(frames[4], before))
    assert np.array_equal(chunks[2], chunks[3]), "no more than three frames are seen"
    assert not np.allclose(chunks[0], chunks[1], atol=1e-5)
    assert not np.allclose(chunks[1], chunks[2], atol=1e-5)
    with pytest.raises(InputError, match="looks at the last 3 control steps") as caught:
        runner.plan(frames[4])
    assert "\n" not in str(caught.value)


def test_a_dropped_plan_leaves_what_was_seen(remembering: Path) -> None:
    runner = PolicyRunner(remembering)
    frames = [observation(step) for step in range(4)]
    runner.reset(TASK, 0)
    for frame in frames[:3]:
        runner.act(frame)
    runner.drop_plan()
    anew = runner.act(frames[3])
    for before, same in ((frames[:3], True), ([], False)):
        runner.reset(TASK, 0)
        runner.plan(frames[0], [])  # draws as many random numbers as the chunk that was dropped
        assert np.allclose(anew, runner.plan(frames[3], before)[0], atol=1e-5) is same

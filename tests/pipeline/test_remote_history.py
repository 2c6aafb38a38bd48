"""A served policy of several observations is shown what the local one is shown, and plans the same."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.policy_thread import Planner, RunAhead
from pipeline.episode import STATE_NAMES
from pipeline.errors import Failure, InputError
from pipeline.policy.channel import Channel, parse_url
from pipeline.policy.remote import RemotePolicy
from pipeline.policy.runner import PolicyRunner
from pipeline.policy.served_runner import ServedRunner
from tests.pipeline.policy_serving import TASK, Weighing, serving
from tests.pipeline.remembering import KINDS, save_remembering
from tests.pipeline.test_policy_runner import observation
from tests.pipeline.test_policy_wire import connected

BY_A_PERSON = {4, 5, 9}
_SLOW_HZ = (
    0.01  # so that no busy machine is slow for it: when a plan is asked for does not depend on the clock
)


@pytest.fixture(scope="module", params=KINDS)
def remembering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that looks at three observations and executes four actions of a chunk."""
    return save_remembering(request.param, tmp_path_factory.mktemp("served"))


def driven(planner: Planner, frames: Sequence[dict[str, Any]], episodes: int = 2) -> list[list[float] | None]:
    """What the loop gets of it for ``frames``, as the collection loop asks and drops plans."""
    given: list[list[float] | None] = []

    def wait_for_plan() -> None:
        deadline = time.monotonic() + 60
        while policy._asked and time.monotonic() < deadline:
            time.sleep(0.001)

    with RunAhead(planner, _SLOW_HZ) as policy:
        for episode in range(episodes):
            policy.reset(TASK, episode)
            policy.is_ready(frames[0])
            wait_for_plan()
            person_drove = False
            for number, frame in enumerate(frames):
                person = number in BY_A_PERSON
                if person_drove and not person:
                    policy.drop_plan()
                action = policy.act(frame)
                if person and not person_drove:
                    policy.drop_plan()
                person_drove = person
                given.append(None if action is None else action.tolist())
                wait_for_plan()
    return given


def test_a_served_policy_with_a_memory_drives_as_the_local_one(remembering: Path) -> None:
    frames = [observation(step) for step in range(12)]
    local = driven(PolicyRunner(remembering), frames)
    with serving(ServedRunner(remembering, "cpu")) as server, RemotePolicy(server.url) as remote:
        assert remote.observed_steps > 1
        assert driven(remote, frames) == local
        assert sum(action is None for action in local) <= 6, "only after the plan was dropped"
        with pytest.raises(InputError, match="control steps"):
            remote.plan(frames[0])
        assert remote.plan(frames[0], []).shape == remote.plan(frames[4], frames[:4]).shape
    others = [*frames[:2], observation(100), *frames[3:6]]
    assert driven(PolicyRunner(remembering), others, 1)[:6] != local[:6]


def test_what_the_policy_does_not_look_at_is_not_sent_and_not_taken() -> None:
    frame = observation(1)
    with serving(Weighing()) as server:
        with RemotePolicy(server.url) as remote:
            remote.reset(TASK)
            assert remote.observed_steps == 1
            remote.plan(frame, [frame, frame])  # its plan() would see to it that none came
        channel = connected(server.url)
        channel.send({"do": "reset", "task": TASK})
        channel.receive()
        for before, words in (
            ([{}], "1 observations before the present one, the policy looks at 0"),
            ([1], "no list of observations"),
            ({}, "no list of observations"),
        ):
            channel.send({"do": "plan", "numbers": {}, "images": {}, "before": before})
            assert words in channel.receive()["error"]
        channel.release()


def test_a_server_of_an_earlier_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.policy.server.PROTOCOL_VERSION", 1)
    with (
        serving(Weighing()) as server,
        pytest.raises(InputError, match=r"client speaks version 2 .*the server version 1: install the same"),
    ):
        RemotePolicy(server.url).connect()


def test_a_client_of_an_earlier_version_is_named() -> None:
    with serving(Weighing()) as server:
        channel = Channel(socket.create_connection(parse_url(server.url), 10), 10)
        channel.prove(None, first=False)
        channel.send({"do": "hello", "protocol": 1})
        assert (
            "the client speaks version 1 of the protocol, the server version 2" in channel.receive()["error"]
        )
        channel.release()


def test_a_plan_over_the_wire_is_the_local_one_bit_for_bit(remembering: Path) -> None:
    frames = [observation(step) for step in range(4)]
    local = PolicyRunner(remembering)
    with serving(ServedRunner(remembering, "cpu")) as server, RemotePolicy(server.url) as remote:
        for before in ([], frames[:1], frames[:3]):
            local.reset(TASK, 5)
            remote.reset(TASK, 5)
            assert np.array_equal(remote.plan(frames[3], before), local.plan(frames[3], before))


def test_a_history_that_no_message_could_carry_is_refused_before_the_arm_moves() -> None:
    """The first plans have little before them: it would be noticed only in mid-attempt."""

    class Remembering(Weighing):
        observed_steps = 8

    features: dict[str, Any] = dict.fromkeys(STATE_NAMES, float)
    with serving(Remembering(), handover_s=5.0) as server:
        with RemotePolicy(server.url) as remote:
            remote.check_robot({**features, "table": (720, 1280, 3), "wrist": (48, 64, 3)})
            with pytest.raises(InputError, match=r"8 steps' images .* 95 MiB .* at most 64 MiB") as caught:
                remote.check_robot({**features, "table": (1080, 1920, 3), "wrist": (1080, 1920, 3)})
            assert "\n" not in str(caught.value)
        with RemotePolicy(server.url, jpeg_quality=90) as remote:
            remote.check_robot({**features, "table": (1080, 1920, 3), "wrist": (1080, 1920, 3)})


@pytest.mark.parametrize("name", ["execute_steps", "observed_steps"])
@pytest.mark.parametrize("value", [2**63, -5, 0, True, 1001])
def test_a_server_that_says_impossible_things_of_itself_is_refused(name: str, value: int) -> None:
    policy = Weighing()
    setattr(policy, name, value)
    with serving(policy) as server, pytest.raises(Failure, match="of another version"):
        RemotePolicy(server.url).connect()

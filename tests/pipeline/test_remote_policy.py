"""A policy behind a socket: the same plans as here, and words instead of hangs when something is wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.episode import STATE_NAMES
from pipeline.errors import Failure, InputError
from pipeline.policy.channel import TOKEN_VARIABLE, format_url, is_loopback, parse_url, read_token
from pipeline.policy.remote import RemotePolicy
from pipeline.policy.server import PolicyServer
from tests.pipeline.policy_serving import TASK, Weighing, drives, observation, serving

TOKEN = "a token of some length"


def test_the_plan_is_the_local_one_bit_for_bit() -> None:
    local = Weighing()
    with serving(Weighing()) as server, RemotePolicy(server.url) as remote:
        assert remote.checkpoint_name == "weighing"
        assert remote.cameras == ("table", "wrist")
        assert remote.execute_steps == 3
        for episode, step in [(0, 0), (0, 1), (1, 2)]:
            for policy in (local, remote):
                policy.reset(TASK, episode)
            plan = remote.plan(observation(step))
            assert plan.dtype == np.float32
            assert plan.shape == (5, 7)
            assert np.array_equal(plan, local.plan(observation(step)))
            assert np.array_equal(remote.act(observation(step)), local.act(observation(step)))
            for policy in (local, remote):
                policy.drop_plan()
            assert np.array_equal(remote.act(observation(step)), local.act(observation(step)))


def test_images_go_as_they_are_or_as_jpeg_and_are_resized_by_the_server() -> None:
    policy, local = Weighing(), Weighing()
    with serving(policy) as server:
        with RemotePolicy(server.url) as remote:
            remote.reset(TASK)
            remote.plan(observation(0, 480, 640))
        with RemotePolicy(server.url, jpeg_quality=90) as remote:
            remote.reset(TASK)
            frame = observation(0)
            for camera in ("table", "wrist"):
                frame[camera] = np.full((96, 128, 3), 117, np.uint8)
            local.reset(TASK)
            assert np.allclose(remote.plan(frame), local.plan(frame), atol=1e-3)
    assert policy.shapes == [(480, 640, 3), (96, 128, 3)]


def test_a_robot_that_lacks_something_is_refused_before_it_moves() -> None:
    features: dict[str, Any] = dict.fromkeys(STATE_NAMES, float)
    with serving(Weighing()) as server, RemotePolicy(server.url) as remote:
        remote.check_robot({**features, "table": (48, 64, 3), "wrist": (48, 64, 3)})
        with pytest.raises(InputError, match=r"weighing .* needs camera 'wrist', the robot has table"):
            remote.check_robot({**features, "table": (48, 64, 3)})
        with pytest.raises(InputError, match=r"gives 'tool\.vx'"):
            remote.check_robot(
                {**features, "table": (48, 64, 3), "wrist": (48, 64, 3)}, {"joint_1.pos": float}
            )
        del features["tool.qx"]
        with pytest.raises(InputError, match=r"needs 'tool\.qx'"):
            remote.check_robot({**features, "table": (48, 64, 3), "wrist": (48, 64, 3)})
        remote.reset(TASK)
        with pytest.raises(InputError, match="needs camera 'table', which the observation lacks"):
            remote.plan(dict.fromkeys(STATE_NAMES, 0.0))
        assert remote.plan(observation()).shape == (5, 7)  # nothing was sent, nothing is lost


@pytest.mark.parametrize("token", [None, "another token, also long", TOKEN + " "])
def test_a_wrong_token_is_refused(token: str | None) -> None:
    said: list[str] = []
    with serving(Weighing(), token=TOKEN, say=said.append) as server:
        with pytest.raises(InputError, match="refused the token"):
            RemotePolicy(server.url, token).connect()
        assert drives(server.url, TOKEN)
    assert any("refused" in line for line in said)


def test_a_token_where_the_server_has_none_is_refused() -> None:
    with serving(Weighing()) as server:
        with pytest.raises(InputError, match="refused the token"):
            RemotePolicy(server.url, TOKEN).connect()
        assert drives(server.url)


def test_the_token_never_goes_over_the_wire() -> None:
    """A listener in the middle sees the whole conversation, and neither the token nor its bytes."""
    seen = bytearray()
    with serving(Weighing(), token=TOKEN) as server, socket.create_server(("127.0.0.1", 0)) as middle:

        def relay(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    seen.extend(data)
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        def stand_between() -> None:
            client, _ = middle.accept()
            far = socket.create_connection(parse_url(server.url))
            back = threading.Thread(target=relay, args=(far, client), daemon=True)
            back.start()
            relay(client, far)
            back.join(10)
            client.close()
            far.close()

        thread = threading.Thread(target=stand_between, daemon=True)
        thread.start()
        assert drives(format_url("127.0.0.1", middle.getsockname()[1]), TOKEN)
        thread.join(10)
    assert TASK.encode() in seen
    assert TOKEN.encode() not in seen


def test_another_address_needs_a_token() -> None:
    for host in ("0.0.0.0", "", "::"):  # all of them: every address of this machine
        with pytest.raises(InputError, match=f"needs a token.*{TOKEN_VARIABLE}"):
            PolicyServer(Weighing(), host)
        PolicyServer(Weighing(), host, token=TOKEN)
    assert is_loopback("localhost")
    assert is_loopback("::1")
    with pytest.raises(InputError, match="unknown host"):
        PolicyServer(Weighing(), "no.such.host.invalid")
    with pytest.raises(InputError, match="port 70000"):
        PolicyServer(Weighing(), port=70000)
    with serving(Weighing(), host="0.0.0.0", token=TOKEN) as server:
        assert drives(server.url.replace("0.0.0.0", "127.0.0.1"), TOKEN)


def test_an_occupied_port_is_named() -> None:
    with serving(Weighing()) as server, pytest.raises(InputError, match="cannot listen on tcp://"):
        PolicyServer(Weighing(), port=parse_url(server.url)[1]).__enter__()


def test_tokens_come_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token() is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token() == TOKEN
    file = tmp_path / "token"
    with pytest.raises(InputError, match="cannot be read"):
        read_token(file)
    file.write_text("short\n")
    with pytest.raises(InputError, match="5 characters, it needs 16"):
        read_token(file)
    file.write_text(f"{TOKEN} in a file\n")
    assert read_token(file) == f"{TOKEN} in a file"


@pytest.mark.parametrize(
    "url", ["", "localhost:1", "http://a:1", "tcp://a", "tcp://:5", "tcp://a:x", "tcp://a:1/b"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="tcp://host:port"):
        RemotePolicy(url)


def test_addresses_that_are_some() -> None:
    assert parse_url("tcp://gpu:8642") == ("gpu", 8642)
    assert parse_url(format_url("::1", 5)) == ("::1", 5)


def test_errors_of_the_policy_arrive_as_they_were_and_the_connection_lives() -> None:
    with serving(Weighing()) as server, RemotePolicy(server.url) as remote:
        with pytest.raises(InputError, match="no such task"):
            remote.reset("impossible")
        with pytest.raises(InputError, match="no task yet"):
            remote.plan(observation())
        remote.reset(TASK)
        with pytest.raises(Failure, match="the policy failed: RuntimeError: out of memory"):
            remote.plan(observation() | {"gripper.pos": 0.75})
        assert remote.plan(observation()).shape == (5, 7)


def test_an_earlier_clients_task_does_not_drive_the_next_ones_arm() -> None:
    with serving(Weighing(), handover_s=5.0) as server:
        assert drives(server.url)
        with RemotePolicy(server.url) as remote, pytest.raises(InputError, match="no task yet"):
            remote.plan(observation())


def test_a_second_client_is_refused_until_the_first_leaves() -> None:
    with serving(Weighing()) as server:
        with RemotePolicy(server.url) as first:
            with pytest.raises(Failure, match=r"another client, 127\.0\.0\.1, is using it"):
                RemotePolicy(server.url).connect()
            first.reset(TASK)
            assert first.plan(observation()).shape == (5, 7)
        deadline = time.monotonic() + 20
        while True:  # the server notices that the first has left
            try:
                assert drives(server.url)
                break
            except Failure:
                assert time.monotonic() < deadline


def test_a_slow_answer_is_one_failure_and_the_next_episode_starts_anew() -> None:
    policy = Weighing()
    with serving(policy, handover_s=20.0) as server:
        remote = RemotePolicy(server.url, reply_s=0.2)
        remote.reset(TASK)
        policy.hold.clear()
        with pytest.raises(Failure, match=r"no answer within 0\.2 s"):
            remote.plan(observation())
        with pytest.raises(Failure, match="not connected"):
            remote.plan(observation())
        policy.hold.set()
        remote = RemotePolicy(server.url)
        remote.reset(TASK)
        assert remote.plan(observation()).shape == (5, 7)
        remote.close()


def test_closing_ends_a_wait_in_another_thread() -> None:
    policy = Weighing()
    with serving(policy) as server:
        remote = RemotePolicy(server.url, reply_s=60)
        remote.reset(TASK)
        policy.hold.clear()
        failures: list[Exception] = []

        def plan() -> None:
            try:
                remote.plan(observation())
            except Failure as failure:
                failures.append(failure)

        thread = threading.Thread(target=plan, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while remote._turn.acquire(blocking=False):  # until it holds its turn
            remote._turn.release()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        remote.close()
        thread.join(10)
        assert not thread.is_alive()
        assert len(failures) == 1
        policy.hold.set()


def test_a_server_that_goes_is_one_failure_and_reset_finds_its_successor() -> None:
    with serving(Weighing()) as server:
        port = parse_url(server.url)[1]
        remote = RemotePolicy(server.url)
        remote.reset(TASK)
        assert remote.plan(observation()).shape == (5, 7)
    with pytest.raises(Failure, match="was lost"):
        remote.plan(observation())
    with pytest.raises(Failure, match="not connected: reset"):
        remote.plan(observation())
    with pytest.raises(Failure, match="no policy server at"):
        remote.reset(TASK)
    with serving(Weighing(), port=port):
        remote.reset(TASK)
        assert remote.plan(observation()).shape == (5, 7)
    with serving(Weighing(), port=port):
        remote.reset(TASK)  # over the dead connection first
        assert remote.plan(observation()).shape == (5, 7)
        remote.close()


def test_a_server_that_was_restarted_with_another_policy_is_refused() -> None:
    with serving(Weighing()) as server:
        port = parse_url(server.url)[1]
        remote = RemotePolicy(server.url)
        remote.reset(TASK)
    other = Weighing()
    other.checkpoint_name = "other"
    with (
        serving(other, port=port),
        pytest.raises(InputError, match="now serves other, it served weighing before"),
    ):
        remote.reset(TASK)


def test_a_server_that_never_answers_the_handshake_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = format_url(*silent.getsockname()[:2])
        with pytest.raises(Failure, match="no policy server, or hangs"):
            RemotePolicy(url, connect_s=0.2).connect()

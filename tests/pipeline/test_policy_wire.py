"""Nothing that is sent to a policy server, garbage included, ends it or goes unanswered."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types of its own
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.episode import POLICY_STATE_NAMES
from pipeline.policy.channel import Channel, Disconnected, parse_url
from pipeline.policy.server import PolicyServer
from pipeline.policy.wire import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    BadMessage,
    actions_from,
    actions_message,
    before_from,
    observation_from,
    observation_message,
    pack,
    unpack,
)
from tests.pipeline.policy_serving import TASK, Weighing, drives, observation, serving


def connected(url: str, token: str | None = None) -> Channel:
    """A client that has shaken hands and introduced itself, and may now say anything."""
    channel = Channel(socket.create_connection(parse_url(url), 10), 10)
    channel.prove(token, first=False)
    channel.send({"do": "hello", "protocol": PROTOCOL_VERSION})
    assert channel.receive()["checkpoint"] == "weighing"
    return channel


def send_raw(channel: Channel, data: bytes) -> None:
    channel._connection.send_bytes(data)


@pytest.fixture(scope="module")
def shared() -> Iterator[PolicyServer]:
    with serving(Weighing(), handover_s=5.0, stall_s=2.0) as server:
        yield server


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "do": st.sampled_from(["hello", "reset", "plan", "act", "exit"]) | _values,
        "task": _values,
        "seed": _values,
        "numbers": st.dictionaries(
            st.sampled_from(POLICY_STATE_NAMES) | st.text(max_size=8), _values, max_size=3
        )
        | _values,
        "images": st.dictionaries(
            st.sampled_from(["table", "wrist"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "height": _values,
                    "width": st.integers(-1, 9),
                    "rgb": st.binary(max_size=30),
                    "jpeg": _values,
                },
            ),
            max_size=2,
        )
        | _values,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200) | _requests, min_size=1, max_size=5))
def test_whatever_a_client_sends_is_answered_in_words(shared: PolicyServer, messages: list[Any]) -> None:
    channel = connected(shared.url)
    try:
        for message in messages:
            send_raw(channel, message if isinstance(message, bytes) else msgpack.packb(message))
            assert channel.wait(20)
            reply = channel.receive()
            assert "done" in reply or (isinstance(reply["error"], str) and "\n" not in reply["error"])
        channel.send({"do": "reset", "task": TASK, "seed": None})
        assert channel.receive() == {"done": True}
    finally:
        channel.release()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_whatever_a_stranger_sends_does_not_end_the_server(shared: PolicyServer, data: bytes) -> None:
    with socket.create_connection(parse_url(shared.url), 10) as stranger, contextlib.suppress(OSError):
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass
    assert drives(shared.url)


@given(_requests | _values)
def test_unpacking_is_strict(value: Any) -> None:
    data = msgpack.packb(value) if not isinstance(value, int) or -(2**63) <= value < 2**64 else b""
    try:
        message = unpack(data)
    except BadMessage:
        return
    for read in (lambda one: observation_from(one, ["table", "wrist"]), actions_from):
        with contextlib.suppress(BadMessage):
            read(message)


@given(st.binary(max_size=400))
def test_no_bytes_unpack_to_anything_but_a_message(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        assert isinstance(unpack(data), dict)


def test_a_header_that_promises_gigapixels_is_not_decoded() -> None:
    message = observation_message(observation(), ["tool.x"], ["table"], 90)
    image = message["images"]["table"]
    start = image["jpeg"].index(b"\xff\xc0") + 5  # the frame header: height, then width
    image["jpeg"] = image["jpeg"][:start] + struct.pack(">HH", 65000, 65000) + image["jpeg"][start + 4 :]
    with pytest.raises(BadMessage, match="camera 'table'"):
        observation_from(message, ["table"])


def test_only_what_the_policy_looks_at_is_decoded_and_not_more_than_is_bounded() -> None:
    """A flat JPEG of 16 megapixels has some 60 kB, and takes 48 MiB as an image."""
    message = observation_message(observation(), [], ["table"], 90)
    claimed = {"height": 4096, "width": 4096, "jpeg": b"nobody looks at it"}
    message["images"] |= {f"other {i}": claimed for i in range(9)}
    assert observation_from(message, ["table"])["table"].shape == (48, 64, 3)
    assert list(observation_from(message, ["table", "absent"])) == ["table"]
    four = {"numbers": {}, "images": {"table": claimed, "wrist": claimed}}
    with pytest.raises(BadMessage, match="neither 'rgb' nor a whole 'jpeg'"):
        before_from(four | {"before": [four]}, 2, ["table", "wrist"])
    with pytest.raises(BadMessage, match="images of 100663296 pixels together"):
        before_from(four | {"before": [four, four]}, 2, ["table", "wrist"])
    with pytest.raises(BadMessage, match="images of 83886080 pixels together"):
        observation_from({"numbers": {}, "images": message["images"]}, [f"other {i}" for i in range(5)])


def test_actions_that_are_none_are_refused() -> None:
    good = np.zeros((3, 7), np.float32)
    assert np.array_equal(actions_from(unpack(pack(actions_message(good)))), good)
    for bad in ({"steps": 2, "actions": good.tobytes()}, {"steps": 0, "actions": b""}, {}):
        with pytest.raises(BadMessage):
            actions_from(bad)
    with pytest.raises(BadMessage, match="not finite"):
        actions_from(actions_message(good + np.nan))


def test_a_message_that_is_too_large_is_refused_unread(shared: PolicyServer) -> None:
    with pytest.raises(BadMessage, match="64 MiB"):
        pack({"x": bytes(MAX_MESSAGE_BYTES)})
    channel = connected(shared.url)
    try:
        os.write(channel._connection.fileno(), struct.pack("!i", MAX_MESSAGE_BYTES + 1) + bytes(100))
        assert "more than 64 MiB" in channel.receive()["error"]
        with pytest.raises(Disconnected):
            channel.receive()
    finally:
        channel.release()
    assert drives(shared.url)


def test_another_version_is_named_on_both_sides(shared: PolicyServer) -> None:
    channel = Channel(socket.create_connection(parse_url(shared.url), 10), 10)
    channel.prove(None, first=False)
    channel.send({"do": "hello", "protocol": PROTOCOL_VERSION + 1})
    error = channel.receive()["error"]
    assert f"version {PROTOCOL_VERSION + 1}" in error
    assert f"version {PROTOCOL_VERSION}:" in error
    channel.release()


def test_a_stranger_who_says_nothing_is_dropped() -> None:
    with serving(Weighing(), stall_s=0.3) as server:
        with socket.create_connection(parse_url(server.url), 10) as stranger:
            stranger.settimeout(20)
            while stranger.recv(4096):  # the challenge, then the end
                pass
        assert drives(server.url)

"""The stand-in for ``kortex_api`` has the habits that are known of the vendor's client, and the arm moves.

The client runs in this process here, over real sockets; a driver's tests run it in a process of its own.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kortex_stand_in.in_process_client import Client, twist, within
from tests.kortex_stand_in.kortex_api.Exceptions.KClientException import KClientException
from tests.kortex_stand_in.kortex_api.Exceptions.KServerException import KServerException
from tests.kortex_stand_in.kortex_api.RouterClient import RouterClient, RouterClientSendOptions
from tests.kortex_stand_in.kortex_api.stand_in.messages import message_class, names_of
from tests.kortex_stand_in.kortex_api.stand_in.violations import VIOLATIONS_VARIABLE, ConcurrentCallError
from tests.kortex_stand_in.simulated_arm import SimulatedArm

ERRORS = names_of("")


@pytest.fixture
def arm() -> Iterator[SimulatedArm]:
    with SimulatedArm() as arm:
        yield arm


@pytest.fixture
def client(arm: SimulatedArm) -> Iterator[Client]:
    client = Client(arm)
    yield client
    client.stop_keep_alive()
    client.transport.disconnect()


def refused(call: Any, *arguments: Any) -> int:
    with pytest.raises(KServerException) as caught:
        call(*arguments)
    return caught.value.get_error_sub_code()


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_generated_modules_need_the_pure_python_protobuf(arm: SimulatedArm) -> None:
    modules = "Base_pb2, BaseCyclic_pb2, Session_pb2, Common_pb2, ActuatorConfig_pb2"
    code = (
        f"from kortex_api.autogen.messages import {modules}\n"
        "print(Base_pb2.SINGLE_LEVEL_SERVOING, Base_pb2.GRIPPER_POSITION, Base_pb2.ACTION_END)"
    )
    environment = arm.client_environment()
    done = run_python(code, **environment)
    assert done.stdout == "2 3 1\n", done.stderr
    failed = run_python(code, **environment | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "upb"})
    assert "TypeError: Descriptors cannot be created directly" in failed.stderr


def test_messages_behave_as_protobuf_does() -> None:
    command = message_class("Base", "TwistCommand")()
    command.twist.linear_x = 0.5
    copy = message_class("Base", "TwistCommand")()
    copy.CopyFrom(command)
    assert copy == command and copy.twist.linear_x == 0.5
    with pytest.raises(AttributeError):
        command.speed = 1.0
    with pytest.raises(TypeError):
        command.twist.linear_x = "fast"
    angles = message_class("Base", "JointAngles")()
    angles.joint_angles.extend([message_class("Base", "JointAngle")(joint_identifier=3, value=1.0)])
    angles.joint_angles.add().joint_identifier = 4
    assert [angle.joint_identifier for angle in angles.joint_angles] == [3, 4]


def test_call_blocks_until_its_time_out_and_late_replies_are_errors(
    arm: SimulatedArm, client: Client
) -> None:
    assert RouterClientSendOptions().timeout_ms == 10000
    arm.delay_replies(0.3, "Stop")
    started = time.monotonic()
    with pytest.raises(concurrent.futures.TimeoutError):
        client.base.Stop(options=within(100))
    assert time.monotonic() - started > 0.09
    assert arm.wait_for(lambda: bool(client.late_errors))
    error = client.late_errors[0]
    assert isinstance(error, KClientException) and not hasattr(error, "get_error_code")
    assert error.error.error_sub_code == ERRORS["UNREGISTERED_FRAME_RECEIVED"]
    client.base.Stop()


def test_concurrent_calls_on_one_transport_are_found_out(
    arm: SimulatedArm, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VIOLATIONS_VARIABLE, arm.client_environment()[VIOLATIONS_VARIABLE])
    arm.delay_replies(0.5, "Stop")
    first = threading.Thread(target=client.base.Stop)
    first.start()
    assert arm.wait_for(lambda: len(arm.received("Stop")) == 1)
    with pytest.raises(ConcurrentCallError):
        client.base.GetArmState()
    first.join()
    assert arm.violations == ["GetArmState called while Stop was under way on the same transport"]


def test_keep_alive_hides_a_hung_loop(arm: SimulatedArm) -> None:
    client = Client(arm, session_ms=1500, link_ms=1200)
    client.base.SendTwistCommand(twist(0.01))
    before = arm.keep_alive_count
    assert arm.wait_for(lambda: arm.keep_alive_count >= before + 11)  # longer than either, of nothing else
    assert arm.twist_now()[0] == pytest.approx(0.01) and arm.is_moving()
    client.session.CloseSession()
    assert arm.wait_until_still() and arm.session_count == 0
    client.transport.disconnect()


@pytest.mark.parametrize("obeys", [True, False])
def test_dead_client_times_out(obeys: bool) -> None:
    with SimulatedArm(obeys_inactivity=obeys) as arm:
        client = Client(arm, session_ms=1200, link_ms=600)
        client.base.SendTwistCommand(twist(0.01))
        assert arm.wait_until_moving()
        client.stop_keep_alive()
        client.transport.disconnect()
        if obeys:
            assert arm.wait_until_still() and arm.session_count == 1
        assert arm.wait_for(lambda: arm.session_count == 0)
        assert arm.is_moving() is not obeys


def test_timed_out_session_is_invalid(arm: SimulatedArm) -> None:
    client = Client(arm, session_ms=200, link_ms=100)
    client.stop_keep_alive()
    assert arm.wait_for(lambda: arm.session_count == 0)
    with pytest.raises(KServerException) as caught:
        client.base.GetArmState()
    assert caught.value.get_error_code() == ERRORS["ERROR_PROTOCOL_SERVER"]
    assert caught.value.get_error_sub_code() == 12 and "INVALID_SESSION" in str(caught.value)
    client.transport.disconnect()


def test_wrong_password_is_refused(client: Client) -> None:
    client.stop_keep_alive()
    assert refused(client.log_in, 1000, 1000, "wrong") == ERRORS["INVALID_PASSWORD"]


def test_udp_serves_feedback_only_in_a_session_of_its_own(arm: SimulatedArm, client: Client) -> None:
    udp = Client(arm, udp=True)
    assert arm.session_count == 2
    assert len(udp.cyclic.RefreshFeedback(options=within(1000)).actuators) == 7
    assert refused(udp.base.Stop) == ERRORS["UNSUPPORTED_SERVICE"]
    udp.router._session = client.router._session
    assert refused(udp.cyclic.RefreshFeedback) == ERRORS["INVALID_SESSION"]
    udp.stop_keep_alive()
    udp.transport.disconnect()


def test_closed_connection_breaks_the_pipe_and_the_keep_alive(arm: SimulatedArm, client: Client) -> None:
    client.base.SendTwistCommand(twist(0.01))
    assert arm.wait_until_moving()
    arm.close_connections()
    assert arm.wait_for(lambda: client.transport.idle_turns > 2)
    with pytest.raises(BrokenPipeError):
        client.base.SendTwistCommand(twist())
    keep_alive = client.session._thread
    assert keep_alive is not None and arm.wait_for(lambda: not keep_alive.is_alive())
    assert arm.is_moving()
    assert client.transport._thread is not None and client.transport._thread.is_alive()  # round and round
    again = Client(arm)
    again.base.Stop()
    assert arm.wait_until_still()
    again.session.CloseSession()
    again.transport.disconnect()


def test_silent_arm_gets_and_says_nothing(arm: SimulatedArm) -> None:
    client = Client(arm, link_ms=1000)
    client.base.SendTwistCommand(twist(0.01))
    assert arm.wait_until_moving()
    arm.go_silent()
    with pytest.raises(TimeoutError):
        client.base.Stop(options=within(100))
    assert arm.is_moving() and not arm.received("Stop")
    assert arm.wait_until_still()  # the arm hears no keep-alive either
    arm.speak_again()
    client.base.Stop()
    client.session.CloseSession()
    client.transport.disconnect()


def test_notifications_belong_to_the_class_not_the_client(arm: SimulatedArm, client: Client) -> None:
    options = message_class("Common", "NotificationOptions")()
    mine: list[Any] = []
    others: list[Any] = []
    other = Client(arm)
    client.base.OnNotificationActionTopic(mine.append, options)
    other.base.OnNotificationActionTopic(others.append, options)
    action = message_class("Base", "Action")()
    action.reach_joint_angles.joint_angles.joint_angles.add(joint_identifier=0, value=1.0)
    client.base.ExecuteAction(action)
    assert arm.wait_for(lambda: len(others) >= 4)  # start and end, of both clients' subscriptions
    assert not mine
    other.session.CloseSession()
    other.transport.disconnect()


def test_the_examples_error_callback_cannot_be_called() -> None:
    with pytest.raises(TypeError):
        RouterClient.basicErrorCallback(KClientException(message_class("", "Error")()))  # type: ignore[call-arg, arg-type]  # the point

"""The stand-in used within the test's own process, on whichever protobuf that has.

Messages come from ``message_class`` here: the modules that the vendor's package has generated refuse to
be imported in such a process, as theirs do.
"""

from __future__ import annotations

from typing import Any

from tests.kortex_stand_in.kortex_api.autogen.client_stubs.BaseClientRpc import BaseClient
from tests.kortex_stand_in.kortex_api.autogen.client_stubs.BaseCyclicClientRpc import BaseCyclicClient
from tests.kortex_stand_in.kortex_api.RouterClient import RouterClient, RouterClientSendOptions
from tests.kortex_stand_in.kortex_api.SessionManager import SessionManager
from tests.kortex_stand_in.kortex_api.stand_in.messages import message_class, names_of
from tests.kortex_stand_in.kortex_api.TCPTransport import TCPTransport
from tests.kortex_stand_in.kortex_api.UDPTransport import UDPTransport
from tests.kortex_stand_in.simulated_arm import SimulatedArm

BASE = names_of("Base")
"""What ``Base_pb2`` has."""
_SessionInfo = message_class("Session", "CreateSessionInfo")


class Client:
    """A program's view of the client: one transport, one session."""

    def __init__(
        self, arm: SimulatedArm, *, udp: bool = False, session_ms: int = 10000, link_ms: int = 2000
    ) -> None:
        """Connects and logs in."""
        self.transport: Any = UDPTransport() if udp else TCPTransport()
        self.late_errors: list[Any] = []
        self.router = RouterClient(self.transport, self.late_errors.append)
        self.transport.connect(arm.address, arm.udp_port if udp else arm.tcp_port)
        self.session = SessionManager(self.router)
        self.log_in(session_ms, link_ms)
        self.base = BaseClient(self.router)
        self.cyclic = BaseCyclicClient(self.router)

    def log_in(self, session_ms: int, link_ms: int, password: str = "admin") -> None:
        """Makes a session with these time-outs."""
        info = _SessionInfo(username="admin", password=password)
        info.session_inactivity_timeout, info.connection_inactivity_timeout = session_ms, link_ms
        self.session.CreateSession(info)

    def stop_keep_alive(self) -> None:
        """As if the process were dead, but for its socket."""
        self.session._closing.set()


def twist(*values: float, frame: str = "BASE") -> Any:
    """A ``TwistCommand``: m/s, deg/s, in ``BASE``, ``TOOL`` or ``MIXED``."""
    command = message_class("Base", "TwistCommand")(
        reference_frame=BASE[f"CARTESIAN_REFERENCE_FRAME_{frame}"]
    )
    names = ("linear_x", "linear_y", "linear_z", "angular_x", "angular_y", "angular_z")
    for name, value in zip(names, values, strict=False):
        setattr(command.twist, name, value)
    return command


def gripper(mode: str, value: float) -> Any:
    """A ``GripperCommand``."""
    command = message_class("Base", "GripperCommand")(mode=BASE[mode])
    command.gripper.finger.add(finger_identifier=1, value=value)
    return command


def within(milliseconds: int) -> RouterClientSendOptions:
    """Options of a call that waits no longer."""
    options = RouterClientSendOptions()
    options.timeout_ms = milliseconds
    return options

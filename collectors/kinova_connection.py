"""One connection to a Kinova arm: a transport of the vendor's ``kortex_api`` with a session on it.

This is the only module that imports ``kortex_api``, and only in a function. The vendor's client takes no lock
when it sends, so calls on one connection wait for one another here; every call has a short time-out. Whatever
goes wrong in a call becomes one :class:`CallError`, which says in words what it means.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from collectors.kinova_faults import Stop, StopCause, one_line, stop_from_error
from collectors.kinova_link import DriverSettings
from pipeline.errors import InputError

SESSION_INACTIVITY_MS, CONNECTION_INACTIVITY_MS = 10000, 2000
PROBE_TIMEOUT_S = 2.0

WHEEL_HINT = "install the arm's Python client, which Kinova gives its users: see docs/kinova.md"


class CallError(Exception):
    """A call that failed; ``stop`` says what that means for the arm."""

    def __init__(self, stop: Stop) -> None:
        """The message is the stop's words."""
        super().__init__(stop.words)
        self.stop = stop


class Connection:
    """One transport with a session on it. Constructing is cheap; :meth:`open` connects, in up to 12 s."""

    def __init__(self, settings: DriverSettings, *, over_udp: bool) -> None:
        """``over_udp`` for feedback, else TCP."""
        self._settings = settings
        self._over_udp = over_udp
        self._lock = threading.Lock()
        self._transport: Any = None
        self._session: Any = None
        self.router: Any = None

    @property
    def port(self) -> int:
        """The port of the arm that it speaks to."""
        return self._settings.udp_port if self._over_udp else self._settings.tcp_port

    def open(self) -> None:
        """Connects and logs in. Raises ``InputError`` in one line that says what is wrong."""
        api = vendor_client()
        where = f"{self._settings.address}:{self.port}"
        if not self._over_udp:
            probe(self._settings.address, self.port)
        self._transport = api.UDPTransport() if self._over_udp else api.TCPTransport()
        self.router = api.RouterClient(self._transport, lambda error: None)
        try:
            self._transport.connect(self._settings.address, self.port)
            self._session = api.SessionManager(self.router)
            self._session.CreateSession(
                api.CreateSessionInfo(
                    username=self._settings.username,
                    password=self._settings.password,
                    session_inactivity_timeout=SESSION_INACTIVITY_MS,
                    connection_inactivity_timeout=CONNECTION_INACTIVITY_MS,
                )
            )
        except Exception as error:
            self._session = None
            self.close()
            raise InputError(_login_words(error, where, self._settings.username, self._over_udp)) from error

    def call(self, method: Callable[..., Any], *arguments: Any, timeout_s: float) -> Any:
        """Calls ``method``, alone on this connection. Raises :class:`CallError`."""
        if not self._lock.acquire(timeout=timeout_s):
            raise CallError(Stop(StopCause.NO_ANSWER, "a command to the arm is stuck; clear the faults"))
        try:
            options = vendor_client().RouterClientSendOptions()
            options.timeout_ms = round(timeout_s * 1000)
            return method(*arguments, options=options)
        except Exception as error:
            raise CallError(_stop_of(error)) from error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Logs out and disconnects, as far as that is possible; harmless when not open."""
        session, transport = self._session, self._transport
        self._session = self._transport = None
        if session is not None:
            with contextlib.suppress(CallError):
                self.call(session.CloseSession, timeout_s=0.5)
        if transport is not None:
            with contextlib.suppress(Exception):
                transport.disconnect()


def probe(address: str, port: int) -> None:
    """Sees that the TCP port answers. Raises ``InputError`` that says what is wrong with address or port."""
    try:
        socket.create_connection((address, port), timeout=PROBE_TIMEOUT_S).close()
    except socket.gaierror as error:
        raise InputError(f"kinova_gen3: there is no host {address!r}: check the robot's ip") from error
    except ConnectionRefusedError as error:
        raise InputError(
            f"kinova_gen3: {address} refuses port {port}: is that the arm's address, and is it started up?"
        ) from error
    except OSError as error:
        raise InputError(
            f"kinova_gen3: no answer from {address}:{port} ({one_line(str(error))}): check power, cable, ip, "
            "and that this computer's own address is in the arm's network"
        ) from error


def _stop_of(error: Exception) -> Stop:
    if isinstance(error, TimeoutError):
        return Stop(
            StopCause.NO_ANSWER, "the arm does not answer commands; check the cable, then clear the faults"
        )
    codes = _codes(error)
    if codes is not None:
        return stop_from_error(*codes, str(error))
    if isinstance(error, OSError):
        words = one_line(error.strerror or str(error))
        why = f" ({words})" if words and "closed" not in words else ""
        return Stop(
            StopCause.CONNECTION_LOST,
            f"the connection to the arm is closed{why}; check arm and cable, then clear the faults to "
            "connect anew",
        )
    return Stop(
        StopCause.REFUSED, f"the arm's client failed ({type(error).__name__}: {one_line(str(error))})"
    )


def _codes(error: Exception) -> tuple[int, int] | None:
    raised: Any = error
    if hasattr(raised, "get_error_code"):
        return int(raised.get_error_code()), int(raised.get_error_sub_code())
    inner: Any = getattr(raised, "error", None)  # KClientException has no get_error_code
    if hasattr(inner, "error_sub_code"):
        return int(inner.error_code), int(inner.error_sub_code)
    return None


def _login_words(error: Exception, where: str, user: str, over_udp: bool) -> str:
    stop = _stop_of(error)
    if isinstance(error, TimeoutError):
        kind = "UDP, for feedback" if over_udp else "TCP"
        return (
            f"kinova_gen3: {where} ({kind}) does not answer: check the port, and that no firewall is between"
        )
    if stop.cause is StopCause.NOT_IN_CONTROL:
        return f"kinova_gen3: {where} refused the session: {stop.words}"
    if _codes(error) is not None:
        said = one_line(str(error))
        return f"kinova_gen3: {where} refused user {user!r}: check username and password ({said})"
    return f"kinova_gen3: cannot talk to {where}: {one_line(str(error)) or type(error).__name__}"


class VendorClient:
    """What is used of ``kortex_api``, imported at once so that a half-installed client is found at once."""

    def __init__(self) -> None:
        from kortex_api.autogen.client_stubs.BaseClientRpc import BaseClient
        from kortex_api.autogen.client_stubs.BaseCyclicClientRpc import BaseCyclicClient
        from kortex_api.autogen.messages import Base_pb2, Session_pb2
        from kortex_api.RouterClient import RouterClient, RouterClientSendOptions
        from kortex_api.SessionManager import SessionManager
        from kortex_api.TCPTransport import TCPTransport
        from kortex_api.UDPTransport import UDPTransport

        self.BaseClient, self.BaseCyclicClient = BaseClient, BaseCyclicClient
        self.RouterClient, self.RouterClientSendOptions = RouterClient, RouterClientSendOptions
        self.SessionManager = SessionManager
        self.TCPTransport, self.UDPTransport = TCPTransport, UDPTransport
        self.CreateSessionInfo = Session_pb2.CreateSessionInfo
        self.ServoingModeInformation = Base_pb2.ServoingModeInformation
        self.TwistCommand, self.GripperCommand = Base_pb2.TwistCommand, Base_pb2.GripperCommand
        self.Action, self.NotificationOptions = Base_pb2.Action, Base_pb2.NotificationOptions


_imported: list[VendorClient] = []


def vendor_client() -> VendorClient:
    if not _imported:
        try:
            _imported.append(VendorClient())
        except ImportError as error:
            raise InputError(
                f"kinova_gen3: cannot import kortex_api ({one_line(str(error))}): {WHEEL_HINT}"
            ) from error
        except TypeError as error:  # protobuf's "Descriptors cannot be created directly"
            raise InputError(
                "kinova_gen3: kortex_api needs PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in the "
                "environment, set before Python starts: see docs/kinova.md"
            ) from error
    return _imported[0]

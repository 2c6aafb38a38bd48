"""Requests out, responses and notifications in."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from .Exceptions.KClientException import KClientException
from .Exceptions.KException import KException
from .Exceptions.KServerException import KServerException
from .stand_in.frames import FUNCTIONS, Function, Kind, Packet
from .stand_in.messages import message_class
from .stand_in.violations import ConcurrentCallError, report_violation
from .TCPTransport import TCPTransport
from .UDPTransport import UDPTransport

_ERROR_PROTOCOL_CLIENT = 2
_UNREGISTERED_FRAME_RECEIVED = 14
_Error = message_class("", "Error")


class RouterClientSendOptions:
    """How one call is made; ``timeout_ms`` is ten seconds unless set."""

    def __init__(self) -> None:
        """The defaults."""
        self.timeout_ms = 10000


class RouterClient:
    """Matches responses to requests by message number.

    Its calls are not thread-safe: the vendor's send path takes no lock. Here a second call on the same
    transport, while another thread's is under way, is noted as a violation and raises.
    """

    notificationService: ClassVar[dict[tuple[int, int], Callable[[Packet], None]]] = {}
    """Who gets notifications, by service and function. Of the class: two clients in one process take each
    other's."""

    def __init__(
        self, transport: TCPTransport | UDPTransport, errorCallback: Callable[[KException], Any]
    ) -> None:
        """``errorCallback`` gets errors that belong to no call, from the receiving thread."""
        self.transport = transport
        self.errorCallback = errorCallback
        self._session = 0
        self._next_message = 0
        self._waiting: dict[int, concurrent.futures.Future[Packet]] = {}
        self._numbering = threading.Lock()
        self._caller: str | None = None
        transport.set_receiver(self._take)

    def basicErrorCallback(self, kException: KException) -> None:
        """Passed as the vendor's examples do, ``RouterClient.basicErrorCallback``, it raises TypeError."""
        print(f"error: {kException}")

    def call(self, name: str, message: Any, deviceId: int, options: RouterClientSendOptions | None) -> Any:
        """Makes one call and waits for its response, as every stub does.

        Raises ``concurrent.futures.TimeoutError`` after ``options.timeout_ms``, ``KServerException`` or
        ``KClientException`` where it is refused, ``BrokenPipeError`` on a closed connection.
        """
        function = FUNCTIONS[name]
        wanted = message_class(*function.takes)
        if message is None:
            message = wanted()
        if not isinstance(message, wanted) or not isinstance(deviceId, int):
            raise TypeError(
                f"{name} takes a {function.takes[1]} and a device number, not {message!r}, {deviceId!r}"
            )
        timeout_s = (options or RouterClientSendOptions()).timeout_ms / 1000
        with contextlib.nullcontext() if name == "KeepAlive" else self._alone(name):
            response = self._exchange(function, message, deviceId, timeout_s)
        if response.error_code:
            raise _refusal(response)
        return message_class(*function.gives).FromString(response.payload)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._numbering:
            other, self._caller = self._caller, self._caller or name
        if other is not None:
            report_violation(f"{name} called while {other} was under way on the same transport")
            raise ConcurrentCallError(f"{name} called while {other} was under way; serialise the calls")
        try:
            yield
        finally:
            self._caller = None

    def _exchange(self, function: Function, message: Any, device: int, timeout_s: float) -> Packet:
        with self._numbering:
            self._next_message = number = self._next_message % 0xFFFF + 1
            answer = self._waiting[number] = concurrent.futures.Future()
        request = Packet(
            kind=Kind.REQUEST,
            service=function.service,
            function=function.number,
            session=self._session,
            message=number,
            device=device,
            payload=message.SerializeToString(),
        )
        try:
            self.transport.send(request)
            return answer.result(timeout_s)
        finally:
            del self._waiting[number]

    def _take(self, packet: Packet) -> None:
        if packet.kind == Kind.NOTIFICATION:
            listener = RouterClient.notificationService.get((packet.service, packet.function))
            if listener is not None:
                listener(packet)
        elif packet.kind == Kind.PING:
            with contextlib.suppress(OSError):
                self.transport.send(Packet(kind=Kind.PONG, session=packet.session, message=packet.message))
        elif packet.kind == Kind.RESPONSE:
            self._session = packet.session or self._session
            waiting = self._waiting.get(packet.message)
            if waiting is not None:
                waiting.set_result(packet)
                return
            error = _Error(error_code=_ERROR_PROTOCOL_CLIENT, error_sub_code=_UNREGISTERED_FRAME_RECEIVED)
            self.errorCallback(KClientException(error))


def _refusal(response: Packet) -> KException:
    error = _Error.FromString(response.payload)
    error.error_code, error.error_sub_code = response.error_code, response.error_sub_code
    return (KClientException if response.error_code == _ERROR_PROTOCOL_CLIENT else KServerException)(error)

"""The simulated arm's thread: sockets, sessions, time-outs, and the motion in real time.

One thread does everything, so there is one lock: whoever looks from outside takes it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from tests.kortex_stand_in.arm_calls import ArmCalls, ReceivedCommand, Refused
from tests.kortex_stand_in.arm_motion import STEP_S
from tests.kortex_stand_in.arm_sessions import Peer, Sessions
from tests.kortex_stand_in.kortex_api.stand_in.frames import FUNCTIONS, NAMES, Kind, Packet, Service
from tests.kortex_stand_in.kortex_api.stand_in.messages import message_class

_Error = message_class("", "Error")
_TICK_S = 0.01
_MOST_STEPS = 200  # caught up on at once: after a longer pause of the machine the arm stood still meanwhile
_ACTION_START, _ACTION_END, _ACTION_ABORT = 4, 1, 2
_UDP_SERVICES = (Service.SESSION, Service.BASE_CYCLIC)


class ArmServer:
    """Serves TCP and UDP clients. Everything public needs :attr:`lock`, but for start and stop."""

    def __init__(self, username: str, password: str, obeys_inactivity: bool) -> None:
        """See :class:`tests.kortex_stand_in.simulated_arm.SimulatedArm`."""
        self.lock = threading.RLock()
        self.calls = ArmCalls()
        self.sessions = Sessions()
        self.silent = False
        self.deaf = False
        self.reply_delay_s = 0.0
        self.delayed_calls: tuple[str, ...] = ()
        self.keep_alive_count = 0
        self._credentials = username, password
        self._obeys_inactivity = obeys_inactivity
        self._peers: dict[socket.socket, Peer] = {}
        self._listeners: dict[Peer, tuple[int, int]] = {}  # of actions: session, notification handle
        self._later: list[tuple[float, Peer, bytes]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._moved_until = 0.0

    def start(self, address: str, tcp_port: int, udp_port: int) -> tuple[int, int]:
        """Binds both ports (0: any that is free), starts the thread, and gives the ports."""
        self._selector = selectors.DefaultSelector()
        self._tcp = socket.create_server((address, tcp_port))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, udp_port))
        for listening in (self._tcp, self._udp):
            listening.setblocking(False)
            self._selector.register(listening, selectors.EVENT_READ)
        self._moved_until = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="simulated-arm", daemon=True)
        self._thread.start()
        return self._tcp.getsockname()[1], self._udp.getsockname()[1]

    def stop(self) -> None:
        """Ends the thread and closes everything."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)
            for open_socket in (self._tcp, self._udp, *self._peers):
                open_socket.close()
            self._selector.close()

    def close_connections(self) -> None:
        """Drops every TCP connection; sessions and motion go on until they time out."""
        for connection in list(self._peers):
            self._drop(connection)

    def _run(self) -> None:
        while not self._stopping.is_set():
            ready = self._selector.select(_TICK_S)
            with self.lock:
                for key, _ in ready:
                    self._receive(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered
                self.advance()
                self._send_due()

    def advance(self) -> None:
        """Moves the arm up to now and ends what has timed out."""
        now = time.monotonic()
        lost = self.sessions.lost(now)
        motion = self.calls.motion
        if self.calls.owner in lost and self._obeys_inactivity:
            motion.stop()
            self.calls.owner = 0
        steps = int((now - self._moved_until) / STEP_S)
        self._moved_until += steps * STEP_S
        for _ in range(min(steps, _MOST_STEPS)):
            if motion.is_resting:
                break
            if motion.step():
                self._notify(_ACTION_END)

    def _receive(self, source: socket.socket) -> None:
        if source is self._tcp:
            with contextlib.suppress(OSError):
                connection, _ = self._tcp.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers[connection] = Peer(connection)
                self._selector.register(connection, selectors.EVENT_READ)
        elif source is self._udp:
            with contextlib.suppress(OSError, ValueError, DecodeError):
                data, address = self._udp.recvfrom(65507)
                self._take(Peer(self._udp, address), Packet.from_bytes(data))
        elif source in self._peers:
            self._receive_stream(self._peers[source])

    def _receive_stream(self, peer: Peer) -> None:
        try:
            data = peer.connection.recv(65536)
            packets = peer.reader.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError, DecodeError):
            data, packets = b"", []
        if not data:
            self._drop(peer.connection)
        for packet in packets:
            self._take(peer, packet)

    def _drop(self, connection: socket.socket) -> None:
        self._listeners.pop(self._peers.pop(connection), None)
        self._selector.unregister(connection)
        connection.close()

    def _take(self, peer: Peer, packet: Packet) -> None:
        if self.deaf or packet.kind not in (Kind.REQUEST, Kind.PING):
            return
        if packet.kind == Kind.PING:
            self._send(peer, Packet(kind=Kind.PONG, session=packet.session, message=packet.message), 0.0)
            return
        name = NAMES.get((packet.service, packet.function), "")
        session, payload, codes = packet.session, b"", (0, 0)
        try:
            session, payload = self._answer(peer, packet, name)
        except Refused as refusal:
            codes = refusal.code, refusal.sub_code
            error = _Error(error_code=codes[0], error_sub_code=codes[1], error_sub_string="simulated arm")
            payload = error.SerializeToString()
        delay = self.reply_delay_s if not self.delayed_calls or name in self.delayed_calls else 0.0
        reply = Packet(
            Kind.RESPONSE, packet.service, packet.function, session, packet.message, *codes, payload=payload
        )
        self._send(peer, reply, delay)

    def _answer(self, peer: Peer, packet: Packet, name: str) -> tuple[int, bytes]:
        """The session that the reply names and its payload; raises ``Refused``."""
        if not name or (peer.is_udp and packet.service not in _UDP_SERVICES):
            raise Refused(
                "UNSUPPORTED_METHOD" if not name else "UNSUPPORTED_SERVICE", "ERROR_PROTOCOL_SERVER"
            )
        try:
            message = message_class(*FUNCTIONS[name].takes).FromString(packet.payload)
        except DecodeError as error:
            raise Refused("PAYLOAD_DECODING_ERR", "ERROR_PROTOCOL_SERVER") from error
        now = time.monotonic()
        if name == "CreateSession":
            return self._log_in(message, peer, now), b""
        if self.sessions.hear(packet.session, peer.is_udp, now) is None:
            raise Refused("INVALID_SESSION", "ERROR_PROTOCOL_SERVER")
        if packet.service == Service.SESSION:
            if name == "CloseSession":
                self._log_out(packet.session)
            self.keep_alive_count += name == "KeepAlive"
            return packet.session, b""
        self.advance()
        return packet.session, self._call(peer, packet.session, name, message)

    def _call(self, peer: Peer, session: int, name: str, message: Any) -> bytes:
        if name == "ActionTopic":
            handle = message_class("Common", "NotificationHandle")(identifier=session)
            self._listeners[peer] = session, handle.identifier
            return handle.SerializeToString()
        if name == "Unsubscribe":
            self._listeners.pop(peer, None)
            return b""
        motion = self.calls.motion
        acting = motion.has_action
        payload = self.calls.answer(name, message, session, peer.name)
        if acting and not motion.has_action:
            self._notify(_ACTION_ABORT)
        if name == "ExecuteAction":
            self._notify(_ACTION_START)
        return payload

    def _log_in(self, info: Any, peer: Peer, now: float) -> int:
        if info.username != self._credentials[0]:
            raise Refused("USER_NOT_FOUND", "ERROR_PROTOCOL_SERVER")
        if info.password != self._credentials[1]:
            raise Refused("INVALID_PASSWORD", "ERROR_PROTOCOL_SERVER")
        session = self.sessions.create(info, peer.is_udp, now)
        self._note("CreateSession", session.number)
        return session.number

    def _log_out(self, number: int) -> None:
        self._note("CloseSession", number)
        self.sessions.close(number)
        if self.calls.owner == number:
            self.calls.motion.stop()

    def _note(self, name: str, session: int) -> None:
        self.calls.log.append(ReceivedCommand(name, (), time.monotonic_ns(), session))

    def _notify(self, event: int) -> None:
        payload = message_class("Base", "ActionNotification")(action_event=event).SerializeToString()
        function = FUNCTIONS["ActionTopic"]
        for peer, (session, handle) in list(self._listeners.items()):
            packet = Packet(
                Kind.NOTIFICATION, function.service, function.number, session, handle, payload=payload
            )
            self._send(peer, packet, 0.0)

    def _send(self, peer: Peer, packet: Packet, delay_s: float) -> None:
        data = packet.to_bytes() if peer.is_udp else packet.to_stream()
        self._later.append((time.monotonic() + delay_s, peer, data))
        self._send_due()

    def _send_due(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._later if entry[0] <= now]
        self._later = [entry for entry in self._later if entry[0] > now]
        for _, peer, data in due:
            if self.silent:
                continue
            with contextlib.suppress(OSError):  # who has gone away, or does not read, gets nothing
                if peer.address is not None:
                    self._udp.sendto(data, peer.address)
                else:
                    peer.connection.send(data)

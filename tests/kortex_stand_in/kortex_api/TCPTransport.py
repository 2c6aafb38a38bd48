"""The connection that serves every call."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from .stand_in.frames import Packet, StreamReader


class TCPTransport:
    """A TCP connection with a thread that receives.

    After the arm has closed the connection, sending raises ``BrokenPipeError`` and the receiving thread
    goes round and round; the vendor's does so at most of a core, this one with a short sleep so that the
    tests beside it get on.
    """

    def __init__(self) -> None:
        """Opens nothing."""
        self._socket: socket.socket | None = None
        self._receive: Callable[[Packet], None] = lambda packet: None
        self._closed_by_peer = False
        self._thread: threading.Thread | None = None
        self.idle_turns = 0  # of the receiving thread after the arm closed the connection

    def set_receiver(self, receive: Callable[[Packet], None]) -> None:
        """The router's: where packets go, called from the receiving thread."""
        self._receive = receive

    def connect(self, ip: str, port: int) -> bool:
        """Opens the connection and starts the receiving thread; raises ``OSError`` where nobody answers."""
        self._closed_by_peer = False
        self._socket = socket.create_connection((ip, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread = threading.Thread(
            target=self._receive_all, args=(self._socket,), daemon=True, name="kortex-tcp-receive"
        )
        self._thread.start()
        return True

    def disconnect(self) -> None:
        """Closes the connection and ends its thread; harmless when not connected."""
        connection, self._socket = self._socket, None
        if connection is None:
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def send(self, packet: Packet) -> None:
        """Writes one frame. Raises ``BrokenPipeError`` once the arm has closed the connection."""
        connection = self._socket
        if connection is None or self._closed_by_peer:
            raise BrokenPipeError(32, "Broken pipe")
        connection.sendall(packet.to_stream())

    def _receive_all(self, connection: socket.socket) -> None:
        reader = StreamReader()
        while self._socket is connection:
            try:
                data = connection.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._closed_by_peer = True
                self.idle_turns += 1
                time.sleep(0.01)
                continue
            for packet in reader.feed(data):
                self._receive(packet)

"""The connection for feedback: ``BaseCyclic`` only, with a session of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from .stand_in.frames import Packet


class UDPTransport:
    """Datagrams to and from the arm, with a thread that receives. Nobody notices when the arm is gone."""

    def __init__(self) -> None:
        """Opens nothing."""
        self._socket: socket.socket | None = None
        self._receive: Callable[[Packet], None] = lambda packet: None

    def set_receiver(self, receive: Callable[[Packet], None]) -> None:
        """The router's: where packets go, called from the receiving thread."""
        self._receive = receive

    def connect(self, ip: str, port: int) -> bool:
        """Starts the receiving thread. Says nothing of whether an arm is there."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((ip, port))
        self._socket.settimeout(0.2)
        threading.Thread(
            target=self._receive_all, args=(self._socket,), daemon=True, name="kortex-udp-receive"
        ).start()
        return True

    def disconnect(self) -> None:
        """Closes the socket; its thread ends soon after. Harmless when not connected."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def send(self, packet: Packet) -> None:
        """Sends one datagram; raises ``OSError`` where that cannot be."""
        if self._socket is None:
            raise BrokenPipeError(32, "Broken pipe")
        self._socket.send(packet.to_bytes())

    def _receive_all(self, connection: socket.socket) -> None:
        while self._socket is connection:
            try:
                data = connection.recv(65507)
            except TimeoutError:
                continue
            except OSError:
                if self._socket is not connection:
                    return
                continue  # a refused datagram: the arm's port is closed for now
            self._receive(Packet.from_bytes(data))

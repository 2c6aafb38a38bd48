"""Frames on the wire, and the numbers of services and functions.

A TCP frame is an eight-byte marker, a four-byte big-endian length and a serialized ``Frame``; a UDP
datagram is a bare ``Frame``. The header packs kind, device, error, session, message and function.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .messages import message_class

MARKER = b"\x07xEtRoK\x07"
_LENGTH = struct.Struct(">I")
_Frame = message_class("", "Frame")


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 1
    RESPONSE = 3
    NOTIFICATION = 5
    PING = 7
    PONG = 8


class Service(IntEnum):
    """Services by number."""

    SESSION = 1
    BASE = 2
    BASE_CYCLIC = 3
    DEVICE_CONFIG = 9


@dataclass(frozen=True)
class Function:
    """One call: its service, number, and the messages that it takes and gives (package, name)."""

    service: Service
    number: int
    takes: tuple[str, str] = ("Common", "Empty")
    gives: tuple[str, str] = ("Common", "Empty")


FUNCTIONS: dict[str, Function] = {
    "CreateSession": Function(Service.SESSION, 1, ("Session", "CreateSessionInfo")),
    "CloseSession": Function(Service.SESSION, 2),
    "KeepAlive": Function(Service.SESSION, 3),
    "ReadAllActions": Function(Service.BASE, 44, ("Base", "RequestedActionType"), ("Base", "ActionList")),
    "ExecuteAction": Function(Service.BASE, 48, ("Base", "Action")),
    "StopAction": Function(Service.BASE, 50),
    "Unsubscribe": Function(Service.BASE, 97, ("Common", "NotificationHandle")),
    "ActionTopic": Function(
        Service.BASE, 106, ("Common", "NotificationOptions"), ("Common", "NotificationHandle")
    ),
    "Stop": Function(Service.BASE, 112),
    "SendTwistCommand": Function(Service.BASE, 121, ("Base", "TwistCommand")),
    "SendJointSpeedsCommand": Function(Service.BASE, 132, ("Base", "JointSpeeds")),
    "SendGripperCommand": Function(Service.BASE, 136, ("Base", "GripperCommand")),
    "ApplyEmergencyStop": Function(Service.BASE, 145),
    "ClearFaults": Function(Service.BASE, 146),
    "SetServoingMode": Function(Service.BASE, 152, ("Base", "ServoingModeInformation")),
    "GetArmState": Function(Service.BASE, 175, gives=("Base", "ArmStateInformation")),
    "RefreshFeedback": Function(Service.BASE_CYCLIC, 3, gives=("BaseCyclic", "Feedback")),
    "GetFirmwareVersion": Function(Service.DEVICE_CONFIG, 4, gives=("DeviceConfig", "FirmwareVersion")),
}
"""Every call that the stand-in offers, by name."""
NAMES = {(int(function.service), function.number): name for name, function in FUNCTIONS.items()}


@dataclass(frozen=True)
class Packet:
    """One frame, unpacked."""

    kind: Kind
    service: int = 0
    function: int = 0
    session: int = 0
    message: int = 0
    error_code: int = 0
    error_sub_code: int = 0
    device: int = 0
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """The serialized ``Frame``, as a UDP datagram holds it."""
        frame: Any = _Frame(payload=self.payload)
        header = frame.header
        header.frame_info = (
            1 << 28
            | int(self.kind) << 24
            | (self.device & 0xFF) << 16
            | (self.error_code & 0xF) << 12
            | self.error_sub_code & 0xFFF
        )
        header.message_info = (self.session & 0xFFFF) << 16 | self.message & 0xFFFF
        header.service_info = 1 << 28 | (self.service & 0xFFF) << 16 | self.function & 0xFFFF
        header.payload_info = len(self.payload) & 0xFFFFFF
        return frame.SerializeToString()

    def to_stream(self) -> bytes:
        """The frame as a TCP stream holds it, marker and length included."""
        body = self.to_bytes()
        return MARKER + _LENGTH.pack(len(body)) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Packet:
        """Unpacks a serialized ``Frame``; raises protobuf's ``DecodeError`` or ``ValueError`` for others."""
        frame = _Frame.FromString(data)
        info, message, service = (
            frame.header.frame_info,
            frame.header.message_info,
            frame.header.service_info,
        )
        return cls(
            kind=Kind(info >> 24 & 0xF),
            service=service >> 16 & 0xFFF,
            function=service & 0xFFFF,
            session=message >> 16,
            message=message & 0xFFFF,
            error_code=info >> 12 & 0xF,
            error_sub_code=info & 0xFFF,
            device=info >> 16 & 0xFF,
            payload=frame.payload,
        )


class StreamReader:
    """Cuts a TCP stream into packets, however it arrives."""

    def __init__(self) -> None:
        """Starts with nothing received."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that ``data`` completes. Raises ``ValueError`` where the stream is not of frames."""
        self._buffer += data
        packets = []
        start = len(MARKER) + _LENGTH.size
        while len(self._buffer) >= start:
            if bytes(self._buffer[: len(MARKER)]) != MARKER:
                raise ValueError("this stream is not of Kortex frames")
            (length,) = _LENGTH.unpack_from(self._buffer, len(MARKER))
            if len(self._buffer) < start + length:
                break
            packets.append(Packet.from_bytes(bytes(self._buffer[start : start + length])))
            del self._buffer[: start + length]
        return packets

"""Arms for tests: the stand-in by default; with ``pytest -m kortex`` the vendor's client.

A test that uses the fixture :func:`kortex_arm`, or one of its own with ``params=CLIENTS``, runs twice: as it
is, with the stand-in's client; and, marked ``kortex``, with the vendor's wheel.

Environment of the marked half: ``RECAP_KORTEX_ADDRESS`` is a real arm's address; ``RECAP_KORTEX_TCP_PORT``,
``_UDP_PORT``, ``_USER`` and ``_PASSWORD`` are needed where they differ from the factory's. Without an
address the vendor's client talks to the simulated arm, which speaks the same wire.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.kortex_stand_in.simulated_arm import SimulatedArm

__all__ = ["CLIENTS", "HOW_TO_RUN", "ArmEndpoint", "kortex_arm"]

HOW_TO_RUN = (
    "needs Kinova's kortex_api wheel (docs/kinova.md says how to install it); then run it with -m kortex:"
    " against the simulated arm, or, with RECAP_KORTEX_ADDRESS=192.168.1.10, a real one"
    " with 5 cm of room any way"
)
CLIENTS = ("stand-in", pytest.param("vendor", marks=pytest.mark.kortex))


@dataclass(frozen=True)
class ArmEndpoint:
    """Where an arm is and how to log in. ``simulated`` is ``None`` for a real arm."""

    address: str
    tcp_port: int
    udp_port: int
    username: str
    password: str
    simulated: SimulatedArm | None = None


@pytest.fixture(params=CLIENTS)
def kortex_arm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArmEndpoint]:
    """An arm that may be a real one: only small motions, and nothing that disturbs it.

    Processes that the test starts find the right ``kortex_api``.
    """
    address = os.environ.get("RECAP_KORTEX_ADDRESS")
    if request.param == "vendor" and address:
        _require_wheel()
        monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
        yield ArmEndpoint(
            address,
            int(os.environ.get("RECAP_KORTEX_TCP_PORT", "10000")),
            int(os.environ.get("RECAP_KORTEX_UDP_PORT", "10001")),
            os.environ.get("RECAP_KORTEX_USER", "admin"),
            os.environ.get("RECAP_KORTEX_PASSWORD", "admin"),
        )
        return
    yield from _simulated(request.param, monkeypatch)


def _simulated(client: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArmEndpoint]:
    if client == "vendor":
        _require_wheel()
    with SimulatedArm() as arm:
        for name, value in arm.client_environment().items():
            if name != "PYTHONPATH" or client == "stand-in":
                monkeypatch.setenv(name, value)
        yield ArmEndpoint(arm.address, arm.tcp_port, arm.udp_port, arm.username, arm.password, arm)


def _require_wheel() -> None:
    if importlib.util.find_spec("kortex_api") is None:
        pytest.skip(HOW_TO_RUN)

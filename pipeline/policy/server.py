"""Serves a policy to a robot on another machine: the big GPU there, the arm here.

One client drives at a time; a second is told so. Nothing that a client sends, garbage included, ends the
server or runs code in it. It listens on this machine alone unless told otherwise, and on another address
only with a token. The traffic is **not encrypted**: across a network that you do not own, listen on
127.0.0.1 and let the robot's machine reach it through an SSH tunnel
(``ssh -N -L 8642:127.0.0.1:8642 gpu-machine``, then ``--policy tcp://127.0.0.1:8642``).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from pipeline.episode import ACTION_NAMES, POLICY_STATE_NAMES
from pipeline.errors import Failure, InputError
from pipeline.policy.channel import (
    DEFAULT_PORT,
    Channel,
    Disconnected,
    WrongToken,
    check_address,
    format_url,
)
from pipeline.policy.wire import (
    PROTOCOL_VERSION,
    BadMessage,
    actions_message,
    before_from,
    observation_from,
    seed,
    text,
)

_MAX_CONNECTIONS = 16
_log = logging.getLogger(__name__)


class ServedPolicy(Protocol):
    """What is served; ``pipeline.policy.served_runner.ServedRunner`` is one."""

    @property
    def checkpoint_name(self) -> str:
        """What episodes say of who drove."""
        ...

    @property
    def cameras(self) -> Sequence[str]:
        """The cameras that it looks at."""
        ...

    @property
    def execute_steps(self) -> int:
        """How many actions of a plan are meant to be executed before the next plan."""
        ...

    @property
    def observed_steps(self) -> int:
        """How many successive control steps' observations it looks at."""

    @property
    def subtask(self) -> str | None:
        """What it said it does before its latest plan; ``None`` of one that predicts no sub-tasks."""

    def reset(self, task: str, seed: int | None = None) -> None:
        """Starts an episode of ``task``."""
        ...

    def drop_plan(self) -> None:
        """Lets the next ``act`` start from its own observation."""
        ...

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """The next action, float32 (7,)."""
        ...

    def plan(self, observation: dict[str, Any], before: Sequence[dict[str, Any]] | None = None) -> np.ndarray:
        """A chunk of actions, float32 (n, 7); ``before`` are the observations before, oldest first."""
        ...


class PolicyServer:
    """A listening server; a context manager. ``serve_forever`` runs until ``close`` or an exception."""

    def __init__(
        self,
        policy: ServedPolicy,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        token: str | None = None,
        say: Callable[[str], None] = _log.info,
        handover_s: float = 2.0,
        stall_s: float = 10.0,
    ) -> None:
        """Remembers; ``__enter__`` binds. ``port`` 0 lets the system choose.

        ``say`` gets one line an event. A client that comes while another drives waits ``handover_s`` for
        it to leave (its predecessor may just be ending). ``stall_s`` bounds handshakes and pauses within a
        message. Raises ``InputError`` for an address beyond this machine without a token.
        """
        check_address(host, token)
        if not 0 <= port < 65536:
            raise InputError(f"port {port} does not exist: give one from 1 to 65535")
        self._policy = policy
        self._address = (host, port)
        self._token = token
        self._say = say
        self._handover_s, self._stall_s = handover_s, stall_s
        self._seat = threading.Lock()
        self._driver = ""
        self._threads: dict[threading.Thread, Channel] = {}
        self._closed = threading.Event()
        self._listening: socket.socket | None = None

    def __enter__(self) -> Self:
        """Binds the address. Raises ``InputError`` where that is not possible."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listening = socket.create_server((host, port), family=family, backlog=_MAX_CONNECTIONS)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"cannot listen on {format_url(host, port)}: {reason}; another --port?"
            ) from None
        self._listening.settimeout(0.2)  # how soon ``close`` is noticed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    @property
    def url(self) -> str:
        """Where it listens, ``tcp://host:port``."""
        assert self._listening is not None, "enter the server first"
        return format_url(self._address[0], self._listening.getsockname()[1])

    def close(self) -> None:
        """Stops listening and disconnects everyone; from any thread, harmless when repeated."""
        self._closed.set()
        for channel in list(self._threads.values()):
            channel.close()
        for thread in list(self._threads):
            thread.join(timeout=5)
        if self._listening is not None:
            self._listening.close()

    def serve_forever(self) -> None:
        """Takes connections, each in a thread of its own, until ``close``."""
        assert self._listening is not None, "enter the server first"
        while not self._closed.is_set():
            try:
                connected, address = self._listening.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._closed.is_set():
                    return
                raise
            # Not by the threads themselves: ``close`` must wait for one that is just ending, too, since torch
            # aborts a process whose interpreter ends under such a thread.
            self._threads = {t: channel for t, channel in self._threads.items() if t.is_alive()}
            if len(self._threads) >= _MAX_CONNECTIONS:
                connected.close()
                continue
            try:
                channel = Channel(connected, self._stall_s)
            except OSError:  # gone already
                connected.close()
                continue
            thread = threading.Thread(target=self._attend, args=(channel, str(address[0])), daemon=True)
            self._threads[thread] = channel
            thread.start()

    def _attend(self, channel: Channel, peer: str) -> None:
        try:
            self._greet(channel, peer)
        except WrongToken:
            self._say(f"{peer}: refused, it does not know the token or is no client of this version")
        except Disconnected as gone:
            _log.debug("%s: %s", peer, gone)
        finally:
            channel.release()

    def _greet(self, channel: Channel, peer: str) -> None:
        # One clock for all of it: who sends a byte now and then would otherwise stay for ever.
        deadline = threading.Timer(self._stall_s, channel.close)
        deadline.daemon = True
        deadline.start()
        try:
            channel.prove(self._token, first=True)
            try:
                hello = channel.receive()
            except BadMessage as error:
                return channel.send(_refusal(f"not understood: {error}"))
        finally:
            deadline.cancel()
        if hello.get("do") != "hello" or hello.get("protocol") != PROTOCOL_VERSION:
            return channel.send(
                _refusal(
                    f"the client speaks version {hello.get('protocol')!r} of the protocol, the server "
                    f"version {PROTOCOL_VERSION}: install the same kinova-recap on both machines"
                )
            )
        if not self._seat.acquire(timeout=self._handover_s):
            self._say(f"{peer}: refused, {self._driver} drives")
            return channel.send(_refusal(f"another client, {self._driver}, is using it", kind="failure"))
        try:
            self._driver = peer
            channel.send(self._introduction())
            self._say(f"{peer}: connected")
            self._converse(channel)
        finally:
            self._say(f"{peer}: disconnected")
            self._seat.release()
        return None

    def _introduction(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL_VERSION,
            "checkpoint": self._policy.checkpoint_name,
            "cameras": list(self._policy.cameras),
            "numbers": list(POLICY_STATE_NAMES),
            "action": list(ACTION_NAMES),
            "execute_steps": self._policy.execute_steps,
            "observed_steps": self._policy.observed_steps,
        }

    def _converse(self, channel: Channel) -> None:
        ready = False  # what an earlier client asked for must not drive this one's arm
        while channel.can_receive and not self._closed.is_set():
            channel.wait(None)
            try:
                message = channel.receive()
                if message.get("do") in ("plan", "act") and not ready:
                    raise InputError("the policy has no task yet: call reset(task, seed) first")
                reply = self._answer(message)
                ready = ready or message.get("do") == "reset"
            except BadMessage as error:
                reply = _refusal(f"not understood: {error}")
            except InputError as error:
                reply = _refusal(str(error))
            except Failure as error:
                reply = _refusal(str(error), kind="failure")
            except (Disconnected, MemoryError):
                raise
            except Exception as error:  # a policy can fail in many ways; the next episode may go well
                _log.debug("the policy failed", exc_info=True)
                self._say(f"the policy failed: {type(error).__name__}: {error}")
                reply = _refusal(f"the policy failed: {type(error).__name__}: {error}", kind="failure")
            channel.send(reply)

    def _answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        match message.get("do"):
            case "reset":
                self._policy.reset(text(message, "task"), seed(message))
                return {"done": True}
            case "drop":
                self._policy.drop_plan()
                return {"done": True}
            case "plan":
                cameras = self._policy.cameras
                before = before_from(message, self._policy.observed_steps - 1, cameras)
                actions = self._policy.plan(observation_from(message, cameras), before)
                return actions_message(actions, self._policy.subtask)
            case "act":
                action = self._policy.act(observation_from(message, self._policy.cameras))
                return actions_message(action[np.newaxis], self._policy.subtask)
        raise BadMessage(f"no request {message.get('do')!r:.40}")


def serve(
    policy: ServedPolicy,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serves ``policy`` until interrupted; see :class:`PolicyServer`. ``say`` first gets the address."""
    with PolicyServer(policy, host, port, token=token, say=say) as server:
        guarded = "with a token" if token is not None else "without a token"
        say(f"serving {policy.checkpoint_name} on {server.url} ({guarded}, not encrypted)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    say("stopped")


def _refusal(reason: str, kind: str = "input") -> dict[str, Any]:
    return {"error": " ".join(reason.split())[:2000], "kind": kind}

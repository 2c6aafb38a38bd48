"""A policy on another machine, as one here: observations go out, plans come back.

The far end is ``recap policy serve``. A server that is gone, hangs or refuses is one ``Failure`` or
``InputError`` in words, never a wait without end; the next :meth:`RemotePolicy.reset` connects again.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.episode import ACTION_NAMES
from pipeline.errors import Failure, InputError
from pipeline.policy.channel import Channel, Disconnected, WrongToken, parse_url
from pipeline.policy.wire import (
    MAX_MESSAGE_BYTES,
    MAX_OBSERVED_STEPS,
    MAX_PLAN_STEPS,
    PROTOCOL_VERSION,
    BadMessage,
    actions_from,
    observation_message,
    text,
)

_BESIDE_IMAGES = 16 * 2**10  # bytes of an observation that are no pixels, at most


class RemotePolicy:
    """A client of a policy server. ``plan`` belongs in a thread of its own, as it waits for the answer.

    Calls are serialised. :meth:`close` may be called by any thread and ends a call that waits.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        connect_s: float = 5.0,
        reply_s: float = 15.0,
        jpeg_quality: int | None = None,
    ) -> None:
        """Remembers; nothing is connected yet. Raises ``InputError`` for a bad address.

        ``url`` is ``tcp://host:port``; ``token`` is the server's (``pipeline.policy.channel.read_token``).
        ``reply_s`` bounds the wait for one answer, in seconds. Images are sent as they are, so that the
        plan is that of a local policy bit for bit, or with ``jpeg_quality`` (1 to 100) over a thin line.
        """
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 100:
            raise InputError(f"jpeg_quality is {jpeg_quality}; it must be 1 to 100")
        self.url = url
        self._address = parse_url(url)
        self._token = token
        self._connect_s, self._reply_s = connect_s, reply_s
        self._jpeg_quality = jpeg_quality
        self._channel: Channel | None = None
        self._known: dict[str, Any] | None = None
        self._turn = threading.RLock()
        self.subtask: str | None = None
        """What the policy said it does before its latest plan, of one that predicts sub-tasks."""

    def __enter__(self) -> Self:
        """Connects."""
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    def connect(self) -> None:
        """Connects and learns what the policy needs; nothing where it is connected.

        Raises ``InputError`` (wrong token, another version, another checkpoint than before) and ``Failure``
        (nobody there, another client drives).
        """
        with self._turn:
            if self._channel is not None:
                return
            channel = self._open()
            try:
                introduction = self._introduction(channel)
                if self._known is not None and introduction != self._known:
                    raise InputError(
                        f"the policy server {self.url} now serves {introduction['checkpoint']}, it served "
                        f"{self._known['checkpoint']} before: start a new session for another policy"
                    )
            except BaseException:
                channel.release()
                raise
            self._channel, self._known = channel, introduction

    @property
    def checkpoint_name(self) -> str:
        """The served checkpoint's name, for the episodes; connects where needed (raises as that does)."""
        return str(self._needs["checkpoint"])

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that the policy looks at; connects where needed."""
        return tuple(self._needs["cameras"])

    @property
    def execute_steps(self) -> int:
        """How many actions of a plan are meant to be executed before the next; connects where needed."""
        return int(self._needs["execute_steps"])

    @property
    def observed_steps(self) -> int:
        """How many successive control steps' observations the policy looks at; connects where needed."""
        return int(self._needs["observed_steps"])

    def check_robot(
        self, observation_features: Mapping[str, Any], action_features: Mapping[str, Any] | None = None
    ) -> None:
        """Raises ``InputError``, one line, where the policy cannot drive a robot of these features.

        The features are those of LeRobot's ``Robot``. To be called before the arm moves; connects where
        needed. Images of any size do, since the server resizes them, as long as those of all observations
        that the policy looks at fit into one message.
        """
        who = f"the policy {self.checkpoint_name} ({self.url})"
        have = sorted(name for name, kind in observation_features.items() if isinstance(kind, tuple))
        for camera in self.cameras:
            if camera not in have:
                raise InputError(
                    f"{who} needs camera {camera!r}, the robot has {', '.join(have) or 'none'}: name the "
                    "robot's cameras in recap.toml as they were named in training"
                )
        for name in self._needs["numbers"]:
            if name not in observation_features:
                raise InputError(f"{who} needs {name!r}, which this robot does not measure")
        for name in ACTION_NAMES:
            if name not in (action_features or ACTION_NAMES):
                raise InputError(f"{who} gives {name!r}, which this robot's actions do not have")
        self._check_size(who, observation_features)

    def reset(self, task: str, seed: int | None = None) -> None:
        """Starts an episode of ``task`` (bare text); connects, or connects again, where needed."""
        with self._turn:
            fresh = self._channel is None
            self.connect()
            self.subtask = None
            request = {"do": "reset", "task": task, "seed": seed}
            try:
                self._ask(request)
            except Failure:
                if fresh or self._channel is not None:
                    raise
                self.connect()  # the server went away since the last episode; perhaps it is back
                self._ask(request)

    def drop_plan(self) -> None:
        """Lets the next :meth:`act` start from its own observation; nothing where none is connected."""
        with self._turn:
            if self._channel is not None:
                self._ask({"do": "drop"})

    def plan(
        self, observation: Mapping[str, Any], before: Sequence[Mapping[str, Any]] | None = None
    ) -> np.ndarray:
        """A chunk of actions, float32 (n, 7), for a robot's flat observation.

        ``before`` are those of the control steps just before, oldest first, back to the episode's start or
        for :attr:`observed_steps` - 1 steps. All are sent with every plan, so that the server need not know
        what it was shown earlier; a policy of one observation needs none, and none is sent to it.
        Raises ``InputError`` where the observation lacks something or the server refuses it, and
        ``Failure`` where no plan comes; after a lost connection only ``reset`` connects again.
        """
        return self._ask_for_actions("plan", observation, before)

    def act(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The next action, float32 (7,); raises as :meth:`plan` does."""
        return self._ask_for_actions("act", observation)[0]

    def close(self) -> None:
        """Disconnects; from any thread, also while another waits for a plan. Harmless when repeated."""
        channel = self._channel
        if channel is not None:
            channel.close()
        if self._turn.acquire(timeout=5):
            try:
                self._drop()
            finally:
                self._turn.release()

    @property
    def _needs(self) -> dict[str, Any]:
        if self._known is None:
            self.connect()
        assert self._known is not None
        return self._known

    def _check_size(self, who: str, features: Mapping[str, Any]) -> None:
        """Raises ``InputError`` where a plan would carry more than is sent, as it may only later on."""
        if self._jpeg_quality is not None:
            return
        pixels = sum(features[camera][0] * features[camera][1] for camera in self.cameras)
        size = self.observed_steps * (3 * pixels + _BESIDE_IMAGES)
        if size > MAX_MESSAGE_BYTES:
            raise InputError(
                f"{who} looks at {self.observed_steps} steps' images for a plan, {size / 2**20:.0f} MiB with "
                f"this robot's cameras, and at most {MAX_MESSAGE_BYTES // 2**20} MiB are sent: give them a "
                "smaller width and height in recap.toml, or run the policy on this machine"
            )

    def _open(self) -> Channel:
        try:
            channel = Channel(socket.create_connection(self._address, self._connect_s), self._connect_s)
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
            raise Failure(
                f"no policy server at {self.url} ({reason}): start 'recap policy serve' there"
            ) from None
        try:
            channel.prove(self._token, first=False)
        except WrongToken:
            channel.release()
            hint = "no token was given here" if self._token is None else "it has another token, or none"
            raise InputError(f"the policy server {self.url} refused the token ({hint})") from None
        except Disconnected as error:
            channel.release()
            raise Failure(f"what listens at {self.url} is no policy server, or hangs: {error}") from None
        return channel

    def _introduction(self, channel: Channel) -> dict[str, Any]:
        reply = self._exchange(channel, {"do": "hello", "protocol": PROTOCOL_VERSION})
        wrong = Failure(f"the policy server {self.url} is of another version of kinova-recap")
        if reply.get("protocol") != PROTOCOL_VERSION or reply.get("action") != list(ACTION_NAMES):
            raise wrong
        if not isinstance(reply.get("checkpoint"), str):
            raise wrong
        for key, most in (("execute_steps", MAX_PLAN_STEPS), ("observed_steps", MAX_OBSERVED_STEPS)):
            count = reply.get(key)
            if type(count) is not int or not 1 <= count <= most:
                raise wrong
        for key in ("cameras", "numbers"):
            names = reply.get(key)
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise wrong
        return reply

    def _ask_for_actions(
        self, what: str, observation: Mapping[str, Any], before: Sequence[Mapping[str, Any]] | None = None
    ) -> np.ndarray:
        with self._turn:
            if self._known is None or self._channel is None:
                raise Failure(f"the policy server {self.url} is not connected: reset(task) connects")
            message = {**self._message(observation), "do": what}
            seen = self._known["observed_steps"]
            if before is not None and seen > 1:
                message["before"] = [self._message(one) for one in before[1 - seen :]]
            reply = self._ask(message)
            try:
                self.subtask = text(reply, "subtask") if "subtask" in reply else None
                return actions_from(reply)
            except BadMessage as error:
                raise Failure(f"the policy server {self.url} sent {error}") from None

    def _message(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """What the policy reads of an observation."""
        numbers, cameras = self._needs["numbers"], self._needs["cameras"]
        try:
            return observation_message(observation, numbers, cameras, self._jpeg_quality)
        except KeyError as missing:
            name = missing.args[0]
            kind = "camera " if name in cameras else ""
            raise InputError(f"the policy needs {kind}{name!r}, which the observation lacks") from None

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._channel is not None
        return self._exchange(self._channel, request)

    def _exchange(self, channel: Channel, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request and its reply. A connection that failed is dropped: a late reply must find no taker."""
        try:
            channel.send(request)
            if not channel.wait(self._reply_s):
                raise Disconnected(f"no answer within {self._reply_s:g} s")
            reply = channel.receive()
        except (Disconnected, BadMessage) as error:
            self._drop()
            raise Failure(f"the policy server {self.url} was lost: {error}") from None
        if "error" in reply:
            kind = InputError if reply.get("kind") == "input" else Failure
            raise kind(f"policy server {self.url}: {reply['error']}")
        return reply

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.release()
            self._channel = None

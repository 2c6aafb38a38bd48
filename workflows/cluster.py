"""Joins a Ray cluster that runs already, after making sure that it can be of use, and leaves it running.

Whatever is wrong is said within seconds: Ray itself would try for minutes to reach a head that is not there,
and log each attempt. While a driver works, the head is watched, since Ray ends a process whose head is gone.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import Failure, InputError, one_line
from pipeline.workspace import Workspace
from workflows.cluster_address import AUTO, answers, refusal, split_address
from workflows.cluster_place import PLACE, require_place, shared_place
from workflows.local_ray import (
    DRIVER_ENVIRONMENT,
    WORKER_ENVIRONMENT,
    die_with_parent,
    have_ray_read_environment,
    machines,
    said_to_ray,
)
from workflows.termination import Termination

# Seconds in which a cluster answers.
_CONNECTING_S = 5.0
_HEALTH_S = 60.0
_POLL_S = 0.1
# What Ray logs after five seconds, and then goes on trying.
_NO_HEAD = "Failed to connect to GCS"
# Seconds in which a worker starts and looks at the workspace.
_LOOKING_S = 120.0
# Seconds without an answer after which the head is gone; Ray gives up, and ends the process, after 60.
HEAD_GONE_S = 20.0
_ASK_HEAD_S = 2.0
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass
class Cluster:
    """The cluster that this process has joined."""

    address: str
    _asked: float = field(default_factory=time.monotonic)
    _answered: float = field(default_factory=time.monotonic)

    def machines(self) -> list[dict[str, float]]:
        """What each machine that is there now has in all: ``CPU``, ``GPU``, ``memory`` (bytes)."""
        return machines()

    def require_head(self) -> None:
        """Raises ``Failure`` where the head has not answered for a while; asks it now and then only."""
        now = time.monotonic()
        if now - self._asked < _ASK_HEAD_S:
            return
        self._asked = now
        if answers(self.address, _CONNECTING_S):
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > HEAD_GONE_S:
            raise HeadLost(
                f"the head of the Ray cluster at {self.address} is gone: start the cluster again, and give "
                "the same command, which goes on by the finished steps"
            )


class HeadLost(Failure):
    """The head of the cluster is gone, and with it all that runs there."""


@contextmanager
def ray_cluster(address: str, workspace: Workspace, *, shared: bool = True) -> Iterator[Cluster]:
    """Within: Ray is the cluster at ``address`` (``HOST:PORT`` or ``auto``), each machine of which is fit.

    This machine must be a node of the cluster; every node needs this software and, with ``shared``, the
    workspace at the same path on a file system with locks. Raises ``InputError`` in one line for whatever of
    that is not so, and for a Ray or Python of another version.
    """
    with ExitStack() as stack:
        place = stack.enter_context(shared_place(workspace, shared))
        stack.enter_context(said_to_ray(DRIVER_ENVIRONMENT | _authentication()))
        if address != AUTO:
            _require_head(address)
            _require_node(address)
        import ray

        termination = stack.enter_context(Termination())
        have_ray_read_environment()
        try:
            context: Any = ray.init(
                address=address,
                namespace="recap",
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {**WORKER_ENVIRONMENT, PLACE: place.to_json()}},
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, one_line(error, None)) from error
        lost = False
        try:
            termination.take()
            _require_same_place()
            yield Cluster(context.address_info["gcs_address"])
        except HeadLost:
            lost = True
            raise
        finally:
            if not lost:
                termination.put_off()
                ray.shutdown()


def _authentication() -> dict[str, str]:
    """Has Ray use the token that is there, if any: to a named address it shows none unless it is told to."""
    default = Path.home() / ".ray" / "auth_token"
    there = any(os.environ.get(name) for name in _TOKENS) or default.is_file()
    return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE") or "token"} if there else {}


def _require_head(address: str) -> None:
    """Raises ``InputError`` unless a Ray head answers there and takes us: the command that Ray has for it."""
    wrong = refusal(address, _CONNECTING_S)
    if wrong is not None:
        raise _no_cluster(address, wrong)
    code, said = _health(address)
    if "AuthToken" in said or "AuthenticationError" in said:
        raise InputError(
            f"the Ray cluster at {address} does not take our token: give every machine the file "
            "~/.ray/auth_token of the head, or the same RAY_AUTH_TOKEN (docs/clusters.md)"
        )
    if code is None:
        raise _no_cluster(address, "what is there does not answer as the head of one")
    if code:
        raise _no_cluster(address, " ".join((said.strip().splitlines() or ["no answer"])[-1].split()))


def _health(address: str) -> tuple[int | None, str]:
    """The exit status of the command that Ray has for asking a head, and what it printed.

    The status is ``None`` where it came to no end, since what is there is no head.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    # In a process of its own, since within ours nothing ends a call that waits.
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(command, stdout=output, stderr=output) as asking,
    ):
        ends = time.monotonic() + _HEALTH_S
        while True:
            with suppress(subprocess.TimeoutExpired):
                asking.wait(_POLL_S)
            said = os.pread(output.fileno(), 2**20, 0).decode(errors="replace")
            if asking.returncode is not None:
                return asking.returncode, said
            if _NO_HEAD in said or time.monotonic() > ends:
                asking.kill()
                return None, said


def _require_node(address: str) -> None:
    """Raises ``InputError`` unless this machine is a node of the cluster; Ray looks for a minute."""
    import socket

    import psutil

    host, port = split_address(address)
    with_ports = []
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet":
            with_ports += [a for a in process.info["cmdline"] or [] if a.startswith("--gcs-address=")]
    try:
        hosts = {host, *(str(found[4][0]) for found in socket.getaddrinfo(host, port))}
    except OSError:
        hosts = {host}
    loopback = any(name == "localhost" or name.startswith("127.") or name == "::1" for name in hosts)
    for said in with_ports:
        head, _, its_port = said.partition("=")[2].rpartition(":")
        if its_port == str(port) and (loopback or head.strip("[]") in hosts):
            return
    raise InputError(
        f"this machine is not a node of the Ray cluster at {address}: run 'ray start --address={address}' "
        "here first, or use 'ray job submit'"
    )


def _require_same_place() -> None:
    """Has every machine of the cluster look; raises what the first of them raises that is not fit."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(_look)
    looking: dict[Any, str] = {}
    for node in ray.nodes():
        if node["Alive"]:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = look.options(num_cpus=0, max_retries=1, scheduling_strategy=where)
            looking[options.remote()] = str(node["NodeManagerHostname"])
    for reference, name in looking.items():
        try:
            ray.get(reference, timeout=_LOOKING_S)
        except RayTaskError as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, InputError):
                raise InputError(str(cause)) from error
            raise InputError(_unfit(name, cause)) from error
        except GetTimeoutError as error:
            raise Failure(f"machine {name} of the cluster has not answered for {_LOOKING_S:g} s") from error
        except RayError:
            # It was lost a moment ago; the steps go elsewhere.
            continue


def _look() -> None:
    """The Ray task that looks at the workspace from the machine that it runs on."""
    die_with_parent()
    require_place()


def _unfit(name: str, error: BaseException) -> str:
    text = " ".join(str(error).split())
    found = text.find("No module named")
    if found >= 0:
        return (
            f"machine {name} of the cluster lacks this software ({text[found:][:60]}): install it everywhere"
        )
    return f"machine {name} of the cluster cannot work ({type(error).__name__}: {text[:200]})"


def _no_cluster(address: str, why: str) -> InputError:
    return InputError(
        f"there is no Ray cluster at {address} ({why[:200]}): start one with 'ray start --head', or "
        "leave out --ray-address and RAY_ADDRESS"
    )

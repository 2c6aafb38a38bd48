"""A real Ray cluster of two nodes on this machine: two raylets with processes and ports of their own.

Both nodes have the machine's address and files; what differs between real machines, a workspace that is not
there or that is another one, is put there by the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from workflows.local_ray import THREAD_SETTINGS

TOKEN = "0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).parents[2]
STARTING_S = 120.0
_MEMORY = 80 * 2**20


def environment(token: str = TOKEN) -> dict[str, str]:
    """What a process needs to belong to the cluster, or to join it."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    return {**here, **quiet, **dict.fromkeys(THREAD_SETTINGS, "1"), "RAY_AUTH_TOKEN": token}


@dataclass
class Node:
    """One node: the process of ``ray start --block``, and the name that it has in the cluster."""

    name: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL to all of the node's own processes at once, as a machine that loses its power."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            # Workers have process groups of their own.
            children = psutil.Process(self.process.pid).children(recursive=True)
            os.killpg(self.process.pid, signal.SIGKILL)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.wait()


@dataclass
class TwoNodes:
    """The cluster; ``address`` is HOST:PORT of its head."""

    folder: Path
    cpus: int = 1
    nodes: list[Node] = field(default_factory=list)
    address: str = ""

    def start(self) -> None:
        """Starts a head and a second node with ``cpus`` cores each."""
        ports = _free_ports(2)
        command = ["--head", f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"]
        head = self._start("head", [*command, "--include-dashboard=false", f"--temp-dir={self.folder}"])
        self.address = re.findall(r"--address='([^']+)'", head)[0]
        self.add()

    def add(self) -> Node:
        """Starts one more node and returns it."""
        self._start(f"node{len(self.nodes)}", [f"--address={self.address}"])
        return self.nodes[-1]

    def stop(self) -> None:
        """Kills all nodes, the head last."""
        while self.nodes:
            self.nodes.pop().kill()

    def _start(self, name: str, options: list[str]) -> str:
        """What the node prints when it runs."""
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--block"]
        command += [f"--num-cpus={self.cpus}", f"--node-name={name}", f"--object-store-memory={_MEMORY}"]
        # A resource of the node's name, for tests that say where something runs.
        command += [f'--resources={{"{name}": 100}}', "--disable-usage-stats"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                # To a head that is named Ray shows its token only where it is told to.
                env=environment() | {"RAY_AUTH_MODE": "token"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # It ends its own processes then: none is left where the tests are killed.
                preexec_fn=_end_with_parent if sys.platform.startswith("linux") else None,  # noqa: PLW1509 - see there
            )
        self.nodes.append(Node(name, process))
        deadline = time.monotonic() + STARTING_S
        while "Ray runtime started" not in (text := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the Ray node {name} did not start: {text[-2000:]}")
            time.sleep(0.05)
        return text


@contextlib.contextmanager
def two_nodes(cpus: int = 1) -> Iterator[TwoNodes]:
    """Within: the cluster runs."""
    # Not below pytest's folders: Ray's sockets have paths of at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        cluster = TwoNodes(Path(folder), cpus)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def _end_with_parent() -> None:
    """In the child, before the program: has the kernel send it SIGTERM when its parent ends.

    Two system calls and no lock, so that a thread of the parent's can be in its way in theory only.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("", 0))
        return [int(one.getsockname()[1]) for one in sockets]

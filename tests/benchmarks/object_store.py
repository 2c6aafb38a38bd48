"""How fast a workspace goes to a store and back, on an S3 server on loopback and in a folder.

``python -m tests.benchmarks.object_store [--quick]``. The last line is JSON. The server is a Python program
in another process of the same machine, so requests a second are its own limit, not that of a real store.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from workflows.remote_sync import Sync, SyncResult

MIB = 2**20
_SERVER = """
import logging, time
from moto.server import ThreadedMotoServer
logging.disable(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(1e6)
"""


def main() -> None:
    """Prints a line per measurement and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 steps in place of 10,000")
    steps = 1_000 if parser.parse_args().quick else 10_000
    numbers: dict[str, Any] = {"steps": steps}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "store").mkdir()
        many, large = Workspace(root / "many"), Workspace(root / "large")
        make_steps(many, steps, files=2, size=2_000)
        make_steps(large, 8, files=4, size=16 * MIB)
        server, s3 = start_server()
        try:
            for kind, base in (("folder", f"file://{root}/store"), ("s3", s3)):
                for name, workspace in (("many", many), ("large", large)):
                    (root / "store" / name).mkdir(exist_ok=True)
                    measure(numbers, f"{kind}_{name}", workspace, f"{base}/{name}", root / kind / name)
        finally:
            server.kill()
            server.wait()
    print(json.dumps(numbers))


def measure(numbers: dict[str, Any], name: str, workspace: Workspace, url: str, there: Path) -> None:
    """Push, push again, pull elsewhere, pull again."""
    here, elsewhere = Sync(workspace, ObjectStore(url)), Sync(Workspace(there), ObjectStore(url))
    for direction, sync in (("push", here.push), ("again", here.push), ("pull", elsewhere.pull)):
        began = time.monotonic()
        result: SyncResult = sync()
        seconds = time.monotonic() - began
        assert not result.faults and not result.conflicts
        if direction == "again":
            assert not result.moved
            numbers[f"{name}_no_change_s"] = round(seconds, 2)
            print(f"{name}: a push with no change takes {seconds:.2f} s")
            continue
        rate, objects = result.traffic.bytes / MIB / seconds, result.traffic.objects / seconds
        numbers[f"{name}_{direction}_mib_s"] = round(rate, 1)
        numbers[f"{name}_{direction}_objects_s"] = round(objects)
        print(
            f"{name}: {direction} of {result.traffic.objects} objects, {result.traffic.bytes / MIB:.0f} MiB: "
            f"{seconds:.1f} s, {rate:.0f} MiB/s, {objects:.0f} objects/s"
        )


def make_steps(workspace: Workspace, count: int, files: int, size: int) -> None:
    """Published steps of random bytes, written directly: computing them is not what is measured."""
    workspace.create()
    for number in range(count):
        key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
        folder = workspace.steps / f"step_{number % 10}" / key
        folder.mkdir(parents=True)
        facts = {}
        for file in range(files):
            data = os.urandom(size)
            (folder / f"{file}.bin").write_bytes(data)
            facts[f"{file}.bin"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": size}
        manifest = {
            "name": folder.parent.name,
            "key": key,
            "files": facts,
            "result": None,
            "seconds": 1.0,
            "finished": "2030-01-01T00:00:00+00:00",
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))


def start_server() -> tuple[subprocess.Popen[str], str]:
    """An S3 server in a process of its own, and a place in it."""
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = f"http://127.0.0.1:{int(server.stdout.readline())}"
    os.environ.update(
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_REGION="us-east-1",
        AWS_ENDPOINT_URL=address,
        AWS_ALLOW_HTTP="true",
    )
    urllib.request.urlopen(urllib.request.Request(f"{address}/bench", method="PUT")).close()
    return server, "s3://bench"


if __name__ == "__main__":
    main()

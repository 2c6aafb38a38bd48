"""Stores to test with: a server that speaks the S3 protocol on loopback, and a folder; what is in them."""

from __future__ import annotations

import functools
import hashlib
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from workflows.remote_databases import NAMES, rows_digest
from workflows.remote_layout import blob_object, parse_record, step_of
from workflows.step_store import StepStore


@functools.cache
def _server() -> str:
    """The server's address; it ends with the process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    return f"http://127.0.0.1:{port}"


def credentials() -> dict[str, str]:
    """The environment in which the server's buckets can be reached."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": _server(),
        "AWS_ALLOW_HTTP": "true",
    }


def new_bucket() -> str:
    """Makes a bucket; the address of a folder in it."""
    name = f"lab-{uuid.uuid4().hex[:12]}"
    urllib.request.urlopen(urllib.request.Request(f"{_server()}/{name}", method="PUT")).close()
    return f"s3://{name}/workspace"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place on the S3 server, which this process can reach."""
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    return new_bucket()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """An empty place in a folder."""
    (tmp_path / "store").mkdir()
    return f"file://{tmp_path}/store"


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty store of each kind."""
    return str(request.getfixturevalue(request.param))


def stored_files(root: Path) -> dict[str, tuple[str, object]]:
    """All of a workspace that travels: contents, links, the rows of databases, by path."""
    found: dict[str, tuple[str, object]] = {}
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif name in NAMES:
            found[name] = ("rows", rows_digest(path))
        elif not name.endswith((".sqlite-wal", ".sqlite-shm")):
            found[name] = ("file", hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        hidden = any(part.startswith(".") for part in place.parts)
        travels = not hidden and place.parts[0] != "cache" and place.name != "completions.jsonl"
        if travels and (path.is_symlink() or path.is_file()):
            yield path


def require_sound(store: ObjectStore) -> int:
    """Every step that the store lists is there in full; how many there are."""
    steps = 0
    for one in store.listing("steps"):
        step = step_of(one.path)
        data = store.read(one.path)
        assert step is not None and data is not None
        for content in parse_record(step, data, one.path).large.values():
            blob = store.read(blob_object(content.sha256))
            assert blob is not None and hashlib.sha256(blob).hexdigest() == content.sha256
        steps += 1
    return steps


def require_whole(root: Path) -> int:
    """Every step that the workspace lists is what its manifest says; how many there are."""
    store = StepStore(root / "steps")
    published = store.published()
    assert [fault for result in published for fault in store.verify(result)] == []
    for path in Workspace(root).episodes.glob("*/*.h5"):
        assert path.stat().st_size > 0
    return len(published)

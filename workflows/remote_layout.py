"""How a workspace lies in a store: the names of objects, and what of them is believed.

::

    recap.json                           that this is a workspace, which one, and in which format
    blobs/<2 digits>/<sha256>            files of steps, each content once
    steps/<name>/<key>.json              a step's manifest and its small files; written after its blobs
    episodes/<task>/<id>.h5/<sha256>     recorded episodes
    snapshots/<name>/<sha256>            frozen labels
    databases/<name>                     labels.sqlite ...: a line of JSON, then the SQLite file
    files.json                           links in datasets/ and reports/, evaluations/, recap.toml,
                                         value-model.json
    lease.json                           the driver that works in this workspace
    replaced/<name>/<n>                  databases that a person chose to overwrite

All but databases, files.json and the lease are never changed. Whoever can write to the store could put
anything there: names, sizes and hashes are checked, and nothing of it is ever unpickled or run.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NoReturn

from pipeline.errors import InputError
from pipeline.object_store import Damaged, ObjectStore
from workflows.step_recipe import KEY_LENGTH, StepAddress

FORMAT = 1
MARKER, FILES, LEASE = "recap.json", "files.json", "lease.json"
STEPS, EPISODES, SNAPSHOTS, DATABASES, REPLACED = "steps", "episodes", "snapshots", "databases", "replaced"
SMALL_BYTES = 16 * 2**10
"""Files up to this size travel inside the step's object: most steps are then one object."""
_SMALL_TOGETHER = 512 * 2**10
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_STEP = re.compile(rf"steps/([a-z][a-z0-9_]{{0,99}})/([0-9a-f]{{{KEY_LENGTH}}})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """What a file holds: its SHA-256 and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class StepRecord:
    """A published step as it travels: its manifest as text, its files, and the content of the small ones."""

    address: StepAddress
    manifest: bytes
    files: Mapping[str, Content]
    small: Mapping[str, bytes]

    @property
    def large(self) -> dict[str, Content]:
        """The files that travel as blobs."""
        return {name: content for name, content in self.files.items() if name not in self.small}

    def to_bytes(self) -> bytes:
        """The object in the store."""
        small = {name: base64.b64encode(data).decode() for name, data in sorted(self.small.items())}
        return json.dumps({"format": FORMAT, "manifest": self.manifest.decode(), "small": small}).encode()


def step_object(step: StepAddress) -> str:
    """The name of a step's object."""
    return f"{STEPS}/{step.name}/{step.key}.json"


def blob_object(sha256: str) -> str:
    """The name of a blob."""
    return f"blobs/{sha256[:2]}/{sha256}"


def step_of(path: str) -> StepAddress | None:
    """Which step an object's name stands for; ``None`` for a name that stands for none."""
    match = _STEP.fullmatch(path)
    return None if match is None else StepAddress(match[1], match[2])


def file_of(path: str) -> tuple[str, str] | None:
    """Of an episode's or a snapshot's object: the file's path in the workspace, and its SHA-256."""
    *parts, sha256 = path.split("/")
    depth = {EPISODES: 3, SNAPSHOTS: 2}.get(parts[0] if parts else "")
    named = all(_NAME.fullmatch(part) for part in parts)
    suffix = ".h5" if depth == 3 else ".parquet"
    if len(parts) != depth or not named or not _SHA256.fullmatch(sha256) or not parts[-1].endswith(suffix):
        return None
    return "/".join(parts), sha256


def step_record(address: StepAddress, manifest: bytes, small: Mapping[str, bytes], place: str) -> StepRecord:
    """A record, checked. Raises :class:`Damaged` naming ``place`` where it contradicts itself."""
    document = plain_json(manifest, place)
    if (document.get("name"), document.get("key")) != (address.name, address.key):
        raise Damaged(
            f"{place} is the manifest of another step: {document.get('name')}/{document.get('key')}"
        )
    listed = document.get("files")
    if not isinstance(listed, dict) or not {"result", "seconds", "finished"} <= document.keys():
        raise Damaged(f"{place} is no manifest of a step")
    files = {name: _content(name, facts, place) for name, facts in listed.items()}
    taken = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    for name in files:
        if not _is_inside(name):
            raise Damaged(f"{place} names the file {name!r}, which does not lie in the step's folder")
        if name in taken or name == "manifest.json":
            raise Damaged(f"{place} names the file {name!r}, a name that is taken")
    for name, data in small.items():
        if name not in files or files[name].bytes != len(data):
            raise Damaged(f"{place} holds {len(data)} bytes of {name!r}, which is not what its manifest says")
    return StepRecord(address, manifest, files, small)


def parse_record(address: StepAddress, data: bytes, place: str) -> StepRecord:
    """The record in an object of the store. Raises :class:`Damaged` naming ``place``."""
    document = plain_json(data, place)
    manifest, small = document.get("manifest"), document.get("small")
    if document.get("format") != FORMAT or not isinstance(manifest, str) or not isinstance(small, dict):
        raise Damaged(f"{place} is no step that this software knows (format {document.get('format')!r})")
    try:
        decoded = {name: base64.b64decode(text, validate=True) for name, text in small.items()}
    except (binascii.Error, TypeError, ValueError) as error:
        raise Damaged(f"{place} is damaged: {error}") from error
    return step_record(address, manifest.encode(), decoded, place)


def choose_small(files: Mapping[str, Content]) -> list[str]:
    """The files that travel inside the step's object: the smallest first, until there are enough."""
    chosen, together = [], 0
    for name, content in sorted(files.items(), key=lambda item: (item[1].bytes, item[0])):
        together += content.bytes
        if content.bytes > SMALL_BYTES or together > _SMALL_TOGETHER:
            break
        chosen.append(name)
    return chosen


def plain_json(data: bytes, place: str) -> dict[str, Any]:
    """A JSON object. Raises :class:`Damaged` naming ``place`` where it is none."""
    try:
        document = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{place} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise Damaged(f"{place} is damaged: it is no JSON object")
    return document


def marked(store: ObjectStore) -> str | None:
    """The random name that a store was given when it was begun; ``None`` where no workspace is in it.

    Another one than last time: the store was emptied and begun anew. Those of earlier versions have the name
    ''. Raises ``InputError`` for one of a later version.
    """
    data = store.read(MARKER, 2**16)
    if data is None:
        return None
    document = plain_json(data, f"{store.url}/{MARKER}")
    if document.get("format") != FORMAT:
        raise InputError(
            f"{store.url} has format {document.get('format')!r}, this software knows {FORMAT}: update it"
        )
    return str(document.get("id", ""))[:100]


def mark(store: ObjectStore) -> str:
    """Makes the store a workspace's, where it is none yet; its name as :func:`marked` says it."""
    found = marked(store)
    if found is None:
        store.create(MARKER, json.dumps({"format": FORMAT, "id": uuid.uuid4().hex}).encode())
        # Another may have begun it at the same time.
        found = marked(store)
    return found or ""


def is_name(text: object) -> bool:
    """Whether a text from the store can be the name of a file."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_sha256(text: object) -> bool:
    """Whether a value from the store is a SHA-256."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def _is_inside(name: str) -> bool:
    """Whether a file of that name lies in the folder that it is put into, on any file system."""
    parts = PurePosixPath(name).parts
    if not parts or name != "/".join(parts) or {".", ".."} & set(parts) or name.startswith("/"):
        return False
    try:
        return "\0" not in name and all(len(part.encode()) <= 255 for part in parts) and len(name) <= 1000
    except UnicodeEncodeError:
        return False


def _content(name: str, facts: object, place: str) -> Content:
    if isinstance(facts, dict):
        sha256, size = facts.get("sha256"), facts.get("bytes")
        if is_sha256(sha256) and isinstance(size, int) and not isinstance(size, bool) and size >= 0:
            return Content(str(sha256), size)
    raise Damaged(f"{place} says of {name!r} neither SHA-256 nor size")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")

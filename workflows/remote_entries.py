"""Links in ``datasets/`` and ``reports/``, and small files of the workspace: one list of them in the store.

The list is one object, replaced only where it is still what was read. An entry is ``link:<target>`` or
``file:<sha256>:<bytes>``, whose content is a blob; it says who wrote it and when.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.durable_files import fsync_path, publish
from pipeline.object_store import Damaged, ObjectStore, Version
from workflows.remote_layout import FILES, FORMAT, Content, blob_object, is_name, is_sha256, plain_json
from workflows.remote_memory import SyncMemory
from workflows.remote_transport import Transport
from workflows.value_ensemble import ENSEMBLE_FILE

SETTINGS = "recap.toml"
_SINGLE = (SETTINGS, ENSEMBLE_FILE, "simulation/annotator-notes.jsonl")
_LINKED = ("datasets", "reports")
_PLANS = "evaluations"  # of policies on the arm: without its plan an evaluation cannot go on
_TARGET = re.compile(r"\.\./steps/[a-z][a-z0-9_]*/[0-9a-f]{32}(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_LARGEST = 2**27


@dataclass(frozen=True)
class Entry:
    """One link or file: what it is, who wrote it into the store last, and when (UTC)."""

    what: str
    by: str = ""
    at: str = ""

    @property
    def content(self) -> Content | None:
        """A file's content; ``None`` for a link."""
        if not self.what.startswith("file:"):
            return None
        _, sha256, size = self.what.split(":")
        return Content(sha256, int(size))


def local_entries(root: Path, memory: SyncMemory) -> dict[str, Entry]:
    """The links and files of the workspace that travel, by their path in it."""
    found = {}
    places = [root / name for name in _SINGLE]
    places += [path for folder in (*_LINKED, _PLANS) for path in sorted((root / folder).glob("[!.]*"))]
    for path in places:
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            what = f"link:{path.readlink()}"
        elif path.is_file():
            content = memory.content(name)
            what = f"file:{content.sha256}:{content.bytes}"
        else:
            continue  # such as an exported dataset: it can be exported again
        if _is_sound(name, what):
            found[name] = Entry(what)
    return found


def stored_entries(store: ObjectStore) -> tuple[dict[str, Entry], Version | None]:
    """The store's list and its version. Raises :class:`Damaged` for an entry that leads elsewhere."""
    found = store.read_version(FILES, _LARGEST)
    if found is None:
        return {}, None
    place = f"{store.url}/{FILES}"
    document = plain_json(found[0], place)
    listed = document.get("files")
    if document.get("format") != FORMAT or not isinstance(listed, dict):
        raise Damaged(f"{place} is no list that this software knows")
    entries = {}
    for name, said in listed.items():
        what = said.get("what") if isinstance(said, dict) else None
        if not isinstance(what, str) or not _is_sound(name, what):
            raise Damaged(f"{place} names {name!r} as {what!r}, which is no place in a workspace")
        by, at = (" ".join(str(said.get(key, "")).split())[:100] for key in ("by", "at"))
        entries[name] = Entry(what, by, at)
    return entries, found[1]


def send_entries(
    store: ObjectStore, entries: Mapping[str, Entry], former: Mapping[str, Entry], version: Version | None
) -> bool:
    """Writes the list with these entries besides the former ones; ``False`` where it is another by now."""
    files = {name: asdict(entry) for name, entry in sorted({**former, **entries}.items())}
    data = json.dumps({"format": FORMAT, "files": files}, indent=1).encode()
    if version is None:
        return store.create(FILES, data) is not None
    return store.replace(FILES, data, version) is not None


def bring_entry(transport: Transport, name: str, entry: Entry) -> None:
    """Makes a link or file here what the store's list says, in one rename."""
    final = transport.root / name
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.part")
    content = entry.content
    try:
        if content is None:
            aside.symlink_to(entry.what.removeprefix("link:"))
            aside.replace(final)
            fsync_path(final.parent)
        else:
            blob = blob_object(content.sha256)
            transport.store.download(blob, content.bytes, content.sha256, aside)
            publish(aside, final)
            transport.traffic.add(content.bytes)
    finally:
        aside.unlink(missing_ok=True)


def _is_sound(name: object, what: str) -> bool:
    """Whether a workspace can have such an entry: nothing else is sent, and nothing else is believed."""
    if not isinstance(name, str):
        return False
    folder, _, leaf = name.partition("/")
    linkable = folder in _LINKED and is_name(leaf)
    if what.startswith("link:"):
        return linkable and _TARGET.fullmatch(what.removeprefix("link:")) is not None
    kind, *rest = what.split(":")
    if kind != "file" or len(rest) != 2 or not is_sha256(rest[0]) or not re.fullmatch(r"\d{1,15}", rest[1]):
        return False
    suffix = {"reports": ".html", _PLANS: ".json"}.get(folder)
    return name in _SINGLE or (suffix is not None and is_name(leaf) and leaf.endswith(suffix))

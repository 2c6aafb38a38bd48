"""A bucket, or a folder that stands for one: whole objects, listed, read, written, replaced on a condition.

Whatever obstore opens: ``s3://bucket/prefix`` (Amazon, MinIO, Ceph), ``gs://``, ``az://``, ``file:///folder``.
Credentials come from the environment or the machine's role, never from a file of ours. Nothing here deletes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import Failure, InputError
from pipeline.file_lock import locked

SCHEMES = ("s3", "gs", "az", "file")
# A request each: a connection that breaks costs no more than this.
_RANGE_BYTES = 32 * 2**20
# Over this, an upload goes in parts.
_PART_BYTES = 16 * 2**20
_HINTS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; AWS_ALLOW_HTTP=true for http://",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
    "file": "the folder's permissions",
}


class Damaged(Failure):
    """One object is not what it should be; the others may be well. The message names it."""


@dataclass(frozen=True)
class Version:
    """Which content an object has, as the store tells it; what :meth:`ObjectStore.replace` compares."""

    e_tag: str
    version: str | None = None


@dataclass(frozen=True)
class StoredObject:
    """An object in a listing: its size in bytes and when it was written, by the store's clock."""

    path: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class ObjectStore:
    """The objects below ``url``. Building one touches nothing; picklable. Threads may share it.

    Its methods raise ``InputError`` where there is no such bucket or it refuses the credentials, and
    ``Failure`` where it cannot be reached; :class:`Damaged` where an object is not what it should be.
    """

    url: str

    def __post_init__(self) -> None:
        """Refuses addresses that nothing opens, and those that hold a password."""
        check_url(self.url)

    def listing(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object below the folder ``prefix``, in no order; a request per thousand."""
        import obstore

        with self._told():
            for chunk in obstore.list(self._opened, prefix or None, chunk_size=1000):
                for one in chunk:
                    yield StoredObject(one["path"], one["size"], one["last_modified"])

    def read(self, path: str, at_most: int = 2**28) -> bytes | None:
        """An object's content, or ``None`` where there is none. Larger ones than ``at_most`` are refused."""
        found = self.read_version(path, at_most)
        return None if found is None else found[0]

    def read_version(self, path: str, at_most: int = 2**28) -> tuple[bytes, Version] | None:
        """An object's content and its version, of one moment; ``None`` where there is none."""
        import obstore

        try:
            with self._told():
                found = obstore.get(self._opened, path)
                if found.meta["size"] > at_most:
                    raise Damaged(
                        f"{self.url}/{path} has {found.meta['size']} bytes, more than such a file has"
                    )
                return bytes(found.bytes()), _version(found.meta)
        except FileNotFoundError:
            return None

    def read_start(self, path: str, size: int) -> tuple[bytes, Version] | None:
        """The first ``size`` bytes of an object (all, where it has fewer) and its version, of one moment."""
        import obstore

        try:
            with self._told():
                found = obstore.get(self._opened, path, options={"range": (0, size)})
                return bytes(found.bytes()), _version(found.meta)
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        import obstore

        try:
            with self._told():
                obstore.head(self._opened, path)
        except FileNotFoundError:
            return False
        return True

    def write(self, path: str, data: bytes | Path) -> None:
        """Makes these bytes, or those of a file, the object's content: it appears whole or not at all."""
        import obstore

        with self._told(writing=True):
            obstore.put(self._opened, path, data, chunk_size=_PART_BYTES, max_concurrency=4)

    def create(self, path: str, data: bytes) -> Version | None:
        """Writes a new object; ``None``, and nothing is changed, where there is one of that name."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._told(writing=True):
                return _version(obstore.put(self._opened, path, data, mode="create", use_multipart=False))
        except AlreadyExistsError:
            return None

    def replace(self, path: str, data: bytes, former: Version) -> Version | None:
        """Writes the object unless its version is another than ``former``; then ``None``, and no change."""
        import obstore
        from obstore.exceptions import PreconditionError

        if self._folder is not None:
            return self._replace_file(path, data, former)
        mode: Any = {"e_tag": former.e_tag}
        if former.version is not None:
            mode["version"] = former.version
        try:
            with self._told(writing=True):
                return _version(obstore.put(self._opened, path, data, mode=mode, use_multipart=False))
        except (PreconditionError, FileNotFoundError):
            return None

    def download(self, path: str, size: int, sha256: str, target: Path) -> None:
        """Writes an object to the new file ``target``, which is removed again where it is not what is said.

        Not flushed to the disk. Raises :class:`Damaged` naming the object where it is gone, or has another
        size or SHA-256; ``OSError`` where the file cannot be written.
        """
        import obstore

        place = f"{self.url}/{path}"
        with target.open("xb") as stream:
            try:
                with self._told():
                    # An empty object has no range.
                    options: Any = {"range": (0, _RANGE_BYTES)} if size else None
                    found = obstore.get(self._opened, path, options=options)
                    if found.meta["size"] != size:
                        raise Damaged(f"{place} has {found.meta['size']} bytes, and {size} are named")
                    digest, data = hashlib.sha256(), memoryview(found.bytes())
                    while True:
                        digest.update(data)
                        stream.write(data)
                        start = stream.tell()
                        if start >= size:
                            break
                        end = min(size, start + _RANGE_BYTES)
                        data = memoryview(obstore.get_range(self._opened, path, start=start, end=end))
                if digest.hexdigest() != sha256:
                    raise Damaged(f"{place} is damaged: its content has another SHA-256 than it should")
            except FileNotFoundError as error:
                target.unlink(missing_ok=True)
                raise Damaged(f"{place} is named in the store, but is not there") from error
            except BaseException:
                target.unlink(missing_ok=True)
                raise

    @property
    def _opened(self) -> Any:
        return _open(self.url)

    @property
    def _folder(self) -> Path | None:
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def _replace_file(self, path: str, data: bytes, former: Version) -> Version | None:
        """As :meth:`replace`, in a folder, which compares nothing by itself."""
        import obstore

        assert self._folder is not None
        with locked(self._folder / ".replacing.lock"), self._told(writing=True):
            try:
                if _version(obstore.head(self._opened, path)) != former:
                    return None
            except FileNotFoundError:
                return None
            return _version(obstore.put(self._opened, path, data))

    @contextmanager
    def _told(self, *, writing: bool = False) -> Iterator[None]:
        """Within: the store's errors as one line; ``FileNotFoundError`` where there is nothing to read."""
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        scheme = urlsplit(self.url).scheme
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if writing or "NoSuchBucket" in str(error):
                raise InputError(
                    f"there is no {self.url}: make the bucket, or correct the address"
                ) from error
            raise
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise InputError(
                f"{self.url} refuses access: see the credentials in the environment ({_HINTS[scheme]})"
            ) from error
        except BaseError as error:
            raise Failure(f"{self.url} cannot be used: {_short(error)} (see {_HINTS[scheme]})") from error


def check_url(url: str) -> None:
    """Raises ``InputError`` unless ``url`` is an address of a known kind without a password in it."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not (parts.netloc or parts.scheme == "file"):
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InputError(f"{url!r} is no address of a store: it begins with one of {known}")
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise InputError(f"{url!r} must be file:/// and then a folder's whole path")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "the store's address must hold no credentials and no options: they come from the environment "
            f"({_HINTS[parts.scheme]})"
        )
    if ".." in parts.path.split("/"):
        raise InputError(f"{url!r} must hold no '..'")


@lru_cache(maxsize=8)
def _open(url: str) -> Any:
    from obstore.store import from_url

    scheme = urlsplit(url).scheme
    options: dict[str, Any] = {}
    if scheme == "file":
        folder = Path(unquote(urlsplit(url).path))
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: make it first, or mount its disk")
        return from_url(url)
    if scheme == "s3":
        # The store then refuses what did not arrive as it was sent.
        options["config"] = {"aws_checksum_algorithm": "sha256"}
    retries: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=90)}
    client: Any = {"timeout": "300s", "connect_timeout": "10s"}
    # Given here, since obstore reads no options of the connection from the environment beside these.
    if os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1"):
        client["allow_http"] = True
    try:
        return from_url(url, client_options=client, retry_config=retries, **options)
    except Exception as error:
        raise InputError(f"{url} cannot be opened: {_short(error)} (see {_HINTS[scheme]})") from error


def _version(meta: Any) -> Version:
    return Version(meta["e_tag"] or "", meta["version"])


def _short(error: Exception) -> str:
    """An error of the store's without the dump of its insides."""
    text = " ".join(str(error).split("Debug source:")[0].split())
    return text if len(text) <= 300 else f"{text[:300]} ..."

"""``[remote]`` of ``recap.toml``: the store that a workspace is kept in besides its folder.

::

    [remote]
    url = "s3://bucket/lab"     # or gs://, az://account/container, file:///folder; see docs/object-store.md
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import InputError


@dataclass(frozen=True)
class RemoteSection:
    """``[remote]``. Holds no credentials: they come from the environment, and the file travels."""

    url: str = ""  # empty: there is none

    def __post_init__(self) -> None:
        """Rejects what is no address of a store, and an address with a password in it."""
        if not isinstance(self.url, str):
            raise InputError(f"remote.url must be a text, not {self.url!r}")
        if self.url:
            from pipeline.object_store import check_url

            check_url(self.url)

"""Names that are safe as files and folders: an episode's id, and the folder of its task."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from pipeline.errors import InputError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_SLUG_LENGTH = 60


def check_id(episode_id: str) -> str:
    """Returns ``episode_id`` if it is safe as a file name; otherwise raises ``InputError``."""
    if not _ID.fullmatch(episode_id):
        raise InputError(
            f"episode id {episode_id!r} is not safe as a file name: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, at most 120"
        )
    return episode_id


def is_safe_id(episode_id: str) -> bool:
    """Whether :func:`check_id` takes it."""
    return _ID.fullmatch(episode_id) is not None


def task_slug(task: str) -> str:
    """A folder name for a task, of ``a-z0-9-`` only, so it can never leave its parent folder.

    Tasks that differ have different slugs: where letters are lost, a hash of the task is added.
    """
    if not task.strip():
        raise InputError("a task needs some text")
    ascii_text = unicodedata.normalize("NFKD", task).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:_SLUG_LENGTH].strip("-")
    if slug.replace("-", " ") == task:
        return slug
    digest = hashlib.sha256(task.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{slug}-{digest}" if slug else f"task-{digest}"

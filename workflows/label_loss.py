"""Whether labels, or labelled episodes, were lost: what other files tell of those that are not there."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pipeline.errors import InputError
from pipeline.workspace import Workspace


def require_labels_not_lost(workspace: Workspace) -> None:
    """Raises ``InputError``, with what to do, where ``labels.sqlite`` is gone or empty and once was not.

    Otherwise people would be asked to label everything again, as in a new lab.
    """
    path = workspace.labels_path
    if path.is_file() and path.stat().st_size:
        return
    snapshots = sorted(
        (workspace.root / "snapshots").glob("labels-*.parquet"), key=lambda found: found.stat().st_mtime
    )
    if not snapshots:
        return
    raise InputError(
        f"{path} is missing or empty, but its labels were frozen in snapshots/: put the file back from a "
        "backup; without one, who labelled what when they were frozen last comes back by 'recap label import "
        f"{snapshots[-1]} --partial'"
    )


def episodes_lost(workspace: Workspace, labelled: Iterable[str], there: Collection[str]) -> str:
    """A sentence where episodes were labelled (not excluded) and are not ``there`` any more; else empty."""
    gone = sorted(set(labelled) - set(there))
    if not gone:
        return ""
    many = (
        f"{len(gone)} labelled episodes, such as {gone[0]}, are" if len(gone) > 1 else f"episode {gone[0]} is"
    )
    return (
        f"{many} gone from {workspace.episodes} or cannot be read, and left out: put what is missing back "
        "from a copy, see 'recap episodes check'; or exclude it by 'recap label set'"
    )

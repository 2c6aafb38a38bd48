"""``recap cache``: what the frame cache holds, filling it, and making it smaller."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from pipeline.cache_budget import GIB, Inventory, allowed_bytes, folder_bytes, take_inventory
from pipeline.errors import Failure, InputError
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    command_group,
    existing_workspace,
    table,
)

app = command_group(
    "Decoded frames at training resolution: what there is, decode more, remove what was not used for long. "
    "All of it can be made again from the episodes."
)

_TRIM_WAIT_S = 30.0

MaxGibOption = Annotated[
    float | None,
    typer.Option("--max-gib", help="GiB that may stay (default: max_gib of [cache] in recap.toml).", min=0.0),
]


@app.command()
def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """What the cache holds, by image size, and when it was last used. Reads cache/, writes nothing."""
    found = existing_workspace(workspace)
    inventory = take_inventory(found.cache)
    rows = _rows(inventory)
    if rows:
        print(table(["image size", "episodes", "frames", "GiB", "last used"], rows))
    budget = allowed_bytes(found.cache, load_site_config(found.config_path).cache.max_gib)
    print(f"frames: {_size(inventory.bytes)} of at most {_size(budget)}")
    runs = len(list((found.cache / "scores").glob("[!.]*")))
    print(
        f"scores: {runs} scoring run{'' if runs == 1 else 's'}, {_size(folder_bytes(found.cache / 'scores'))}"
    )
    print(f"videos: {_size(folder_bytes(found.cache / 'videos'))}, shared with the datasets made from them")
    if inventory.leftovers:
        print(f"left-overs: {len(inventory.leftovers)}, which 'recap cache trim' removes")


@app.command()
def build(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Pixels, side of the square images.",
            show_default="84, or image_size of [defaults] in recap.toml",
            min=8,
            max=4096,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Episodes decoded at once (default: one for each core).", min=1)
    ] = None,
) -> None:
    """Decodes every episode that is not cached yet. Reads episodes/, writes cache/."""
    from pipeline.frame_cache import FrameCache
    from workflows.progress import progress_display, reporter
    from workflows.steps import available_cpus

    found = existing_workspace(workspace)
    config = load_site_config(found.config_path)
    cache = FrameCache(found.cache, image_size or config.defaults.image_size)
    # From the folder, not from a list of readable episodes: what is damaged is to be named.
    paths = sorted(found.episodes.glob("*/*.h5"))
    if not paths:
        raise InputError(f"there are no episodes in {found.episodes}: record some with 'recap record'")
    with progress_display() as display:
        display.start("build", f"decode {len(paths)} episodes at {cache.image_size}×{cache.image_size}")
        decoded = cache.build_many(paths, workers or available_cpus(), reporter(display, "build"))
        display.finish("build")
    cached = "1 episode is" if len(paths) == 1 else f"{len(paths)} episodes are"
    print(f"{cached} cached, {decoded} of them decoded now")
    _warn_of_too_much(found, config.cache.max_gib)


@app.command()
def trim(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    max_gib: MaxGibOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Removes the frames used least recently until the rest fits. Writes cache/, never an episode.

    Scores and videos stay. Refused while another command works in the workspace, which may need them.
    """
    from contextlib import nullcontext

    from pipeline.cache_budget import trim as trim_cache
    from workflows.driver_lock import driver_lock

    found = existing_workspace(workspace)
    limit = max_gib if max_gib is not None else load_site_config(found.config_path).cache.max_gib
    budget = allowed_bytes(found.cache, limit)
    with nullcontext() if dry_run else driver_lock(found.root):
        done = trim_cache(found.cache, budget, wait_s=_TRIM_WAIT_S, dry_run=dry_run)
    if done.busy:
        raise Failure(
            f"{found.cache} is being filled or opened by another process: try again when it has ended"
        )
    for content in done.removed:
        episodes = ", ".join(content.episodes) or "of no episode"
        print(f"{content.image_size}×{content.image_size}: {episodes}, {_size(content.bytes)}")
    freed = _size(done.bytes_before - done.bytes_after)
    verb = "would remove" if dry_run else "removed"
    count = f"{len(done.removed)} recording{'' if len(done.removed) == 1 else 's'}"
    print(
        f"{verb} the decoded frames of {count} (the episodes stay): {freed}; "
        f"{_size(done.bytes_after)} of frames are left"
    )


def _rows(inventory: Inventory) -> list[list[object]]:
    rows: list[list[object]] = []
    for size in sorted({content.image_size for content in inventory.contents}):
        chosen = [content for content in inventory.contents if content.image_size == size]
        latest = datetime.fromtimestamp(max(content.last_used for content in chosen))
        rows.append(
            [
                size,
                sum(len(content.episodes) for content in chosen),
                sum(content.frames for content in chosen),
                round(sum(content.bytes for content in chosen) / GIB, 3),
                latest.isoformat(" ", "minutes"),
            ]
        )
    return rows


def _warn_of_too_much(found: Workspace, max_gib: float | None) -> None:
    held, budget = take_inventory(found.cache).bytes, allowed_bytes(found.cache, max_gib)
    if held > budget:
        print(
            f"the cache holds {_size(held)}, more than the {_size(budget)} that it may: "
            "raise max_gib of [cache] in recap.toml, or remove some with 'recap cache trim'"
        )


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"

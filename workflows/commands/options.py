"""What the subcommands share: the workspace option, groups, tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import InputError
from pipeline.workspace import Workspace

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", metavar="DIR", help="The folder that holds all of a lab's data.")
]
DEFAULT_WORKSPACE = Path("workspace")


SeedOption = Annotated[int, typer.Option(help="Of people, networks and batches.", min=0)]
PolicyStepsOption = Annotated[
    int | None, typer.Option(help="Gradient steps of the base policy and of each fine-tune.", min=1)
]
ValueStepsOption = Annotated[int | None, typer.Option(help="Gradient steps of each value model.", min=1)]
StartsOption = Annotated[int | None, typer.Option(help="Evaluation episodes of each policy, at most.", min=2)]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="HOST:PORT",
        help="A running Ray cluster to compute on, or 'auto' (default: this machine alone).",
    ),
]


def command_group(help_text: str) -> typer.Typer:
    """A command with subcommands of its own."""
    return typer.Typer(
        help=help_text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def workspace_option(root: Path) -> str:
    """What a command to copy says of the workspace: nothing where it is the default one."""
    return "" if root == DEFAULT_WORKSPACE else f" --workspace {root}"


def existing_workspace(root: Path) -> Workspace:
    """The workspace at ``root``; a ``recap.toml`` is enough of one. ``InputError`` where there is none."""
    if root.is_file():
        raise InputError(f"the workspace {root} is a file: name a folder with --workspace")
    if not root.is_dir():
        raise InputError(
            f"there is no workspace {root}: name one with --workspace, or make one with 'recap demo' or "
            "'recap record'"
        )
    workspace = Workspace(root)
    begun = workspace.episodes.is_dir() or workspace.config_path.is_file()
    if not begun and any(root.iterdir()):
        raise InputError(
            f"{root} is not a workspace, it has neither a folder 'episodes' nor a recap.toml: name one with "
            "--workspace"
        )
    return workspace


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows in columns as wide as their longest cell; numbers to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        for column in range(len(header))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)

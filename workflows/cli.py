"""The one command, ``recap``. Subcommands are imported when they are used, and not before.

So ``recap --help`` and the commands of a robot workstation start quickly and never load Ray or torch.
A new command is a module in ``workflows/commands/`` and a line in :data:`COMMANDS`.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.errors import Failure, InputError
from workflows.termination import Terminated

# Name and one line of help. The module workflows/commands/<name>.py has a function of that name, or
# ``app``, a typer.Typer with subcommands.
COMMANDS = {
    "demo": "The whole loop in simulation, people included.",
    "record": "Record demonstrations: a person drives the arm, or a scripted one the simulated arm.",
    "rollout": "Let a policy drive while a person watches and corrects.",
    "arm": "Look at the real arm, stop it, clear its faults, send it home.",
    "episodes": "List, show and check what has been recorded.",
    "cache": "Decoded frames: what there is, decode more, remove what was not used.",
    "label": "Open the labelling app, or label from the shell.",
    "value": "Train the value model, score frames with it, judge it.",
    "advantages": "From values to advantages, thresholds and indicators.",
    "improve": "One turn of the loop: learn values, fine-tune, evaluate, promote, report.",
    "policy": "Train any LeRobot policy, evaluate it, or serve it to a robot.",
    "schedule": "Let the loop run by itself: when, and on what condition.",
    "report": "Where the reports are.",
    "status": "What there is, who is the champion, what to do next.",
    "rollback": "Make an earlier champion the champion again.",
    "gc": "Free the disk of what no champion needs.",
    "sync": "Bring the workspace to an object store, and back.",
    "doctor": "Check this machine, the arm, cameras and devices.",
}

# What typer raises for wrong options and arguments; it has no public name of its own.
_UsageError: Any = typer.BadParameter.__mro__[1]


class _Stopped(Exception):
    """A person or another process has stopped the command; typer would end it without a word."""


class LazyCommands(TyperGroup):
    """Knows its subcommands by name and help; imports one when it is run."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's private base
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]  # as above
        """Enough of the command to be listed by ``--help``."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name], rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, imported now."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name is not None and listed is not None else listed, rest

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; ``_Stopped`` where it is stopped."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _Stopped from stop


app = typer.Typer(
    cls=LazyCommands,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _recap(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error, not just one line."),
) -> None:
    """Make a robot policy better by using it: record, label, learn a value, fine-tune, evaluate, repeat."""


def load_command(name: str) -> Any:
    """Imports the module of a command in :data:`COMMANDS` and makes a command of it."""
    module = importlib.import_module(f"workflows.commands.{name}")
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        group.command(name)(getattr(module, name))
    return typer.main.get_command(group)


def _stopped_words(words: Sequence[str]) -> str:
    """What a stopped command says; a session of a person's recordings is over, and what it kept is kept."""
    if words[:1] == ["record"] or words[:1] == ["rollout"]:
        return "stopped; what was recorded is kept"
    return "stopped; the same command goes on where it was"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 for bad input, 1 for a failure, 130 or 143: stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in options
    if debug:
        # Allowed anywhere on the line, as people add it to a command that has just failed.
        words.remove("--debug")
    try:
        return _run(words)
    except (KeyboardInterrupt, _Stopped) as stop:
        terminated = isinstance(stop, Terminated) or isinstance(stop.__cause__, Terminated)
        return _say(_stopped_words(words), 143 if terminated else 130)
    except Exception as error:
        if debug:
            raise
        return _report(error)


def _run(words: list[str]) -> int:
    result = typer.main.get_command(app)(args=words, prog_name="recap", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        # The reader of our output, such as ``head``, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, _UsageError):
        return _report_usage(error)
    if isinstance(error, InputError):
        return _say(f"error: {error}", 2)
    if isinstance(error, Failure):
        return _say(f"error: {error}", 1)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _say(f"error: {error}; the disk is full: see 'recap gc' and 'recap cache trim'", 1)
    return _say(f"error: {type(error).__name__}: {error} (add --debug for the traceback)", 1)


def _report_usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        # ``recap`` alone asks for the help, which is this error's message.
        print(error.format_message(), file=sys.stderr)
        return 2
    command = error.ctx.command_path if error.ctx is not None else "recap"
    return _say(f"error: {error.format_message()} (see '{command} --help')", 2)


def _say(text: str, status: int) -> int:
    print(f"recap: {' '.join(text.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

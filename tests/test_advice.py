"""Advice that can be followed: commands that messages and docs name exist, tables say what the code has."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pipeline.site_value import ValueSection
from value_model.gate_config import GateConfig
from workflows.cli import COMMANDS, load_command
from workflows.settings import ValueSettings

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "collectors", "value_model", "workflows", "labeling_app")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUOTED = re.compile(r"(?<!\w)(['`])recap\s+([^`]*?)\1(?!\w)", re.DOTALL)
# What stands for a value that is only known when the message is made, and is never a command's name.
UNKNOWN = "UNKNOWN"
GROUPS: dict[str, Any] = {}


def texts(source: str) -> Iterator[str]:
    """Every string of a module: pieces put together, ``UNKNOWN`` for what is formatted in."""
    tree = ast.parse(source)
    parts = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else UNKNOWN for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def quoted(text: str) -> list[str]:
    """What stands after "recap" in quotes or backticks, on one line each."""
    return [" ".join(found[1].split()) for found in QUOTED.findall(text)]


def commands_of_page(page: str) -> Iterator[str]:
    """Of Markdown: what is quoted in the prose, and lines of code blocks that begin with "recap"."""
    for number, part in enumerate(re.split(r"^```.*$", page, flags=re.MULTILINE)):
        if number % 2 == 0:
            yield from quoted(part)
        else:
            lines = part.replace("\\\n", " ").splitlines()
            yield from (line.removeprefix("recap ").strip() for line in lines if line.startswith("recap "))


def fault(command: str) -> str | None:
    """What of a command line does not exist, or ``None``. Nothing is run."""
    # Docs write [--optional] and one|another; a pipe or a comment ends the command.
    words = shlex.split(re.split(r"\s\|\s", command)[0].replace("[", " ").replace("]", " "), comments=True)
    words = words[: words.index("--")] if "--" in words else words
    words = [word for word in words if word != "--debug"]
    if not words or words in (["-h"], ["--help"]):
        return None
    for name in words[0].split("|"):
        if name not in COMMANDS:
            return f"no command {name!r}"
        if name not in GROUPS:
            GROUPS[name] = load_command(name)
        if found := _fault_within(GROUPS[name], words[1:]):
            return found
    return None


def _fault_within(command: Any, words: list[str]) -> str | None:
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    options = {name: p for name, p in options.items() if name.startswith("-")}
    subcommands = getattr(command, "commands", None)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = word.split("=")[0]
        if name in ("-h", "--help"):
            continue
        if name.startswith("-") and name != "-":
            if name.startswith("--policy.") and "=" in word and command.name == "train":
                # A field of the policy's own configuration, always said as --policy.NAME=VALUE.
                continue
            if name not in options:
                return f"no option {name!r} of {command.name!r}"
            if not options[name].is_flag and "=" not in word and rest:
                rest.pop(0)
        elif subcommands is not None:
            return _fault_of_subcommands(subcommands, word, rest)
    return None


def _fault_of_subcommands(subcommands: dict[str, Any], word: str, rest: list[str]) -> str | None:
    for name in word.split("|"):
        if name not in subcommands:
            return f"no subcommand {name!r}"
        if found := _fault_within(subcommands[name], rest):
            return found
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_every_command_that_a_message_names_exists(package: str) -> None:
    """Commands, subcommands and options in quotes or backticks, docstrings included."""
    found, faults = 0, []
    for path in sorted((ROOT / package).rglob("*.py")):
        for text in texts(path.read_text(encoding="utf-8")):
            for command in quoted(text):
                found += 1
                if wrong := fault(command):
                    faults.append(f"{path.relative_to(ROOT)}: 'recap {command}': {wrong}")
    assert found, f"{package} names no command: the search is broken"
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_the_docs_name_exists(page: Path) -> None:
    """In the prose and in the lines to copy."""
    commands = list(commands_of_page(page.read_text(encoding="utf-8")))
    faults = [f"'recap {command}': {wrong}" for command in commands if (wrong := fault(command))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("label review", "no subcommand 'review'"),
        ("improv --quick", "no command 'improv'"),
        ("improve --quik", "no option '--quik'"),
        ("label set ID exclude --loud", "no option '--loud'"),
        ("label --workspace DIR review", "no subcommand 'review'"),
        ("label agreement|review", "no subcommand 'review'"),
        ("label set ID exclude", None),
        ("improve --workspace label --debug", None),
        ("schedule add n '0 2 * * *' -- --anything", None),
        ("episodes export OUT --format lerobot|aloha  # and so on", None),
    ],
)
def test_the_search_tells_what_exists(command: str, wrong: str | None) -> None:
    """The test above is no better than what it takes for a command."""
    found = fault(command)
    assert found is None if wrong is None else found is not None and wrong in found


def test_commands_are_found_in_formatted_and_broken_strings() -> None:
    """Implicit concatenation, placeholders and line breaks are put together."""
    source = (
        'x = f"exclude one (\'recap label " f"set {y} exclude\')"\n'
        "'''as 'recap label\n    export' writes'''"
    )
    assert [c for text in texts(source) for c in quoted(text)] == [
        f"label set {UNKNOWN} exclude",
        "label export",
    ]


def written(value: object) -> str:
    """A default as the tables have it: as in ``recap.toml``, "–" for none, fractions to three decimals."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value!r}`".replace("'", '"') if isinstance(value, str) else f"{round(value, 3):g}"  # type: ignore[call-overload]  # numbers only


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of docs/value-model.md, without its head."""
    page = (ROOT / "docs/value-model.md").read_text(encoding="utf-8")
    section = page.split(f"\n### {heading}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Every key of `[value]`", {f.name: getattr(ValueSettings(), f.name) for f in fields(ValueSection)}),
        ("Every bound of `[gate]`", {f.name: f.default for f in fields(GateConfig)}),
    ],
)
def test_the_tables_have_every_key_and_its_default(heading: str, expected: dict[str, object]) -> None:
    """A key that is new, renamed or has another default must be so in the docs, in the same order."""
    rows = table_rows(heading)
    assert all(len(row) == 3 and len(row[2]) > 10 for row in rows), rows
    assert [(row[0], row[1]) for row in rows] == [
        (f"`{name}`", written(default)) for name, default in expected.items()
    ]

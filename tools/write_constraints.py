"""Writes ``constraints.txt``: the exact versions of everything that ``kinova-recap[dev]`` needs.

Run it in a virtual environment whose versions have passed the tests::

    .venv/bin/python tools/write_constraints.py

It walks the requirements of the installed distributions, so what happens to be installed beside them
stays out. Lines are plain ``name==version``: no address, no local version, no editable install.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# The versions that the tests pass with: pip install -c constraints.txt -e '.[dev]'
# Written by tools/write_constraints.py; edit pyproject.toml, not this file.
"""


def applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether a requirement holds on this machine for a distribution that was asked for with ``extras``."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})


def declared() -> list[Requirement]:
    """What ``pyproject.toml`` asks for now, with the extra ``dev``; the installed metadata may be older."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]


def closure(wanted: Iterable[Requirement]) -> tuple[dict[str, str], set[str]]:
    """The installed versions of all that is wanted, directly or not, and the names of what is missing."""
    versions: dict[str, str] = {}
    missing: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    pending = [requirement for requirement in wanted if applies(requirement, frozenset())]
    while pending:
        requirement = pending.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        versions[name] = Version(distribution.version).public
        below = (Requirement(text) for text in distribution.requires or [])
        pending += [requirement for requirement in below if applies(requirement, extras)]
    return versions, missing


def main() -> int:
    """Writes the file beside ``pyproject.toml``; exit status 1 when something needed is not installed."""
    versions, missing = closure(declared())
    if missing:
        print(f"not installed: {', '.join(sorted(missing))}; run `make setup` first", file=sys.stderr)
        return 1
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    path = ROOT / "constraints.txt"
    path.write_text(HEADER + lines, encoding="utf-8")
    print(f"{path}: {len(versions)} versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())

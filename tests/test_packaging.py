"""What a clean clone promises: versions, names, licence, and that every command and target is documented."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "collectors", "labeling_app", "value_model", "workflows")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def own_files(pattern: str) -> list[Path]:
    """Our own files: those of the packages, tests and tools, not what lies in .venv or in caches."""
    return [path for folder in (*PACKAGES, "tests", "tools") for path in (ROOT / folder).rglob(pattern)]


def constraints() -> dict[str, str]:
    """The pinned versions."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*", pin) for pin in pins), pins
    return dict(pin.split("==") for pin in pins)


def test_constraints_are_plain_versions_that_satisfy_every_dependency() -> None:
    pins = {canonicalize_name(name): version for name, version in constraints().items()}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not pinned: run tools/write_constraints.py"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} is not {requirement}"


def test_constraints_pin_what_is_installed_and_needed() -> None:
    from tools.write_constraints import closure, declared

    installed, _ = closure(declared())
    unpinned = sorted(set(installed) - set(constraints()))
    assert not unpinned, f"run tools/write_constraints.py: {unpinned}"


def test_the_version_is_the_same_everywhere() -> None:
    assert metadata.version("kinova-recap") == PROJECT["version"]
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_and_say_what_they_are_for(package: str) -> None:
    assert importlib.import_module(package).__doc__


def test_nothing_is_called_utils_and_the_like() -> None:
    refused = {"utils", "util", "common", "misc", "helpers"}
    assert [path for path in own_files("*") if path.stem in refused] == []


def test_nothing_is_left_to_be_done_or_exempted_without_a_reason() -> None:
    for path in own_files("*.py"):
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not re.search(r"\b(TODO|FIXME|XXX)\b", line), f"{path}:{number}"
            if exemption := re.search(
                r"#\s*(?:noqa|type:\s*ignore)(?::\s*[A-Z0-9, ]+\b|\[[a-z, -]+\])?(.*)", line
            ):
                reason = exemption[1].strip(" #-:")
                assert len(reason) > 5, f"{path}:{number}: an exemption needs its reason beside it"


def test_few_modules_import_ray() -> None:
    importers = set()
    for path in [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "ray" for name in names):
                importers.add(str(path.relative_to(ROOT)))
    expected = ("cluster", "local_ray", "ray_training", "scoring_actors", "steps")
    assert importers == {f"workflows/{name}.py" for name in expected}


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"


def make_targets() -> list[str]:
    """The targets that ``make help`` lists."""
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^\s+make ([a-z]+)", shown, re.MULTILINE)


def test_every_make_target_is_in_the_readme() -> None:
    targets = set(make_targets())
    assert {"setup", "demo", "test", "check", "bench", "clean"} <= targets
    missing = [target for target in sorted(targets - {"help"}) if f"make {target}" not in README]
    assert not missing, f"README.md does not mention: make {', make '.join(missing)}"


def subcommands(*prefix: str) -> list[str]:
    """The subcommands that ``recap PREFIX --help`` lists."""
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    command = [str(Path(sys.executable).with_name("recap")), *prefix, "--help"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    section = re.search(r"Commands[^\n]*\n(.*?)(?:\n[^\n]*╰|\n\n|\Z)", shown, re.DOTALL)
    return re.findall(r"^[│|\s]\s*([a-z][a-z-]*)\s{2,}", section[1], re.MULTILINE) if section else []


def test_every_command_is_in_the_readme() -> None:
    commands = subcommands()
    assert {"demo", "label", "status"} <= set(commands)
    missing = [command for command in commands if f"recap {command}" not in README]
    assert not missing, f"README.md does not mention: recap {', recap '.join(missing)}"


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in README
    assert "check test" in script.read_text(encoding="utf-8")

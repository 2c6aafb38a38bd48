"""What may still be taken: of the machine, and of a container's limit in both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from workflows.available_memory import available_bytes

GIB = 2**30


def group(root: Path, path: str, names: tuple[str, str], limit: str, used: int, stat: str) -> None:
    """Writes a control group as the kernel shows it."""
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 100 GiB free."""
    free = psutil.virtual_memory()._replace(available=100 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_without_limits_it_is_what_the_machine_has_free(machine: Path) -> None:
    assert available_bytes(machine) == 100 * GIB
    (machine / "proc/self/cgroup").write_text("0::/user\n")
    group(machine, "user", V2, "max", 3 * GIB, "anon 1\n")
    assert available_bytes(machine) == 100 * GIB


@pytest.mark.parametrize("path", ["/pod/job", "/.."])
def test_the_least_of_the_groups_counts_and_cached_files_are_free(machine: Path, path: str) -> None:
    (machine / "proc/self/cgroup").write_text(f"0::{path}\n")
    stat = f"anon 5\nactive_file {GIB}\ninactive_file {2 * GIB}\n"
    group(machine, "", V2, str(16 * GIB), 6 * GIB, stat)
    assert available_bytes(machine) == 13 * GIB
    group(machine, "pod/job", V2, str(8 * GIB), 6 * GIB, "anon 5\n")
    assert available_bytes(machine) == (2 * GIB if path == "/pod/job" else 13 * GIB)


def test_the_first_version_of_control_groups(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("9:cpu,cpuacct:/x\n4:memory:/x\n0::/\n")
    group(machine, "memory", V1, str(2**63 - 4096), 50 * GIB, "")
    group(machine, "memory/x", V1, str(4 * GIB), 3 * GIB, f"inactive_file 7\ntotal_inactive_file {GIB}\n")
    assert available_bytes(machine) == 2 * GIB


def test_a_group_that_is_over_its_limit_leaves_nothing(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("0::/\n")
    group(machine, "", V2, str(GIB), 2 * GIB, "")
    assert available_bytes(machine) == 0


def test_on_this_machine_it_is_a_part_of_the_memory() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total

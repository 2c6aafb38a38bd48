"""``recap doctor``: whether machine, arm, cameras and devices are as the loop needs them, and what to do."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from collectors.gl_backend import choose_backend
from pipeline.errors import Failure, InputError
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows.commands.doctor_check import Check
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption

_GIB = 2**30
_PACKAGES = ("lerobot", "torch", "ray", "mujoco", "h5py", "zarr", "pyarrow", "av", "streamlit")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox")


def doctor(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Checks this machine, and the arm, cameras and device of recap.toml: one line each, with what to do.

    Nothing is written and no arm is moved. Exit status 1 if something needed is missing or amiss.
    """
    wrong: Counter[str] = Counter()
    for check in checks(Workspace(workspace)):
        print(check, flush=True)
        if check.needed and not check.ok:
            wrong[check.state] += 1
    missing = wrong.pop("missing", 0)
    counts = [f"{missing} thing{'' if missing == 1 else 's'} missing"] if missing else []
    counts += [f"{count} {state}" for state, count in wrong.items()]
    if counts:
        raise Failure(f"{', '.join(counts)}: see above")


def checks(workspace: Workspace) -> Iterator[Check]:
    """Looks at everything, in the order in which a newcomer would meet it."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", sys.version_info[:2] == (3, 12), version, "install Python 3.12")
    for name in _PACKAGES:
        yield _package(name)
    yield _rendering()
    yield from _machine(workspace.root)
    yield _gpu()
    yield from _camera_libraries()
    yield from _site(workspace.config_path)
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    yield Check(
        "browser",
        browser is not None,
        browser or "none",
        "for 'recap label' open its address elsewhere",
        False,
    )


def _package(name: str) -> Check:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", "pip install kinova-recap")
    return Check(name, True, found, "")


def _rendering() -> Check:
    try:
        return Check("rendering", True, choose_backend() or "a screen", "")
    except InputError as error:
        return Check("rendering", False, "none", str(error))


def _machine(root: Path) -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0))
    yield Check("cores", cores >= 2, str(cores), "two or more make the demo end in its 15 minutes", False)
    memory = psutil.virtual_memory().total / _GIB
    yield Check("memory", memory >= 7, f"{memory:.0f} GiB", "the demo needs 6 GiB", False)
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / _GIB
    yield Check(
        "disk", free >= 5, f"{free:.0f} GiB free at {existing}", "make room, or use another --workspace"
    )
    writable = os.access(existing, os.W_OK)
    found = str(root) if root.is_dir() else f"not there yet: {root}"
    yield Check("workspace", writable, found, f"{existing} is not writable: use another --workspace")
    shared = Path("/dev/shm")
    size = shutil.disk_usage(shared).free / _GIB if shared.exists() else 0.0
    remedy = "Ray is slower without 0.3 GiB: docker run --shm-size=1g"
    yield Check("shared memory", size >= 0.3, f"{size:.1f} GiB free", remedy, False)


def _site(path: Path) -> Iterator[Check]:
    try:
        site = load_site_config(path)
    except InputError as error:
        yield Check("recap.toml", False, "unusable", str(error))
        return
    if path.is_file():
        yield Check("recap.toml", True, f"robot {site.robot.type}", "")
    else:
        yield Check("robot", True, "no recap.toml: the simulated arm", "")
    if importlib.util.find_spec("lerobot") is not None:  # told of above where it is missing
        from workflows.commands.doctor_robot import robot_checks

        yield from robot_checks(site)


def _gpu() -> Check:
    remedy = "training is slow without; a policy may drive from another machine: 'recap policy serve'"
    command = shutil.which("nvidia-smi")
    if command is None:
        return Check("GPU", False, "none", remedy, False)
    asked = [command, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    seen = [sys.executable, "-c", "import torch; print(torch.version.cuda, torch.cuda.is_available())"]
    try:
        names = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split(
            "\n"
        )
        cuda, usable = subprocess.run(
            seen, capture_output=True, text=True, timeout=120, check=True
        ).stdout.split()
    except (subprocess.SubprocessError, ValueError):
        return Check("GPU", False, "does not answer", f"see what {command} says; {remedy}", False)
    found = f"{names[0]} (torch for CUDA {cuda})"
    return Check("GPU", usable == "True", found, f"torch cannot use it: update its driver; {remedy}", False)


def _camera_libraries() -> Iterator[Check]:
    # Vendors' libraries may kill the process that loads them; a process of their own can be spared.
    command = [sys.executable, "-c", "import pyrealsense2"]
    realsense = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield Check(
        "pyrealsense2",
        realsense,
        "loads" if realsense else "does not load",
        "for RealSense cameras: pip install 'pyrealsense2<2.57'",
        False,
    )
    usb = ctypes.util.find_library("usb-1.0")
    yield Check(
        "libusb",
        usb is not None,
        usb or "none",
        "for cameras and SpaceMouse: apt-get install libusb-1.0-0",
        False,
    )

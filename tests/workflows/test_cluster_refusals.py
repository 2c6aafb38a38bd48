"""A cluster that cannot be used is refused in one line, within seconds, exit status 2; and what is open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from tests.workflows.two_nodes import ROOT
from workflows.cli import main
from workflows.cluster import ray_cluster
from workflows.cluster_address import cluster_address
from workflows.cluster_place import PLACE, SharedPlace, require_code, require_place, shared_place
from workflows.step_recipe import Step, code_version
from workflows.step_requirements import cores_for, require_resources


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, None),
        ("", None),
        ("local", None),
        ("auto", "auto"),
        (" head.lab:6379 ", "head.lab:6379"),
        ("10.0.0.7:6379", "10.0.0.7:6379"),
        ("[fd00::7]:6379", "[fd00::7]:6379"),
    ],
)
def test_what_an_address_means(said: str | None, meant: str | None) -> None:
    assert cluster_address(said) == meant


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ray://head:10001", "Ray Client"),
        ("http://127.0.0.1:8265", "ray job submit --address http://127.0.0.1:8265"),
        ("head", "no address of a Ray cluster"),
        ("head:0", "no address"),
        ("head:99999", "no address"),
        ("a b:6379", "no address"),
    ],
)
def test_what_is_no_address_is_refused_from_the_option_and_the_environment(
    said: str,
    message: str,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["improve", "--workspace", str(workspace.root)]
    assert main([*words, "--ray-address", said]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err
    monkeypatch.setenv("RAY_ADDRESS", said)
    for command in (words, ["value", "train", *words[1:]], ["value", "score", *words[1:]]):
        assert main(command) == 2
        assert message in capsys.readouterr().err


def test_where_nothing_listens_or_something_else_does_it_is_said(workspace: Workspace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Ray cluster at {address} .*refused"):
            ray_cluster(address, workspace).__enter__()
        other.listen()
        with pytest.raises(InputError, match=f"{address} .*does not answer as the head of one"):
            ray_cluster(address, workspace).__enter__()
    assert not list(workspace.steps.glob(".locks/*"))


def test_a_machine_must_see_the_workspace_its_locks_and_the_same_software(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_place(workspace) as place:
        place.require()
        for other, message in (
            (replace(place, mark=workspace.root / "x"), "does not see the workspace"),
            (replace(place, text="x"), "another folder"),
            (replace(place, software="x"), "has version .* and the driver x"),
        ):
            with pytest.raises(InputError, match=message):
                other.require()
        copy = workspace.root / "copied-mark"
        copy.write_text(place.text)
        with pytest.raises(InputError, match="without its locks"):
            replace(place, mark=copy).require()
        assert SharedPlace.from_json(place.to_json()) == place
        replace(place, mark=workspace.root / "x", shared=False).require()
        code = {"pipeline.errors": "0" * 64}
        require_code(code)
        monkeypatch.setenv(PLACE, place.to_json())
        require_place()
        require_code({"pipeline.errors": code_version(("pipeline.errors",))})
        for parts in (code, {"pipeline.nothing": "0" * 64}):
            with pytest.raises(InputError, match=f"another source of {next(iter(parts))}"):
                require_code(parts)
    with pytest.raises(InputError, match="does not see"):
        require_place()
    monkeypatch.delenv(PLACE)
    require_place()


def nothing(out: Path) -> None:
    """A step."""


def test_a_step_needs_one_machine_that_has_all_of_it() -> None:
    there = [{"CPU": 8.0, "memory": 2.0**36}, {"CPU": 4.0, "GPU": 1.0, "memory": 2.0**33}]
    on_gpu = Step("x", nothing, num_gpus=1, num_cpus=6)
    require_resources(on_gpu, there)
    assert cores_for(on_gpu, there) == 4
    assert cores_for(Step("x", nothing, num_cpus=6), there) == 6
    assert cores_for(Step("x", nothing, num_cpus=0), there) == 0
    for step, message in (
        (Step("x", nothing, num_gpus=2), "needs 2 GPU, and there is 1 on any machine of the cluster"),
        (Step("x", nothing, num_gpus=1, memory_bytes=2**35), "no machine of the cluster has all of it"),
        (Step("x", nothing, memory_bytes=2**37), "needs 128.0 GiB of memory, and there are 64.0 GiB on any"),
    ):
        with pytest.raises(InputError, match=message):
            require_resources(step, there)


OPEN_PORTS = """
import os, psutil, subprocess, sys, urllib.request
from workflows.local_ray import local_ray
with local_ray(1):
    import ray
    ports = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for found in process.net_connections("inet"):
            if found.status == psutil.CONN_LISTEN:
                ports[found.laddr.port] = process.name()
    head = ray.get_runtime_context().gcs_address
    assert int(head.rpartition(":")[2]) in ports, (head, ports)
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 32}
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", head]
    stranger = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert stranger.returncode and "InvalidAuthToken" in stranger.stderr, stranger
    print("dashboard", 8265 in ports, "webui", repr(ray._private.worker.global_worker.node.webui_url))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads other processes' sockets")
def test_the_ray_that_a_command_starts_has_no_dashboard_and_takes_nothing_from_strangers() -> None:
    # Even where the account has turned authentication off.
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", OPEN_PORTS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] in ("dashboard False webui ''", "dashboard False webui None")

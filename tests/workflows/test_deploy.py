"""What is in deploy/: units, manifests and the cron line name commands that exist and have the right form."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from workflows.cli import load_command
from workflows.schedule_times import Recurrence

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
# KubeRay's CRDs are not published as a package. These fields are from its published types (v1); authOptions,
# and RayCronJob's suspend and timeZone, from the pages on them in Ray's documentation.
RAY_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata",
    "clusterSelector", "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML",
    "jobId", "submissionMode", "entrypointResources", "entrypointNumCpus", "entrypointNumGpus",
    "ttlSecondsAfterFinished", "shutdownAfterJobFinishes", "suspend",
}  # fmt: skip
RAY_CRON_JOB = {"schedule", "jobTemplate", "suspend", "timeZone"}
RAY_CLUSTER = {
    "rayVersion",
    "headGroupSpec",
    "workerGroupSpecs",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headServiceAnnotations",
    "suspend",
    "authOptions",
}
HEAD_GROUP = {"rayStartParams", "template", "serviceType", "enableIngress", "headService"}
WORKER_GROUP = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template",
    "scaleStrategy",
}  # fmt: skip


def documents() -> Iterator[dict[str, Any]]:
    """Every object in every manifest."""
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def of_kind(kind: str) -> dict[str, Any]:
    [found] = [document for document in documents() if document["kind"] == kind]
    return found


def ray_jobs() -> list[dict[str, Any]]:
    """The specifications of Ray jobs."""
    return [of_kind("RayJob")["spec"], of_kind("RayCronJob")["spec"]["jobTemplate"]]


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's and the workers' groups of a Ray job's cluster."""
    cluster = job["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]


def submission() -> str:
    """The line with which deploy/ray/submit hands a job in."""
    [line] = re.findall(r"^exec (ray job submit .+)$", (DEPLOY / "ray" / "submit").read_text(), re.MULTILINE)
    return line


def commands() -> list[str]:
    """Every command that anything in deploy/ runs."""
    service = (DEPLOY / "systemd" / "recap-tick.service").read_text()
    cron = (DEPLOY / "cron" / "recap-tick").read_text()
    containers = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return [
        re.findall(r"^ExecStart=(.+)$", service, re.MULTILINE)[0],
        next(line for line in cron.splitlines() if line.startswith("*")).split(maxsplit=6)[6],
        shlex.join(containers[0]["command"]),
        *(job["entrypoint"] for job in ray_jobs()),
        submission().partition(" -- ")[2],
    ]


@pytest.mark.parametrize("command", commands())
def test_every_command_exists_and_takes_its_options(command: str) -> None:
    words = shlex.split(command)
    while Path(words[0]).name != "recap":
        words.pop(0)
    name, *rest = words[1:]
    group = load_command(name)
    if hasattr(group, "commands"):
        group, rest = group.commands[rest[0]], rest[1:]
    group.make_context(name, list(rest))
    assert "--workspace" in rest


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_units_are_sound(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").iterdir():
        # The paths are to be filled in: a program and an account that are here.
        text = (
            unit.read_text()
            .replace("/opt/recap/.venv/bin/recap", sys.executable)
            .replace("User=lab", "User=root")
        )
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "recap-tick" in line]
    assert ours == [] and done.returncode == 0, done.stderr
    (tmp_path / "recap-tick.timer").write_text("[Timer]\nOnCalendar=sometimes\n")
    worse = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "sometimes" in worse.stderr


def test_the_cron_file_is_one_cron_reads() -> None:
    path = DEPLOY / "cron" / "recap-tick"
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    settings = [line for line in lines if re.fullmatch(r"[A-Z]+=.+", line)]
    [job] = [line for line in lines if line not in settings]
    *times, account, command = job.split(maxsplit=6)
    Recurrence(" ".join(times), "UTC")
    assert account == "lab" and command.startswith("/") and "%" not in job  # % would end the line
    assert "." not in path.name and path.read_text().endswith("\n")


def test_the_objects_of_kubernetes_fit_its_own_schemas() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    core = [document for document in documents() if document["kind"] in {"PersistentVolumeClaim", "CronJob"}]
    # Ray's own objects hold templates of pods, which are Kubernetes'.
    pods = [group["template"] for job in ray_jobs() for group in groups(job)]
    core += [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod} for pod in pods]
    assert len(core) == 6
    for document in core:
        validator.validate(document, "1.31", strict=True)
    wrong = {**core[0], "spec": {**core[0]["spec"], "accessMode": ["ReadWriteOnce"]}}
    with pytest.raises(validator.ValidationError):
        validator.validate(wrong, "1.31", strict=True)


def test_the_ray_objects_have_fields_that_kuberay_knows() -> None:
    for kind in ("RayJob", "RayCronJob"):
        assert of_kind(kind)["apiVersion"] == "ray.io/v1"
    assert set(of_kind("RayCronJob")["spec"]) <= RAY_CRON_JOB
    for job in ray_jobs():
        cluster = job["rayClusterSpec"]
        assert set(job) <= RAY_JOB and set(cluster) <= RAY_CLUSTER
        assert cluster["authOptions"] == {"mode": "token"}
        head, *workers = groups(job)
        assert {"rayStartParams", "template"} <= set(head) <= HEAD_GROUP
        for group in workers:
            needed = {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"}
            assert needed <= set(group) <= WORKER_GROUP
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for group in groups(job):
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        # Ray in the cluster and Ray in the image must be of one version.
        assert re.search(rf'"ray==2\.{cluster["rayVersion"].split(".")[1]}\.\*"', _pyproject())
    recurrence = of_kind("RayCronJob")["spec"]
    Recurrence(recurrence["schedule"], recurrence["timeZone"])
    assert "ALPHA" in (DEPLOY / "kubernetes" / "raycronjob.yaml").read_text()


def _pyproject() -> str:
    return (DEPLOY.parent / "pyproject.toml").read_text()


def test_pods_tick_one_at_a_time_and_share_the_workspace() -> None:
    assert of_kind("CronJob")["spec"]["concurrencyPolicy"] == "Forbid"
    claims = {d["metadata"]["name"]: d["spec"] for d in documents() if d["kind"] == "PersistentVolumeClaim"}
    pods = [[of_kind("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]]]
    pods += [[group["template"]["spec"] for group in groups(job)] for job in ray_jobs()]
    for together in pods:
        # Several pods may be on several nodes.
        mode = "ReadWriteMany" if len(together) > 1 else "ReadWriteOnce"
        for pod in together:
            [volume] = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
            assert claims[volume["persistentVolumeClaim"]["claimName"]]["accessModes"] == [mode]
            mounts = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
            assert [mount["mountPath"] for mount in mounts] == ["/workspace"]


def test_a_job_is_handed_in_with_options_that_ray_has() -> None:
    submit = DEPLOY / "ray" / "submit"
    assert submit.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(submit)], check=True)
    # Without the default extra, which has what else the command needs, Ray has its source all the same.
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    source = (Path(spec.origin).parent / "dashboard" / "modules" / "job" / "cli.py").read_text()
    for option in re.findall(r"(--[a-z-]+) ", submission().partition(" -- ")[0]):
        assert f'"{option}"' in source, option

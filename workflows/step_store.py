"""Results of steps on disk: computed at least once if need be, published exactly once.

``steps/<name>/<key>/`` holds what one step made and a ``manifest.json`` that says from what. It is
written aside in ``steps/<name>/.<key>.<run>.partial/``, flushed to the disk and renamed, so a folder
without a leading dot is always whole. A lock per key in ``steps/.locks/`` keeps two processes, such as
the worker of a killed driver and that of its successor, from computing the same step: the second waits
and then finds the result. The moment a step is complete is when its manifest appears in the folder
aside; a process killed between that and the rename leaves work that the next one only has to publish.
``steps/completions.jsonl`` gets one line per completed computation.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.durable_files import fsync_path, write_file
from pipeline.file_lock import locked
from workflows.step_recipe import (
    ExternalInput,
    Input,
    Keyed,
    Step,
    call_arguments,
    canonical_json,
    content_digest,
    files_below,
    function_name,
)

MANIFEST = "manifest.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class StepResult:
    """A published step: its folder and its manifest."""

    name: str
    key: str
    path: Path
    manifest: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        """What the step's function returned (empty where it returned nothing)."""
        return dict(self.manifest["result"] or {})

    @property
    def seconds(self) -> float:
        """How long the step took to compute."""
        return float(self.manifest["seconds"])


@dataclass(frozen=True)
class StepCall:
    """All that another process needs to compute a step; picklable."""

    steps: Path
    name: str
    key: str
    function: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Any]
    input_identities: Mapping[str, Any]
    code_version: str
    seed: int | None
    num_cpus: int


@dataclass(frozen=True)
class StepStore:
    """The published steps below one folder. Building it touches nothing."""

    root: Path

    def path(self, step: Keyed) -> Path:
        """Where the step's result is, or will be."""
        return self.root / step.name / step.key

    def find(self, step: Keyed) -> StepResult | None:
        """The published result of ``step``, or ``None``."""
        folder = self.path(step)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        return StepResult(step.name, step.key, folder, manifest)

    def published(self) -> list[StepResult]:
        """Every published result, sorted by name and key."""
        results = []
        for path in sorted(self.root.glob(f"[!.]*/[!.]*/{MANIFEST}")):
            folder = path.parent
            manifest = json.loads(path.read_text())
            results.append(StepResult(folder.parent.name, folder.name, folder, manifest))
        return results

    def call(self, step: Step) -> StepCall:
        """What a worker gets to compute ``step``."""

        def path_of(value: Input) -> Path:
            return value.path.absolute() if isinstance(value, ExternalInput) else self.path(value)

        return StepCall(
            self.root.absolute(),
            step.name,
            step.key,
            function_name(step.function),
            step.parameters,
            step.map_inputs(path_of),
            step.input_identities(),
            step.code_version,
            step.seed,
            step.num_cpus,
        )

    def progress_path(self, step: Keyed) -> Path:
        """The small file in which a running step says how far it is."""
        return self.root / ".progress" / f"{step.name}-{step.key}.json"

    def lock_path(self, step: Keyed) -> Path:
        """The file whose lock a process holds while it computes the step."""
        return self.root / ".locks" / f"{step.name}-{step.key}.lock"

    def completions(self) -> list[dict[str, Any]]:
        """One entry per computation that was carried to its end: name, key, run, seconds, finished."""
        lines = []
        with suppress(FileNotFoundError):
            for line in self._completions_path.read_text().splitlines():
                # Only a power cut can leave half a line.
                with suppress(json.JSONDecodeError):
                    lines.append(json.loads(line))
        return lines

    def verify(self, result: StepResult) -> list[str]:
        """What of a published result no longer is what its manifest says; empty where all is well."""
        found = {name: _file_facts(path) for name, path in _outputs(result.path).items()}
        recorded: dict[str, Any] = result.manifest["files"]
        names = sorted(found.keys() | recorded.keys())
        return [str(result.path / name) for name in names if found.get(name) != recorded.get(name)]

    def sweep(self) -> list[Path]:
        """Deals with what killed processes left: publishes complete work, removes the rest.

        Folders whose step is being computed right now, by another process, are left alone. Returns the
        folders dealt with.
        """
        swept = []
        for partial in sorted(self.root.glob(f"*/.*{_PARTIAL}")):
            step = _Name(partial.parent.name, partial.name.split(".")[1])
            with suppress(BlockingIOError), locked(self.lock_path(step), wait=False):
                self._finish_interrupted(step)
                swept.append(partial)
        for stale in [*self.root.glob(".locks/*"), *self.root.glob(".progress/*")]:
            # A lock's file goes when the lock is let go; a living worker writes its progress anew.
            with suppress(BlockingIOError), locked(stale, wait=False):
                pass
        return swept

    def execute(self, call: StepCall, progress: Callable[..., None]) -> bool:
        """Computes and publishes a step unless that is done already; ``True`` if this call computed it.

        Waits while another process computes the same step. Passes on whatever the step's function
        raises, after removing what it had written.
        """
        with locked(self.lock_path(call)):
            if self.find(call) is not None or self._finish_interrupted(call):
                return False
            partial = self.root / call.name / f".{call.key}.{uuid.uuid4().hex[:12]}{_PARTIAL}"
            partial.mkdir(parents=True)
            try:
                self._compute(call, partial, progress)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            self._publish(call, partial)
            return True

    @property
    def _completions_path(self) -> Path:
        return self.root / "completions.jsonl"

    def _compute(self, call: StepCall, partial: Path, progress: Callable[..., None]) -> None:
        """Runs the function and writes the manifest, whose appearance makes the folder complete."""
        module, name = call.function.split(":")
        function = getattr(importlib.import_module(module), name)
        began = time.monotonic()
        arguments = call_arguments(function, call.parameters, call.inputs, call.seed, progress)
        result = function(partial, **arguments)
        seconds = time.monotonic() - began
        if (partial / MANIFEST).exists():
            raise ValueError(f"step {call.name} wrote {MANIFEST}, a name that is taken")
        canonical_json(result)
        manifest = {
            "name": call.name,
            "key": call.key,
            "function": call.function,
            "code_version": call.code_version,
            "parameters": call.parameters,
            "inputs": call.input_identities,
            "seed": call.seed,
            "result": result,
            "files": {name: _file_facts(path) for name, path in _outputs(partial).items()},
            "seconds": round(seconds, 3),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _sync_tree(partial)
        write_file(partial / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False).encode())

    def _publish(self, step: Keyed, partial: Path) -> StepResult:
        manifest = json.loads((partial / MANIFEST).read_text())
        run = partial.name.split(".")[2]
        if all(line["run"] != run for line in self.completions()):
            self._log_completion(manifest, run)
        final = self.path(step)
        partial.rename(final)
        fsync_path(final.parent)
        fsync_path(self.root)
        return StepResult(step.name, step.key, final, manifest)

    def _log_completion(self, manifest: dict[str, Any], run: str) -> None:
        entry = {name: manifest[name] for name in ("name", "key", "seconds", "finished")}
        line = json.dumps({**entry, "run": run}) + "\n"
        descriptor = os.open(self._completions_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # One write of a short line: other workers' lines come before or after it, never inside.
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _finish_interrupted(self, step: Keyed) -> StepResult | None:
        """Publishes a complete folder that a killed process left aside; removes incomplete ones."""
        result = self.find(step)
        for partial in (self.root / step.name).glob(f".{step.key}.*{_PARTIAL}"):
            if result is None and (partial / MANIFEST).exists():
                result = self._publish(step, partial)
            else:
                shutil.rmtree(partial)
        return result


@dataclass(frozen=True)
class _Name:
    name: str
    key: str


def _outputs(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path for path in files_below(folder) if path != folder / MANIFEST
    }


def _file_facts(path: Path) -> dict[str, Any]:
    return {"sha256": content_digest(path), "bytes": path.stat().st_size}


def _sync_tree(folder: Path) -> None:
    for path in _tree(folder):
        fsync_path(path)


def _tree(folder: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(folder):
        yield from (Path(parent) / name for name in files)
        yield Path(parent)

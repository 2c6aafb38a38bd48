"""Results of steps on disk: computed at least once if need be, published exactly once.

``steps/<name>/<key>/`` holds what one step made and a ``manifest.json`` that says from what. It is
written aside in ``steps/<name>/.<key>.<run>.partial/``, flushed to the disk and renamed, so a folder
without a leading dot is always whole. A lock per key in ``steps/.locks/`` keeps two processes, such as
the worker of a killed driver and that of its successor, from computing the same step: the second waits
and then finds the result. The moment a step is complete is when its manifest appears in the folder
aside; a process killed between that and the rename leaves work that the next one only has to publish.
``steps/completions.jsonl`` gets one line per completed computation. What a long step keeps to go on after a
kill lies in ``steps/.resume/`` and goes when the step is published.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.durable_files import fsync_path, write_file
from pipeline.file_lock import is_locked, locked
from workflows.completion_log import CompletionLog, ListedStep, summary
from workflows.step_recipe import (
    ExternalInput,
    Input,
    Keyed,
    Step,
    StepAddress,
    call_arguments,
    canonical_json,
    function_name,
)
from workflows.step_result import MANIFEST, StepResult, file_facts, outputs, read_result, visible
from workflows.step_resume import forget, resume_path, sweep_kept

__all__ = ["MANIFEST", "StepCall", "StepResult", "StepStore"]

_PARTIAL = ".partial"


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
    code_parts: Mapping[str, str]
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
        """The published result of ``step``, or ``None``. Raises ``InputError`` for a damaged manifest."""
        return read_result(str(self.root), step.name, step.key)

    def published(self, name: str | None = None) -> list[StepResult]:
        """Every published result (of the steps called ``name``) with its manifest, by name and key."""
        root = str(self.root)
        found = [read_result(root, *address) for address in self._addresses(name)]
        return [result for result in found if result is not None]

    def listed(self) -> list[ListedStep]:
        """Every published result, sorted by name and key, without opening their folders.

        Sizes and times are those that the log of completions has; a manifest is read only where it has none.
        A folder whose manifest is that of another, such as a copy that a person made, is no result.
        """
        logged = {(line["name"], line["key"]): line for line in self.completions()}
        steps = []
        for name, key in self._addresses():
            line = logged.get((name, key), {})
            if "bytes" not in line:
                result = self.find(StepAddress(name, key))
                if result is None or (result.manifest.get("name"), result.manifest.get("key")) != (name, key):
                    continue
                line = summary(result.manifest)
            steps.append(ListedStep(name, key, line["bytes"], line["finished"]))
        return steps

    def addresses(self) -> list[StepAddress]:
        """Every published step by name and key, sorted, without opening any."""
        return [StepAddress(name, key) for name, key in self._addresses()]

    def _addresses(self, name: str | None = None) -> list[tuple[str, str]]:
        """Name and key of every published step, or of those called ``name``; sorted."""
        names = visible(self.root) if name is None else [name]
        return [(folder, key) for folder in names for key in visible(self.root / folder)]

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
            step.code_parts(),
            step.seed,
            step.num_cpus,
        )

    def progress_path(self, step: Keyed) -> Path:
        """The small file in which a running step says how far it is."""
        return self.root / ".progress" / f"{step.name}-{step.key}.json"

    def lock_path(self, step: Keyed) -> Path:
        """The file whose lock a process holds while it computes the step."""
        return self.root / ".locks" / f"{step.name}-{step.key}.lock"

    def resume_path(self, step: Keyed, suffix: str = ".safetensors") -> Path:
        """Where the step keeps what it needs to go on after a kill; removed when the step is published."""
        return resume_path(self.root, step.key, suffix)

    def completions(self) -> list[dict[str, Any]]:
        """One entry per computation that was carried to its end; see :class:`CompletionLog`."""
        return self._log.entries()

    def verify(self, result: StepResult) -> list[str]:
        """What of a published result no longer is what its manifest says; empty where all is well."""
        found = {name: file_facts(path) for name, path in outputs(result.path).items()}
        recorded: dict[str, Any] = result.manifest["files"]
        names = sorted(found.keys() | recorded.keys())
        return [str(result.path / name) for name in names if found.get(name) != recorded.get(name)]

    def partials(self) -> list[Path]:
        """Folders of unpublished work: of steps being computed now, or of processes that were killed."""
        return sorted(self.root.glob(f"[!.]*/.*{_PARTIAL}"))

    def left_behind(self) -> list[Path]:
        """Those of :meth:`partials` that hold no complete work and belong to no running process."""
        return [
            partial
            for partial in self.partials()
            if not (partial / MANIFEST).exists() and not is_locked(self.lock_path(_step_of(partial)))
        ]

    def sweep(self) -> list[Path]:
        """Deals with what killed processes left: publishes complete work, removes the rest.

        Folders whose step is being computed right now, by another process, are left alone. Returns the
        folders dealt with.
        """
        swept = []
        for partial in self.partials():
            step = _step_of(partial)
            with suppress(BlockingIOError), locked(self.lock_path(step), wait=False):
                self._finish_interrupted(step)
                swept.append(partial)
        sweep_kept(self.root, lambda: {key for _, key in self._addresses()})
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
            with self._aside(call) as partial:
                self._compute(call, partial, progress)
            self._publish(call, partial)
            return True

    def adopt(self, step: Keyed, fill: Callable[[Path], bytes]) -> bool:
        """Publishes what another machine computed; ``False``, without a call, where it is published here.

        ``fill`` writes the step's files, checked, into the empty folder that it is given and returns the
        manifest. Waits while another process computes or adopts the same step.
        """
        with locked(self.lock_path(step)):
            # What a killed process left aside is the sweep's: to look for it takes long among thousands.
            if self.find(step) is not None:
                return False
            with self._aside(step) as partial:
                manifest = fill(partial)
                _sync_tree(partial)
                write_file(partial / MANIFEST, manifest)
            self._publish(step, partial)
            return True

    @contextmanager
    def _aside(self, step: Keyed) -> Iterator[Path]:
        """A new folder for work that is not published yet; removed where it fails."""
        partial = self.root / step.name / f".{step.key}.{uuid.uuid4().hex[:12]}{_PARTIAL}"
        partial.mkdir(parents=True)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    @property
    def _log(self) -> CompletionLog:
        return CompletionLog(self.root / "completions.jsonl")

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
            "code": dict(call.code_parts),
            "parameters": call.parameters,
            "inputs": call.input_identities,
            "seed": call.seed,
            "result": result,
            "files": {name: file_facts(path) for name, path in outputs(partial).items()},
            "seconds": round(seconds, 3),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _sync_tree(partial)
        write_file(partial / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False).encode())

    def _publish(self, step: Keyed, partial: Path, *, interrupted: bool = False) -> StepResult:
        manifest = json.loads((partial / MANIFEST).read_text())
        run = partial.name.split(".")[2]
        if not (interrupted and self._log.has(run)):
            self._log.append(manifest, run)
        final = self.path(step)
        partial.rename(final)
        fsync_path(final.parent)
        fsync_path(self.root)
        forget(self.root, step.key)
        return StepResult(step.name, step.key, final, manifest)

    def _finish_interrupted(self, step: Keyed) -> StepResult | None:
        """Publishes a complete folder that a killed process left aside; removes incomplete ones."""
        result = self.find(step)
        for partial in (self.root / step.name).glob(f".{step.key}.*{_PARTIAL}"):
            if result is None and (partial / MANIFEST).exists():
                result = self._publish(step, partial, interrupted=True)
            else:
                shutil.rmtree(partial)
        return result


def _step_of(partial: Path) -> StepAddress:
    return StepAddress(partial.parent.name, partial.name.split(".")[1])


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for path in [*(Path(parent) / name for name in files), Path(parent)]:
            fsync_path(path)

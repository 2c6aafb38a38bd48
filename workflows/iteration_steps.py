"""Which steps an iteration used, by the ledger, and the labels that it learned from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot, load_snapshot
from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.step_files import JUDGEMENT
from workflows.step_recipe import StepAddress
from workflows.step_store import StepResult, StepStore

_EXTERNAL = "external:"
SNAPSHOT_DIGITS = 16
"""Of its digest, in a snapshot's file name."""


class GoneError(InputError):
    """A step is not there any more: ``recap gc`` may have freed it, which is no damage."""


@dataclass(frozen=True)
class IterationSteps:
    """The steps of one iteration by name, and what they were made from."""

    workspace: Workspace
    store: StepStore
    addresses: dict[str, list[StepAddress]]

    @classmethod
    def of(cls, workspace: Workspace, store: StepStore, ledger: Ledger, n: int) -> IterationSteps:
        """Those that the ledger names."""
        found: dict[str, list[StepAddress]] = {}
        for name, key, _ in ledger.steps(n):
            found.setdefault(name, []).append(StepAddress(name, key))
        return cls(workspace, store, found)

    def the(self, name: str) -> StepResult:
        """The one step of that name. Raises ``InputError`` where there is none, or it is gone."""
        addresses = self.addresses.get(name, [])
        if not addresses:
            raise InputError(f"the ledger names no step {name}")
        found = self.store.find(addresses[0])
        if found is None:
            raise GoneError(f"the step {addresses[0]} is gone")
        return found

    @cached_property
    def labels(self) -> Snapshot:
        """The labels that the iteration learned from; ``InputError`` where they are gone or damaged."""
        return load_snapshot(snapshot_path(self.workspace, self.labels_digest()))

    def labels_digest(self) -> str:
        """The digest of these labels. Raises ``InputError`` where no step that names them is left."""
        for name in (JUDGEMENT, "advantages"):  # the first outlives 'recap gc'
            for address in self.addresses.get(name, []):
                found = self.store.find(address)
                if found is not None:
                    return str(found.manifest["inputs"]["snapshot"]).removeprefix(_EXTERNAL)
        raise GoneError("no step that names its labels is left")

    def named(self, *names: str) -> tuple[str, ...]:
        """The addresses of the steps of these names."""
        return tuple(str(address) for name in names for address in self.addresses.get(name, []))


def snapshot_path(workspace: Workspace, digest: str) -> Path:
    """Where the labels of that digest are."""
    return workspace.root / "snapshots" / f"labels-{digest[:SNAPSHOT_DIGITS]}.parquet"

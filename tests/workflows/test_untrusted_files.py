"""Nothing of ours runs code that lies in a workspace: no pickle is read, wherever one is planted."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.labels import LabelStore
from pipeline.policy.processor_files import require_registered_steps
from pipeline.workspace import Workspace
from tests.tiny_checkpoint import save_tiny_checkpoint
from workflows.array_files import read_arrays
from workflows.json_documents import read_json
from workflows.ledger import Ledger
from workflows.schedule_store import ScheduleStore
from workflows.step_recipe import StepAddress
from workflows.step_store import StepStore

ROOT = Path(__file__).parents[2]
OURS = ("pipeline", "collectors", "value_model", "workflows", "labeling_app")
UNPICKLING = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
}
CALLS = {"read_pickle", "unsafe_load", "full_load", "Unpickler", "Pickle"}


def faults(source: str) -> Iterator[str]:
    """What in a module may run code that a file holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            yield from (name for name in modules if name.partition(".")[0] in UNPICKLING)
        if isinstance(node, ast.keyword):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if node.arg == "allow_pickle" and value is not False:
                yield "allow_pickle"
            if node.arg == "trust_remote_code" and value is not False:
                yield "trust_remote_code"
            if node.arg == "weights_only" and value is not True:
                yield "weights_only"
            if node.arg == "object_codec":
                yield "object_codec"
        if isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    named = {keyword.arg for keyword in node.keywords}
    if isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec", *CALLS}:
        yield node.func.id
    if not isinstance(node.func, ast.Attribute):
        return
    of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if node.func.attr in CALLS:
        yield node.func.attr
    if node.func.attr == "load" and of == "torch" and "weights_only" not in named:
        yield "torch.load"
    if node.func.attr == "load" and of == "yaml":
        yield "yaml.load"


@pytest.mark.parametrize("package", OURS)
def test_no_module_of_ours_can_unpickle(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert len(modules) > 5
    found = {str(path.relative_to(ROOT)): list(faults(path.read_text())) for path in modules}
    assert {path: said for path, said in found.items() if said} == {}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "allow_pickle"),
        ("np.load(f, allow_pickle=flag)", "allow_pickle"),
        ("torch.load(f)", "torch.load"),
        ("torch.load(f, weights_only=False)", "weights_only"),
        ("pd.read_pickle(f)", "read_pickle"),
        ("yaml.load(f)", "yaml.load"),
        ("zarr.create(dtype=object, object_codec=numcodecs.Pickle())", "object_codec"),
        ("AutoModel.from_pretrained(f, trust_remote_code=True)", "trust_remote_code"),
        ("eval(text)", "eval"),
    ],
)
def test_what_could_is_found(source: str, said: str) -> None:
    assert said in set(faults(source))
    assert not set(faults("np.load(f)\nimport json\ntorch.load(f, weights_only=True)"))


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        """What unpickling calls."""
        return os.mkdir, (str(self.mark),)


def bare(planted: Planted) -> bytes:
    """A pickle."""
    return pickle.dumps(planted)


def zipped(planted: Planted) -> bytes:
    """As torch.save writes it."""
    import torch

    stream = io.BytesIO()
    torch.save(planted, stream)
    assert zipfile.is_zipfile(stream)
    return stream.getvalue()


def arrays(planted: Planted) -> bytes:
    """As numpy writes objects."""
    stream = io.BytesIO()
    np.savez(stream, value=np.array([planted], dtype=object))
    return stream.getvalue()


def read_policy(path: Path) -> None:
    """A policy's weights."""
    from pipeline.policy.checkpoint import load_checkpoint

    folder = save_tiny_checkpoint(path.parent / "policy")
    path.rename(folder / "model.safetensors")
    load_checkpoint(folder)


def read_value(path: Path) -> None:
    """A value model's weights."""
    from value_model.checkpoint import ModelRecord, load_network
    from value_model.network import SmallNetworkConfig

    path.rename(path.with_name("model.safetensors"))
    load_network(path.parent, ModelRecord(0, 0, (), SmallNetworkConfig(), {}, 1, 0.1, 0.2))


def read_manifest(path: Path) -> None:
    """A step's manifest."""
    folder = path.parent / "steps" / "advantages" / ("0" * 32)
    folder.mkdir(parents=True)
    path.rename(folder / "manifest.json")
    StepStore(path.parent / "steps").find(StepAddress("advantages", "0" * 32))


def read_ledger(path: Path) -> None:
    """The ledger."""
    path.rename(path.with_name("runs.sqlite"))
    Ledger(Workspace(path.parent)).champion()


def read_labels(path: Path) -> None:
    """The labels."""
    with LabelStore(path) as store:
        store.current()


def read_schedules(path: Path) -> None:
    """The schedules."""
    path.rename(path.with_name("schedules.sqlite"))
    ScheduleStore(path.parent).schedules()


def read_labels_frozen(path: Path) -> None:
    """A snapshot."""
    from pipeline.label_snapshot import read_snapshot

    read_snapshot(path)


def read_episode(path: Path) -> None:
    """A recorded episode."""
    from pipeline.episode_file import EpisodeReader

    with EpisodeReader(path):
        pass


READERS: list[Callable[[Path], object]] = [
    read_policy,
    read_value,
    read_arrays,
    read_json,
    read_manifest,
    read_ledger,
    read_labels,
    read_schedules,
    read_labels_frozen,
    read_episode,
]


@pytest.mark.parametrize("form", [bare, zipped, arrays])
def test_the_planted_thing_would_work(form: Callable[[Planted], bytes], tmp_path: Path) -> None:
    """Read as nothing of ours reads, it does what it was made for."""
    mark = tmp_path / "mark"
    data = form(Planted(mark))
    if form is bare:
        pickle.loads(data)
    elif form is arrays:
        np.load(io.BytesIO(data), allow_pickle=True)["value"]
    else:
        import torch

        torch.load(io.BytesIO(data), weights_only=False)
    assert mark.is_dir()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", [bare, zipped, arrays])
def test_a_pickle_in_place_of_an_artefact_is_refused(
    reader: Callable[[Path], object], form: Callable[[Planted], bytes], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "planted"
    path.write_bytes(form(Planted(mark)))
    with pytest.raises(InputError) as caught:
        reader(path)
    assert not mark.exists() and "\n" not in str(caught.value)


def poisoned_processor(root: Path) -> tuple[Path, Path]:
    """A checkpoint whose processor file has LeRobot call os.mkdir, and the folder that this makes."""
    folder, mark = save_tiny_checkpoint(root / "policy"), root / "mark"
    require_registered_steps(folder)
    path = folder / "policy_preprocessor.json"
    document = json.loads(path.read_text())
    document["steps"].insert(0, {"class": "os.mkdir", "config": {"path": str(mark)}})
    path.write_text(json.dumps(document))
    return folder, mark


def test_a_processor_file_may_not_name_what_is_to_be_imported(tmp_path: Path) -> None:
    folder, _ = poisoned_processor(tmp_path)
    with pytest.raises(InputError, match=r"policy_preprocessor\.json names a class to import, 'os.mkdir'"):
        require_registered_steps(folder)


def test_no_checkpoint_is_loaded_with_such_a_file(tmp_path: Path) -> None:
    from pipeline.policy.checkpoint import load_checkpoint

    folder, mark = poisoned_processor(tmp_path)
    with pytest.raises(InputError, match="names a class to import"):
        load_checkpoint(folder)
    assert not mark.exists()

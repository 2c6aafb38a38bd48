"""Stores that hold what they should not, damaged files, addresses that lead nowhere: one line each."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Failure, InputError
from pipeline.object_store import Damaged, ObjectStore, check_url
from pipeline.workspace import Workspace
from tests.workflows.object_stores import bucket, folder, require_whole, stored_files, url
from tests.workflows.sample_lab import SampleLab, make_lab
from workflows.commands.sync import pull, push
from workflows.remote_config import remote_section, require_store
from workflows.remote_layout import FILES, blob_object, file_of, step_object, step_of, step_record
from workflows.remote_sync import Sync
from workflows.step_recipe import StepAddress

__all__ = ["bucket", "folder", "url"]
ZEROS = "0" * 64


@pytest.fixture
def lab(tmp_path: Path) -> SampleLab:
    made = make_lab(tmp_path / "lab")
    made.turn(promoted=True)
    return made


def record(store: ObjectStore, step: StepAddress) -> dict[str, Any]:
    data = store.read(step_object(step))
    assert data is not None
    found: dict[str, Any] = json.loads(data)
    return found


def rewrite(store: ObjectStore, step: StepAddress, **manifest: Any) -> None:
    """Puts a step with another manifest into the store."""
    found = record(store, step)
    found["manifest"] = json.dumps({**json.loads(found["manifest"]), **manifest})
    store.write(step_object(step), json.dumps(found).encode())


def escape(store: ObjectStore, step: StepAddress) -> None:
    rewrite(store, step, files={"../../../../stolen": {"sha256": ZEROS, "bytes": 1}})


def absolute(store: ObjectStore, step: StepAddress) -> None:
    rewrite(store, step, files={"/tmp/stolen": {"sha256": ZEROS, "bytes": 1}})


def of_another(store: ObjectStore, step: StepAddress) -> None:
    rewrite(store, step, key="f" * 32)


def no_json(store: ObjectStore, step: StepAddress) -> None:
    store.write(step_object(step), b"\x80\x04\x95pickled")


def not_a_number(store: ObjectStore, step: StepAddress) -> None:
    store.write(step_object(step), b'{"format": NaN}')


def other_bytes(store: ObjectStore, step: StepAddress) -> None:
    found = record(store, step)
    found["small"] = {name: base64.b64encode(bytes(1000)).decode() for name in found["small"]}
    data = json.loads(found["manifest"])
    assert all(facts["bytes"] == 1000 for facts in data["files"].values())
    store.write(step_object(step), json.dumps(found).encode())


def missing_blob(store: ObjectStore, step: StepAddress) -> None:
    rewrite(store, step, files={"model": {"sha256": ZEROS, "bytes": 7}})
    found = record(store, step)
    store.write(step_object(step), json.dumps({**found, "small": {}}).encode())


def wrong_size(store: ObjectStore, step: StepAddress) -> None:
    missing_blob(store, step)
    store.write(blob_object(ZEROS), b"not seven bytes")


def wrong_blob(store: ObjectStore, step: StepAddress) -> None:
    missing_blob(store, step)
    store.write(blob_object(ZEROS), b"7 bytes")


@pytest.mark.parametrize(
    "poison",
    [
        escape,
        absolute,
        of_another,
        no_json,
        not_a_number,
        other_bytes,
        missing_blob,
        wrong_size,
        wrong_blob,
    ],
)
def test_a_poisoned_step_is_named_and_nothing_of_it_lands(
    poison: Callable[[ObjectStore, StepAddress], None],
    lab: SampleLab,
    folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, there = ObjectStore(folder), tmp_path / "deep" / "er" / "there"
    push(lab.workspace.root, remote=folder)
    bad = StepAddress("advantages", lab.turns[0].advantages.key)
    poison(store, bad)
    capsys.readouterr()

    with pytest.raises(Failure, match="1 could not be pulled"):
        pull(there, remote=folder)

    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not pulled")]
    assert bad.key in line or ZEROS in line
    assert not (there / "steps" / bad.name / bad.key).exists()
    assert list(tmp_path.rglob("stolen")) == [] and not Path("/tmp/stolen").exists()
    # The others are there, and so is what names them.
    assert require_whole(there) == len(lab.store.published()) - 1
    assert (there / "runs.sqlite").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"datasets/evil": {"what": "link:../../../../etc"}},
        {"datasets/evil": {"what": "link:/etc/passwd"}},
        {"datasets/../../evil": {"what": "link:../steps/a/" + "0" * 32}},
        {"steps/evil": {"what": f"file:{ZEROS}:1"}},
        {".bashrc": {"what": f"file:{ZEROS}:1"}},
        {"reports/evil.html": {"what": f"file:../../{ZEROS}:1"}},
        {"reports/evil.html": "text"},
    ],
)
def test_a_link_that_leads_out_of_the_workspace_is_refused(
    entry: dict[str, Any], lab: SampleLab, folder: str, tmp_path: Path
) -> None:
    store = ObjectStore(folder)
    Sync(lab.workspace, store).push()
    data = store.read(FILES)
    assert data is not None
    document = json.loads(data)
    store.write(FILES, json.dumps({**document, "files": {**document["files"], **entry}}).encode())
    with pytest.raises(Damaged, match="no place in a workspace"):
        Sync(Workspace(tmp_path / "there"), store).pull()
    assert stored_files(tmp_path / "there") == {}


@pytest.mark.parametrize("part", ["rows", "header", "nonsense"])
def test_a_poisoned_database_is_named_and_the_one_here_stays(
    part: str, lab: SampleLab, folder: str, tmp_path: Path
) -> None:
    store, there = ObjectStore(folder), Workspace(tmp_path / "there")
    Sync(lab.workspace, store).push()
    data = store.read("databases/labels.sqlite")
    assert data is not None
    line, _, rows = data.partition(b"\n")
    header = json.loads(line)
    if part == "rows":
        rows = rows[:-100] + bytes(100)
    elif part == "header":
        header["content"] = ZEROS
    else:
        rows = b"no database at all, but of the right hash"
        header.update(sha256=hashlib.sha256(rows).hexdigest(), bytes=len(rows))
    store.write("databases/labels.sqlite", json.dumps(header).encode() + b"\n" + rows)
    result = Sync(there, store).pull()
    assert len(result.faults) == 1 and "databases/labels.sqlite is damaged" in result.faults[0]
    assert not there.labels_path.exists() and there.ledger_path.exists()
    assert list(there.root.glob(".labels*")) == []


def test_what_was_damaged_here_is_not_sent(
    lab: SampleLab, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = lab.workspace.steps / "train_base" / lab.base.key / "file.bin"
    damaged.write_bytes(bytes(1000))
    with pytest.raises(Failure, match="1 could not be pushed"):
        push(lab.workspace.root, remote=folder)
    assert f"not pushed: {damaged} is not what it was" in capsys.readouterr().err
    there = [step_of(one.path) for one in ObjectStore(folder).listing("steps")]
    assert len(there) == len(lab.store.published()) - 1
    assert StepAddress("train_base", lab.base.key) not in there


def test_strangers_in_the_store_are_counted_and_left_alone(
    lab: SampleLab, folder: str, tmp_path: Path
) -> None:
    store = ObjectStore(folder)
    Sync(lab.workspace, store).push()
    names = ["steps/Evil/x.json", "steps/a/short.json", "episodes/a/b.h5", f"episodes/.a/b.h5/{ZEROS}"]
    for name in [*names, f"episodes/a/b.txt/{ZEROS}", f"snapshots/deep/er.parquet/{ZEROS}"]:
        store.write(name, b"x")
    there = Workspace(tmp_path / "there")
    plan = Sync(there, store).plan(pulling=True)
    assert plan.strangers == 6
    Sync(there, store).pull()
    assert stored_files(there.root) == stored_files(lab.workspace.root)


NAMES = st.text(max_size=40) | st.text(alphabet="ab./\\0 ", max_size=12) | st.just("a" * 300)


@given(NAMES, st.integers(0, 2**40))
def test_no_name_in_a_manifest_leads_out_of_the_steps_folder(name: str, size: int) -> None:
    manifest = {
        "name": "noise",
        "key": "0" * 32,
        "files": {name: {"sha256": ZEROS, "bytes": size}},
        "result": None,
        "seconds": 1,
        "finished": "now",
    }
    folder = Path("/workspace/steps/noise/x")
    try:
        found = step_record(StepAddress("noise", "0" * 32), json.dumps(manifest).encode(), {}, "here")
    except Damaged:
        return
    assert list(found.files) == [name]
    place = Path(folder / name)
    assert place.parts[: len(folder.parts)] == folder.parts and ".." not in place.parts and place != folder


@given(st.text(alphabet="ab./\\0- \x00é", max_size=30))
def test_no_name_of_an_object_leads_out_of_the_workspace(text: str) -> None:
    for found in (file_of(f"episodes/{text}/{ZEROS}"), file_of(f"{text}/{ZEROS}")):
        if found is not None:
            path = Path(found[0])
            assert not path.is_absolute() and ".." not in path.parts
            assert path.parts[0] in ("episodes", "snapshots")
            assert not any(part.startswith(".") for part in path.parts)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("bucket/lab", "no address of a store"),
        ("http://bucket/lab", "no address of a store"),
        ("s3:///lab", "no address of a store"),
        ("s3://key:secret@bucket/lab", "must hold no credentials"),
        ("s3://bucket/lab?sig=secret", "must hold no credentials"),
        ("file://host/lab", "must be file:///"),
        ("s3://bucket/../other", "no '..'"),
    ],
)
def test_an_address_that_is_none_is_refused(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_url(address)


def test_the_store_is_named_in_the_workspace_and_without_credentials(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(InputError, match="names no store: give --remote"):
        require_store(workspace, None)
    for text, message in [
        ('[remote]\nurl = "s3://lab"\nsecret_access_key = "x"', "credentials come from the environment"),
        ("remote = 3", "remote must be a table"),
        ("[remote]\nurl = 3", r"remote\.url must be a text"),
        ("[remote", "cannot read"),
    ]:
        workspace.config_path.write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            remote_section(workspace)
        assert str(workspace.config_path) in str(caught.value)
    workspace.config_path.write_text('[remote]\nurl = "s3://lab/one/"')
    assert require_store(workspace, None).url == "s3://lab/one"
    assert require_store(workspace, "gs://other").url == "gs://other"


def test_a_store_that_is_not_there_is_one_line(lab: SampleLab, bucket: str, tmp_path: Path) -> None:
    nowhere = bucket.replace("lab-", "nobody-")
    with pytest.raises(InputError, match="make the bucket, or correct the address"):
        push(lab.workspace.root, remote=nowhere)
    with pytest.raises(InputError, match="make it first, or mount its disk"):
        push(lab.workspace.root, remote=f"file://{tmp_path}/nothing")
    with pytest.raises(InputError, match="holds no workspace"):
        pull(tmp_path / "there", remote=bucket)

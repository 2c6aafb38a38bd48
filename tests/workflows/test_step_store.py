"""Keys and publication of steps, without Ray."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.workflows import sample_steps
from workflows.completion_log import CompletionLog
from workflows.step_recipe import ExternalInput, Step, canonical_json, code_version, content_digest
from workflows.step_store import StepCall, StepStore

PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def noise(seed: int = 0, **parameters: Any) -> Step:
    return Step("noise", sample_steps.write_noise, {"size": 20, **parameters}, seed=seed)


def silent(done: int, total: int, message: str = "") -> None:
    """Shows nothing."""


@pytest.fixture
def store(tmp_path: Path) -> StepStore:
    return StepStore(tmp_path / "steps")


def test_a_step_is_published_once_with_a_manifest_that_says_from_what(store: StepStore) -> None:
    left, right = noise(1), noise(2)
    total = Step("total", sample_steps.add_up, inputs={"left": left, "right": right})
    for step in (left, right, total):
        assert store.find(step) is None
        assert store.execute(store.call(step), silent)
        assert not store.execute(store.call(step), silent)
    result = store.find(total)
    assert result is not None
    assert result.path == store.root / "total" / total.key
    assert result.manifest["inputs"] == {"left": f"noise/{left.key}", "right": f"noise/{right.key}"}
    assert result.manifest["files"].keys() == {"sum.txt"}
    assert result.result["total"] == float((result.path / "sum.txt").read_text())
    assert [line["name"] for line in store.completions()] == ["noise", "noise", "total"]
    assert len(store.published()) == 3
    assert not any(store.verify(published) for published in store.published())


def test_verify_names_a_file_that_was_changed_added_or_removed(store: StepStore) -> None:
    store.execute(store.call(noise()), silent)
    result = store.find(noise())
    assert result is not None
    (result.path / "first.npy").write_bytes(b"other")
    (result.path / "new.txt").write_text("new")
    (result.path / "folder" / "second.npy").unlink()
    assert [Path(name).name for name in store.verify(result)] == ["first.npy", "second.npy", "new.txt"]


@given(st.dictionaries(st.text(), PLAIN_JSON, max_size=4))
def test_canonical_json_ignores_the_order_of_keys_and_loses_nothing(value: dict[str, Any]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 3), st.integers(0, 3))
def test_keys_differ_exactly_where_recipes_do(size: int, other_size: int, seed: int, other_seed: int) -> None:
    same = (size, seed) == (other_size, other_seed)
    assert (noise(seed, size=size).key == noise(other_seed, size=other_size).key) == same


def test_the_key_depends_on_each_part_of_the_recipe(tmp_path: Path) -> None:
    base = Step("total", sample_steps.add_up, inputs={"left": noise(1), "right": noise(2)})
    variants = [
        base,
        replace(base, name="sum"),
        replace(base, inputs={"left": noise(2), "right": noise(1)}),
        replace(base, inputs={**base.inputs, "others": []}),
        replace(base, inputs={**base.inputs, "others": [noise(3), noise(4)]}),
        replace(base, inputs={**base.inputs, "others": [noise(4), noise(3)]}),
        replace(base, inputs={**base.inputs, "right": ExternalInput(tmp_path, "1")}),
        replace(base, inputs={**base.inputs, "right": ExternalInput(tmp_path, "2")}),
        replace(base, code=("pipeline.errors",)),
    ]
    assert len({step.key for step in variants}) == len(variants)
    moved = replace(base, inputs={**base.inputs, "right": ExternalInput(tmp_path / "moved", "1")})
    assert moved.key == variants[6].key
    reserving = replace(base, num_cpus=0, num_gpus=0.5, memory_bytes=2**30, timeout_s=9.0, title="adds up")
    assert reserving.key == base.key


def test_code_version_follows_the_source_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sample_package"
    (package / "inner").mkdir(parents=True)
    for file in ("__init__.py", "inner/__init__.py", "inner/part.py", "other.py"):
        (package / file).write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def versions() -> list[str]:
        code_version.cache_clear()
        names = ("sample_package", "sample_package.inner", "sample_package.other")
        return [code_version((name,)) for name in names]

    before = versions()
    (package / "inner" / "part.py").write_text("x = 1\n")
    whole, inner, other = [old == new for old, new in zip(before, versions(), strict=True)]
    assert (whole, inner, other) == (False, False, True)
    with pytest.raises(ValueError, match=r"sample_package\.missing"):
        code_version(("sample_package.missing",))


def test_content_digest_counts_names_and_bytes(tmp_path: Path) -> None:
    digests = set()
    for name, text in (("a", "1"), ("b", "1"), ("a", "2")):
        folder = tmp_path / f"{name}{text}"
        folder.mkdir()
        (folder / name).write_text(text)
        digests.add(content_digest(folder))
    assert len(digests) == 3
    with pytest.raises(FileNotFoundError):
        ExternalInput.of(tmp_path / "missing")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Step("No Spaces", sample_steps.write_manifest), "only a-z"),
        (lambda: Step("local", lambda out: None), "importable module"),
        (lambda: noise(size=float("nan")), "not plain JSON"),
        (lambda: noise(size=Path("a")), "not plain JSON"),
        (lambda: noise(unknown=1), "unknown"),
        (lambda: replace(noise(), num_cpus=-1), "less than nothing"),
        (lambda: replace(noise(), timeout_s=0.0), "timeout_s"),
        (lambda: Step("noise", sample_steps.write_noise, {"size": 1}), "seed"),
        (lambda: Step("read", sample_steps.read_text, {"out": 1}), "given twice"),
    ],
)
def test_a_step_that_cannot_work_is_refused_when_it_is_built(build: Callable[[], Step], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_an_external_file_reaches_the_function(store: StepStore, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    step = Step("read", sample_steps.read_text, inputs={"file": ExternalInput.of(tmp_path / "note.txt")})
    store.execute(store.call(step), silent)
    result = store.find(step)
    assert result is not None and result.result == {"text": "hello"}


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step("refuse", sample_steps.refuse, {"reason": "no such arm"}), InputError),
        (Step("manifest", sample_steps.write_manifest), ValueError),
        (Step("path", sample_steps.return_path), TypeError),
    ],
)
def test_a_step_that_raises_leaves_nothing(store: StepStore, step: Step, error: type[Exception]) -> None:
    with pytest.raises(error):
        store.execute(store.call(step), silent)
    assert not list((store.root / step.name).iterdir())
    assert not list((store.root / ".locks").iterdir())
    assert store.completions() == []


def test_the_list_has_sizes_and_times_without_opening_folders(store: StepStore) -> None:
    for seed in range(3):
        store.execute(store.call(noise(seed)), silent)
    results = store.published()
    expected = [
        (r.name, r.key, sum(f["bytes"] for f in r.manifest["files"].values()), r.manifest["finished"])
        for r in results
    ]
    assert [(s.name, s.key, s.bytes, s.finished) for s in store.listed()] == expected and expected[0][2] > 0
    # A log of an earlier version says nothing of sizes, and may be gone.
    log = store.root / "completions.jsonl"
    log.write_text("".join(json.dumps({**line, "bytes": 1}) + "\n" for line in store.completions()[:1]))
    assert sum(step.bytes == 1 for step in store.listed()) == 1
    log.unlink()
    assert [(s.name, s.key, s.bytes, s.finished) for s in store.listed()] == expected
    assert [r.key for r in store.published("noise")] == [r.key for r in results]
    assert store.published("other") == []
    assert StepStore(store.root / "none").listed() == []


def test_half_a_line_of_a_power_cut_spoils_no_other(store: StepStore) -> None:
    store.execute(store.call(noise(1)), silent)
    log = store.root / "completions.jsonl"
    log.write_bytes(log.read_bytes() + log.read_bytes()[:40])
    store.execute(store.call(noise(2)), silent)
    assert [line["key"] for line in store.completions()] == [noise(1).key, noise(2).key]


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _execute(call: StepCall, dies_at: str | None) -> None:
    """What the other process does; ``dies_at`` names a method in which it is killed."""
    if dies_at is not None:
        setattr(CompletionLog if hasattr(CompletionLog, dies_at) else Path, dies_at, _die)
    os._exit(10 if StepStore(call.steps).execute(call, silent) else 11)


def _process(call: StepCall, dies_at: str | None = None) -> multiprocessing.process.BaseProcess:
    # Spawned, as this process may have threads of other tests, with which forking is unsafe.
    process = multiprocessing.get_context("spawn").Process(target=_execute, args=(call, dies_at))
    process.start()
    return process


def _wait_for(store: StepStore, pattern: str) -> None:
    deadline = time.monotonic() + 30
    while not list(store.root.glob(pattern)):
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        time.sleep(0.01)


def test_of_two_processes_with_one_step_the_second_waits_and_finds_it_done(store: StepStore) -> None:
    call = store.call(noise(seconds=1.0))
    first, second = _process(call), _process(call)
    _wait_for(store, "noise/.*.partial/first.npy")
    assert store.sweep() == []
    first.join(30)
    second.join(30)
    assert sorted([first.exitcode or 0, second.exitcode or 0]) == [10, 11]
    assert len(store.completions()) == 1


def test_a_killed_step_is_swept_and_computed_anew(store: StepStore) -> None:
    process = _process(store.call(noise(seconds=20.0)))
    _wait_for(store, "noise/.*.partial/first.npy")
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)
    assert len(store.sweep()) == 1
    assert not list((store.root / "noise").iterdir()) and not list((store.root / ".locks").iterdir())
    assert store.execute(store.call(noise()), silent)


@pytest.mark.parametrize("dies_at", ["append", "rename"])
@pytest.mark.parametrize("successor", ["sweep", "execute"])
def test_work_complete_at_the_kill_is_published_not_repeated(
    store: StepStore, dies_at: str, successor: str
) -> None:
    """The kill comes after the manifest: before the completion is logged, or before the rename."""
    call = store.call(noise())
    process = _process(call, dies_at)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert store.find(noise()) is None
    if successor == "sweep":
        store.sweep()
    assert not store.execute(call, silent)
    result = store.find(noise())
    assert result is not None and store.verify(result) == []
    assert len(store.completions()) == 1
    assert [path.name for path in (store.root / "noise").iterdir()] == [noise().key]


def test_what_a_step_keeps_to_go_on_goes_when_it_is_published(store: StepStore) -> None:
    done, other, swept = noise(), noise(1), noise(2)
    assert store.resume_path(done).name == f"{done.key}.safetensors"
    attempts = store.resume_path(done, ".jsonl")
    folder = store.resume_path(done, ".state")
    folder.mkdir(parents=True)
    for path in [attempts, folder / "part", store.resume_path(other)]:
        path.write_text("kept")
    # As a killed process leaves a file that it was about to rename.
    attempts.with_name(f".{attempts.name}.1-1.part").write_text("ha")

    assert store.execute(store.call(done), silent)

    assert [path.name for path in attempts.parent.iterdir()] == [store.resume_path(other).name]
    # Killed between the rename and the removal: the next driver's sweep does it.
    store.execute(store.call(swept), silent)
    store.resume_path(swept).write_text("kept")
    store.sweep()
    assert [path.name for path in attempts.parent.iterdir()] == [store.resume_path(other).name]


def test_a_step_of_another_machine_is_adopted_once_and_whole(store: StepStore, tmp_path: Path) -> None:
    step, there = noise(), StepStore(tmp_path / "there")
    there.execute(there.call(step), silent)
    made = there.path(step)

    def fill(folder: Path) -> bytes:
        for name in ["first.npy", "folder/second.npy"]:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes((made / name).read_bytes())
        return (made / "manifest.json").read_bytes()

    def fail(folder: Path) -> bytes:
        (folder / "first.npy").write_bytes(b"half")
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="the network is gone"):
        store.adopt(step, fail)
    assert store.find(step) is None and not store.partials()
    assert store.adopt(step, fill)
    assert not store.adopt(step, fail)
    found = store.find(step)
    assert found is not None and store.verify(found) == []
    assert [line["key"] for line in store.completions()] == [step.key]

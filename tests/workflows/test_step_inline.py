"""Steps in the driver's own process: the same keys, results and traces on the disk as of Ray's workers."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import threadpoolctl  # type: ignore[import-untyped]  # it ships no types

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from tests.workflows import sample_steps
from workflows.progress import LineDisplay
from workflows.step_inline import limited_threads
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepStore
from workflows.steps import StepRunner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def runner(tmp_path: Path, shown: io.StringIO) -> Iterator[StepRunner]:
    with StepRunner(Workspace(tmp_path / "lab").create(), LineDisplay(shown), inline=True) as runner:
        yield runner


def leave(out: Path, *, status: int) -> None:
    """Ends its process, as a step must not."""
    (out / "half.txt").write_text("half")
    sys.exit(status)


def noise(seed: int) -> Step:
    return Step("noise", sample_steps.write_noise, {"size": 8}, seed=seed)


def total(*seeds: int) -> Step:
    return Step("total", sample_steps.add_up, inputs={"left": noise(seeds[0]), "right": noise(seeds[1])})


def workspace_of(runner: StepRunner) -> Workspace:
    return Workspace(runner.store.root.parent)


def nothing_left(store: StepStore) -> bool:
    """Whether no half work, lock or progress lies about."""
    return not (store.partials() or [*store.root.glob(".locks/*"), *store.root.glob(".progress/*")])


def test_a_graph_runs_in_order_is_shown_and_is_not_computed_again(
    runner: StepRunner, shown: io.StringIO
) -> None:
    results = runner.run_all([total(1, 2), noise(2), noise(3)])
    assert [result.name for result in results] == ["total", "noise", "noise"]
    done = [line["name"] for line in runner.store.completions()]
    assert done == ["noise", "noise", "total", "noise"]
    assert len(runner.computed) == 4 and not runner.reused
    assert "noise: 5/10 (sleeping)" in shown.getvalue() and "total: done in" in shown.getvalue()
    assert runner.run_all([total(1, 2), noise(2), noise(3)]) == results
    assert len(runner.computed) == 4 and nothing_left(runner.store)
    with pytest.raises(InputError, match="another recap command"), StepRunner(workspace_of(runner)):
        pass


def test_keys_and_results_are_those_of_a_worker_process(runner: StepRunner, tmp_path: Path) -> None:
    """What Ray's worker does, in a process that never was a driver's: :meth:`StepStore.execute`."""
    other = StepStore(tmp_path / "other" / "steps")
    for step in (noise(1), noise(2), total(1, 2)):
        other.execute(other.call(step), lambda *_: None)
    runner.run(total(1, 2))
    for step in (noise(1), noise(2), total(1, 2)):
        here, there = runner.store.find(step), other.find(step)
        assert here is not None and there is not None
        for told in ("key", "result", "files", "inputs", "code_version", "parameters"):
            assert here.manifest[told] == there.manifest[told]
        assert runner.store.verify(here) == []


def test_no_ray_is_loaded(tmp_path: Path) -> None:
    ran = _drive(tmp_path, "runner.run(Step('noise', sample_steps.write_noise, {'size': 8}, seed=1))")
    assert ran.communicate(timeout=60)[0] == "computed 1, ray False\n"


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (Step("refuse", sample_steps.refuse, {"reason": "no arm"}), InputError, "step refuse: no arm"),
        (Step("fail", sample_steps.fail, {"kind": "Failure"}), Failure, "step fail: the gate was not passed"),
        (Step("fail", sample_steps.fail, {"kind": "?"}), Failure, "step fail failed: ZeroDivisionError"),
        (Step("leave", leave, {"status": 3}), Failure, "step leave: .* with status 3"),
    ],
)
def test_a_step_that_fails_is_told_in_one_line_and_the_driver_goes_on(
    runner: StepRunner, step: Step, error: type[Exception], message: str
) -> None:
    beside = runner.submit(noise(4))
    waiting = runner.submit(Step("total", sample_steps.add_up, inputs={"left": step, "right": noise(5)}))
    with pytest.raises(error, match=message) as caught:
        waiting.result()
    assert type(caught.value) is error and "\n" not in str(caught.value)
    assert nothing_left(runner.store) and runner.store.find(step) is None
    assert beside.result().path.is_dir()
    with pytest.raises(Failure, match="given up"):
        waiting.result()
    assert runner.run(noise(5)).path.is_dir()


@pytest.mark.parametrize(("number", "attempts"), [(errno.ESTALE, 2), (errno.ENOSPC, 1)])
def test_an_io_error_that_may_pass_is_waited_out_and_no_other(
    runner: StepRunner, tmp_path: Path, number: int, attempts: int
) -> None:
    mark = ExternalInput(tmp_path / "mark", f"{number}")
    step = Step("disturbed", sample_steps.disturbed, {"number": number, "times": 1}, {"mark": mark})
    if attempts == 2:
        assert runner.run(step).result == {"attempts": 2}
    else:
        with pytest.raises(Failure, match=f"step disturbed failed: .*{os.strerror(number)}"):
            runner.run(step)
    assert (tmp_path / "mark").read_text() == str(attempts) and nothing_left(runner.store)


def test_a_step_gets_the_threads_that_it_asks_for_and_the_driver_its_own_back(
    runner: StepRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads()
    seen = [
        runner.run(Step("environment", sample_steps.tell_environment, {}, num_cpus=cpus, code=(code,))).result
        for cpus, code in ((0, "pipeline.errors"), (2, "pipeline.episode"))
    ]
    assert [entry["threads"] for entry in seen] == ["1", "2"]
    assert {entry["pid"] for entry in seen} == {os.getpid()}
    assert os.environ["OMP_NUM_THREADS"] == "7" and torch.get_num_threads() == before
    with limited_threads(2):
        assert torch.get_num_threads() == 2
        assert {library["num_threads"] for library in threadpoolctl.threadpool_info()} == {2}


def test_what_this_machine_lacks_is_said_at_once(runner: StepRunner) -> None:
    for reserved, message in (
        (Step("environment", sample_steps.tell_environment, num_gpus=99), "needs 99 GPU"),
        (Step("environment", sample_steps.tell_environment, memory_bytes=2**60), "GiB of memory"),
    ):
        with pytest.raises(InputError, match=message):
            runner.run(reserved)
    with pytest.raises(ValueError, match="not both"):
        StepRunner(workspace_of(runner), cluster="auto", inline=True)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_driver_that_is_stopped_publishes_no_half_and_the_next_goes_on(
    tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    """Real processes: stopped within the second of two steps, by Ctrl-C and for good."""
    store = StepStore(tmp_path / "steps")
    graph = (
        "for seed in (1, 2): runner.run(Step('noise', sample_steps.write_noise, "
        "{'size': 8, 'seconds': [0.0, 9.0][seed - 1]}, seed=seed))"
    )
    driver = _drive(tmp_path, graph)
    deadline = time.monotonic() + 60
    while not (store.published() and store.partials()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    driver.send_signal(sent)
    driver.communicate(timeout=60)
    assert driver.returncode == status
    assert len(store.published("noise")) == 1
    if sent == signal.SIGINT:
        assert nothing_left(store)
    again = _drive(tmp_path, graph.replace("9.0", "0.0"))
    assert again.communicate(timeout=60)[0] == "computed 1, ray False\n"
    assert nothing_left(store) and len(store.completions()) == 2


def _drive(workspace: Path, work: str) -> subprocess.Popen[str]:
    """A driver process that does ``work`` with ``runner``, and ends as a command of ours does."""
    program = f"""
import signal, sys
from pathlib import Path
from pipeline.workspace import Workspace
from tests.workflows import sample_steps
from workflows import cli
from workflows.step_recipe import Step
from workflows.steps import StepRunner

def drive(words):
    with StepRunner(Workspace(Path(sys.argv[1])).create(), inline=True) as runner:
        {work}
        print(f"computed {{len(runner.computed)}}, ray {{'ray' in sys.modules}}")

# Where the tests run in the background, the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
cli._run = drive
sys.exit(cli.main([]))
"""
    command = [sys.executable, "-c", program, str(workspace)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

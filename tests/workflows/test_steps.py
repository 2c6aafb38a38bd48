"""Steps on a real local Ray."""

from __future__ import annotations

import errno
import io
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from tests.workflows import sample_steps
from tests.workflows.kill_driver import graph
from workflows.progress import LineDisplay
from workflows.step_faults import in_one_line, may_pass, persistently
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepStore
from workflows.step_words import lost, node_lives
from workflows.steps import StepRunner, local_ray

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, shown: io.StringIO) -> Iterator[StepRunner]:
    """One Ray for all tests of this module."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace")).create()
    with StepRunner(workspace, LineDisplay(shown), num_cpus=2) as runner:
        yield runner


def noise(seed: int) -> Step:
    return Step("noise", sample_steps.write_noise, {"size": 8}, seed=seed)


def test_a_graph_runs_in_order_and_is_not_computed_again(runner: StepRunner) -> None:
    total = Step("total", sample_steps.add_up, inputs={"left": noise(1), "right": noise(2)})
    results = runner.run_all([total, noise(1), noise(2)])
    assert [result.name for result in results] == ["total", "noise", "noise"]
    assert [line["name"] for line in runner.store.completions()][-1] == "total"
    computed = len(runner.computed)
    assert runner.run_all([total, noise(1), noise(2)]) == results
    assert len(runner.computed) == computed


def test_independent_steps_run_at_the_same_time_and_show_how_far_they_are(
    runner: StepRunner, shown: io.StringIO, tmp_path: Path
) -> None:
    place = ExternalInput(tmp_path, "meeting place")
    pair = [("ana", "ben"), ("ben", "ana")]
    steps = [
        Step("meet", sample_steps.meet, {"here": here, "other": other}, {"place": place}, title=here)
        for here, other in pair
    ]
    assert len(runner.run_all(steps)) == 2
    assert re.search(r"ana: [1-4]/5 \(together\)", shown.getvalue())
    assert "ben: done in" in shown.getvalue()


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (Step("refuse", sample_steps.refuse, {"reason": "no arm"}), InputError, "step refuse: no arm"),
        (Step("fail", sample_steps.fail, {"kind": "Failure"}), Failure, "step fail: the gate was not passed"),
        (
            Step("fail", sample_steps.fail, {"kind": "?"}),
            Failure,
            "step fail failed: ZeroDivisionError: division",
        ),
    ],
)
def test_what_a_step_raises_is_told_in_one_line_and_not_retried(
    runner: StepRunner, step: Step, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        runner.run(step)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is error
    assert not list((runner.store.root / step.name).iterdir())


def test_a_step_whose_input_fails_reports_the_input(runner: StepRunner) -> None:
    bad = Step("refuse", sample_steps.refuse, {"reason": "bad scene"})
    pending = runner.submit(Step("total", sample_steps.add_up, inputs={"left": bad, "right": noise(3)}))
    with pytest.raises(InputError, match="bad scene"):
        pending.result()
    assert runner.run(noise(3)).path.is_dir()


def test_a_lost_worker_is_replaced(runner: StepRunner, tmp_path: Path) -> None:
    mark = ExternalInput(tmp_path / "mark", "mark")
    result = runner.run(Step("die_once", sample_steps.die_once, inputs={"mark": mark}))
    assert (result.path / "half.txt").read_text() == "whole"
    assert [path.name for path in result.path.parent.iterdir()] == [result.key]


@pytest.mark.parametrize(
    ("number", "times", "attempts"),
    [(errno.EIO, 1, 2), (errno.ESTALE, 1, 2), (errno.ENOSPC, 1, 1), (errno.ENOENT, 1, 1)],
)
def test_an_io_error_that_may_pass_is_waited_out_and_no_other(
    runner: StepRunner, tmp_path: Path, number: int, times: int, attempts: int
) -> None:
    mark = ExternalInput(tmp_path / "mark", f"{number} {times}")
    step = Step("disturbed", sample_steps.disturbed, {"number": number, "times": times}, {"mark": mark})
    if attempts > times:
        assert runner.run(step).result == {"attempts": attempts}
    else:
        with pytest.raises(Failure, match=f"step disturbed failed: .*{os.strerror(number)}") as caught:
            runner.run(step)
        assert ("recap gc" in str(caught.value)) == (number == errno.ENOSPC)
    assert (tmp_path / "mark").read_text() == str(attempts)
    left = [path.name for path in (runner.store.root / "disturbed").glob(".*")]
    assert left == []


def test_attempts_are_counted_and_the_last_error_is_told() -> None:
    tried: list[int] = []

    def read() -> None:
        tried.append(1)
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError as error:
            raise InputError("cannot read episode 7") from error

    with pytest.raises(InputError, match="episode 7"):
        persistently(read, pauses_s=(0.0, 0.0))
    assert len(tried) == 3
    assert str(in_one_line("cache", OSError(errno.EIO, "Input/output error"))).endswith("(tried 3 times)")
    for error in (InputError("no"), Failure("no"), ZeroDivisionError(), OSError(errno.EACCES, "no")):
        assert not may_pass(error)


def test_a_step_that_exceeds_its_time_is_ended_named_and_not_tried_again(
    runner: StepRunner, tmp_path: Path
) -> None:
    mark = ExternalInput(tmp_path / "mark", "mark")
    step = Step("never_end", sample_steps.never_end, inputs={"mark": mark}, timeout_s=2.0)
    beside = runner.submit(Step("noise", sample_steps.write_noise, {"size": 9}, seed=9))
    with pytest.raises(Failure, match=r"step never_end took longer than the 2 s .* at 3 of 7"):
        runner.run(step)
    assert (tmp_path / "mark").read_text() == "x"
    assert list((runner.store.root / "never_end").iterdir()) == []
    assert not runner.store.lock_path(step).exists()
    assert runner.run(beside.step).path.is_dir()
    time.sleep(0.5)
    assert (tmp_path / "mark").read_text() == "x"


def test_a_step_may_run_a_pool_of_actors_without_taking_a_core_from_them(runner: StepRunner) -> None:
    pools = [
        Step("pool", sample_steps.count_cpus_of_actors, {"actors": actors}, num_cpus=0) for actors in (1, 2)
    ]
    results = [result.result for result in runner.run_all(pools)]
    assert results == [{"counted": [10], "threads": "1"}, {"counted": [10, 10], "threads": "1"}]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("environment", sample_steps.tell_environment, num_gpus=99), "needs 99 GPU"),
        (Step("environment", sample_steps.tell_environment, memory_bytes=2**60), "GiB of memory"),
    ],
)
def test_what_no_machine_has_is_said_at_once(runner: StepRunner, step: Step, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runner.run(step)
    assert runner.run(Step("noise", sample_steps.write_noise, {"size": 7}, seed=7)).path.is_dir()


def test_local_ray_uses_the_one_that_runs(runner: StepRunner) -> None:
    runner.run(noise(4))
    import ray

    with local_ray():
        assert ray.is_initialized()
    assert ray.is_initialized()


def test_workers_are_reused_and_get_the_threads_of_their_step(runner: StepRunner) -> None:
    steps = [
        Step("environment", sample_steps.tell_environment, num_cpus=cpus, code=(code,))
        for cpus, code in ((1, "pipeline.errors"), (1, "pipeline.episode"), (2, "pipeline.workspace"))
    ]
    seen = [runner.run(step).result for step in steps]
    assert [entry["threads"] for entry in seen] == ["1", "1", "2"]
    assert len({entry["pid"] for entry in seen}) <= 2
    assert not [name for name in os.environ if name.startswith("RAY_task")]


def test_a_second_driver_is_refused(runner: StepRunner) -> None:
    workspace = Workspace(runner.store.root.parent)
    with pytest.raises(InputError, match=f"process {os.getpid()}"), StepRunner(workspace):
        pass


def _drive(workspace: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.workflows.kill_driver", str(workspace), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _kill_at(workspace: Path, pattern: str, delay_s: float) -> list[psutil.Process]:
    """Starts the driver, kills it ``delay_s`` after a path of ``pattern`` appears, returns its children."""
    driver = _drive(workspace, 1.0)
    deadline = time.monotonic() + 60
    while not list(workspace.glob(pattern)) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay_s)
    tree = psutil.Process(driver.pid).children(recursive=True)
    assert driver.poll() is None, "the driver ended before it could be killed"
    driver.kill()
    driver.communicate()
    return tree


def test_the_end_of_ray_itself_is_not_taken_for_the_end_of_a_worker(tmp_path: Path) -> None:
    """A real driver whose Ray node is killed within a step; the same command then goes on."""
    command = [sys.executable, "-m", "tests.workflows.kill_driver", str(tmp_path), "4.0"]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("steps/noise/.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert node_lives(driver.pid)
    (node,) = [child for child in psutil.Process(driver.pid).children() if child.name() == "raylet"]
    node.kill()
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 1
    told = [line for line in said.splitlines() if line.startswith("pipeline.errors.Failure: step noise")][-1]
    assert "Ray itself was ended on this machine" in told and "the same command goes on" in told
    assert "lost" not in told
    again = _drive(tmp_path, 0.0)
    assert again.communicate(timeout=120)[0].startswith("computed 4")


def test_a_worker_lost_too_often_is_told_as_that_while_ray_lives(runner: StepRunner) -> None:
    runner.run(noise(4))
    for own_ray in (False, True):
        assert "process was lost 3 times (RuntimeError)" in str(lost("x", RuntimeError(), own_ray=own_ray))


def test_a_driver_killed_at_random_moments_continues_and_repeats_nothing(tmp_path: Path) -> None:
    """Real processes: SIGKILL during start-up or early work and late in it, then the same command."""
    moments = random.Random(0)
    store = StepStore(tmp_path / "steps")
    children = _kill_at(tmp_path, "steps/noise/.*.partial", moments.uniform(0.0, 0.8))
    children += _kill_at(tmp_path, "steps/noise/[!.]*/manifest.json", moments.uniform(0.0, 0.6))
    done_before = {result.path: result.path.stat().st_ino for result in store.published()}
    assert done_before

    driver = _drive(tmp_path, 1.0)
    output, _ = driver.communicate(timeout=90)
    assert driver.returncode == 0
    assert "ray True" in output
    assert {(r.name, r.key) for r in store.published()} == {(s.name, s.key) for s in graph(1.0)}
    assert {path: path.stat().st_ino for path in done_before} == done_before, "a published step was replaced"
    completed = [(line["name"], line["key"]) for line in store.completions()]
    assert len(completed) == len(set(completed)) == 4
    assert not any(store.verify(result) for result in store.published())
    leftovers = [
        p for p in tmp_path.rglob("*") if p.name.startswith(".") and p.name not in (".locks", ".progress")
    ]
    assert leftovers == [] and not [*tmp_path.glob("steps/.locks/*"), *tmp_path.glob("steps/.progress/*")]
    # The killed drivers' processes are gone too: the workers at once, Ray's helpers by the next driver.
    assert [process for process in children if process.is_running()] == []

    began = time.monotonic()
    again = _drive(tmp_path, 1.0)
    assert again.communicate(timeout=30)[0] == "computed 0 reused 4 ray False\n"
    assert time.monotonic() - began < 5


def test_what_a_runner_holds_is_told_why_it_ends(tmp_path: Path) -> None:
    """So that a store that cannot be reached does not hide a step's own reason."""
    told: list[object] = []
    with pytest.raises(Failure, match="the real reason"), StepRunner(Workspace(tmp_path).create()) as held:
        held._resources.push(lambda kind, error, _: told.append(error))
        raise Failure("the real reason")
    assert [str(error) for error in told] == ["the real reason"]
    with StepRunner(Workspace(tmp_path)) as held:
        held._resources.push(lambda kind, error, _: told.append(error))
    assert told[1:] == [None]

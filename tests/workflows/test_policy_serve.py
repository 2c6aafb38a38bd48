"""``recap policy serve``, the real command in a process of its own, and a client that uses it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.utils.constants import ACTION

from pipeline.episode import STATE_NAMES
from pipeline.errors import Failure, InputError
from pipeline.policy.channel import TOKEN_VARIABLE
from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig, gen3_features
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.remote import RemotePolicy
from pipeline.policy.runner import PolicyRunner
from pipeline.prompts import Indicator
from workflows.cli import main

TASK = "pick up the red cube"
TOKEN = "a token of some length"
STARTED_S = 120  # torch is imported on a machine that does other things


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small policy with random weights for two 84-pixel cameras."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    inputs, outputs = gen3_features(84)
    config = Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu")
    stats = {ACTION: {"q01": -torch.ones(7), "q99": torch.ones(7)}}
    Checkpoint(Gen3VLAPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)).save(folder)
    return folder


def observation(size: int) -> dict[str, Any]:
    rng = np.random.default_rng(size)
    values: dict[str, Any] = {name: float(rng.normal()) for name in STATE_NAMES}
    for camera in ("table", "wrist"):
        values[camera] = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return values


class Served:
    """The command's process; ``lines`` is what it prints."""

    def __init__(self, *words: str | Path, **environment: str) -> None:
        """Starts it and waits for the address that it prints."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workflows.cli", "policy", "serve", "--port", "0", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        self.lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.line = self.lines.get(timeout=STARTED_S)
            found = re.search(r"tcp://\S+:\d+", self.line)
            assert found, self.line
        except BaseException:
            self.process.kill()
            raise
        self.url = found[0]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def wait_for(self, words: str) -> None:
        """Reads on to a line with ``words``."""
        while words not in self.lines.get(timeout=30):
            pass


@contextlib.contextmanager
def served(*words: str | Path, **environment: str) -> Iterator[Served]:
    one = Served(*words, **environment)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait(30)


def test_a_served_checkpoint_plans_as_the_local_one_and_ctrl_c_ends_it(checkpoint: Path) -> None:
    indicator: Indicator = "negative"
    local = PolicyRunner(checkpoint, indicator=indicator)
    with served("--checkpoint", checkpoint, "--ask", indicator, "--device", "cpu") as server:
        assert "without a token, not encrypted" in server.line
        assert server.url.startswith("tcp://127.0.0.1:")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as the server: sums in another order differ in the last bit
        try:
            with RemotePolicy(server.url) as remote:
                assert remote.checkpoint_name == str(checkpoint)
                assert remote.execute_steps == local.execute_steps
                for seed, size in ((0, 84), (3, 120)):  # images of another size are resized over there
                    local.reset(TASK, seed)
                    remote.reset(TASK, seed)
                    plan = remote.plan(observation(size))
                    assert plan.shape[0] > 1
                    assert np.array_equal(plan, local.plan(observation(size)))
                    assert np.array_equal(remote.act(observation(size)), local.act(observation(size)))
                with pytest.raises(InputError, match="already ends in an indicator"):
                    remote.reset(f"{TASK}. Advantage: positive")
        finally:
            torch.set_num_threads(threads)
        server.wait_for("disconnected")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        server.wait_for("stopped")
        assert server.lines.empty()


def test_a_killed_server_is_one_line_for_the_operator(checkpoint: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with served("--checkpoint", checkpoint, "--token-file", token, "--host", "0.0.0.0") as server:
        assert "with a token, not encrypted" in server.line
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(InputError, match="refused the token"):
            RemotePolicy(url).connect()
        remote = RemotePolicy(url, TOKEN)
        remote.reset(TASK)
        assert np.isfinite(remote.plan(observation(84))).all()
        server.process.kill()
        server.process.wait(30)
        with pytest.raises(Failure, match="was lost"):
            remote.plan(observation(84))
        with pytest.raises(Failure, match="no policy server at"):
            remote.reset(TASK)
        with contextlib.suppress(Empty):  # whatever it said, the token was not in it
            while True:
                assert TOKEN not in server.lines.get_nowait()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "needs a token"),
        (["--token-file", "no-such-file"], "no-such-file: the token cannot be read"),
        (["--checkpoint", "no-such-folder"], "not a policy checkpoint"),
        (["--workspace", "no-such-folder"], "there is no workspace"),
        (["--port", "70000"], "--port"),
        (["--ask", "nicely"], "--ask"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert main(["policy", "serve", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_unknown_device_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "serve", "--checkpoint", str(checkpoint), "--device", "abacus"]) == 2
    assert "--device abacus" in capsys.readouterr().err

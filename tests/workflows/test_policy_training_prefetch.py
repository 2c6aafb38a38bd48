"""Batches drawn ahead: the same ones in the same order, a state that skips none, errors, no thread left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.workflows.killed_policy_training import CONFIG, INDICATORS, TABLE
from workflows import policy_training
from workflows.policy_training_prefetch import PrefetchedBatches

WITHIN_S = 60.0


class Numbers:
    """Random numbers as batches; ``fails_at`` is the draw, from 0, that fails and all that follow."""

    def __init__(self, fails_at: int = -1) -> None:
        """Nothing is drawn yet."""
        self._rng = np.random.default_rng(7)
        self.drawn, self._fails_at = 0, fails_at
        self.threads: set[str] = set()
        self.begun = threading.Semaphore(0)

    def draw(self) -> dict[str, Any]:
        """The next numbers."""
        self.threads.add(threading.current_thread().name)
        self.begun.release()
        if self.drawn == self._fails_at:
            raise InputError("the cache is gone")
        self.drawn += 1
        return {"number": self._rng.integers(0, 2**31, 3), "torch_threads": torch.get_num_threads()}

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """As batches keep theirs."""
        return {"drawn": np.array(self.drawn)}, {"generator": self._rng.bit_generator.state}

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """See :meth:`state`."""
        self.drawn = int(arrays["drawn"])
        self._rng.bit_generator.state = facts["generator"]


def numbers(batches: Any, count: int) -> list[list[int]]:
    return [batches.draw()["number"].tolist() for _ in range(count)]


@pytest.fixture
def ahead() -> Iterator[PrefetchedBatches]:
    """Numbers, drawn ahead."""
    batches = PrefetchedBatches(Numbers())
    yield batches
    batches.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["draw", "state", "restore", "close"]), max_size=25))
def test_whatever_is_asked_in_between_batches_come_as_without_the_thread(asked: list[str]) -> None:
    plain, ahead = Numbers(), PrefetchedBatches(Numbers())
    kept = plain.state()
    try:
        for what in asked:
            if what == "draw":
                assert numbers(ahead, 1) == numbers(plain, 1)
            elif what == "state":
                kept = plain.state()
                assert ahead.state() == kept
            elif what == "restore":
                plain.restore(*kept)
                ahead.restore(*kept)
            else:
                ahead.close()
        assert ahead.state() == plain.state()
    finally:
        ahead.close()


def test_the_next_batch_is_drawn_in_a_thread_before_it_is_asked_for() -> None:
    source = Numbers()
    ahead = PrefetchedBatches(source)
    assert source.drawn == 0, "a training that finds a kept state goes on from that"
    threads = torch.get_num_threads()
    batch = ahead.draw()
    assert all(source.begun.acquire(timeout=WITHIN_S) for _ in range(2)), "the second without being asked for"
    assert threading.current_thread().name not in source.threads and len(source.threads) == 1
    assert batch["torch_threads"] == 1 and torch.get_num_threads() == threads
    ahead.close()
    assert source.drawn == 1, "what nobody got is given back"


def test_an_error_in_the_thread_reaches_who_asks_in_its_turn_and_again() -> None:
    source = Numbers(fails_at=2)
    ahead = PrefetchedBatches(source)
    plain = Numbers()
    assert numbers(ahead, 2) == numbers(plain, 2)
    for _ in range(2):
        with pytest.raises(InputError, match="the cache is gone"):
            ahead.draw()
    assert ahead.state() == plain.state()
    ahead.close()


def test_close_leaves_no_thread_also_twice_and_before_any_draw(ahead: PrefetchedBatches) -> None:
    before = set(threading.enumerate())
    ahead.close()
    first = numbers(ahead, 2)
    assert set(threading.enumerate()) > before
    for _ in range(2):
        ahead.close()
        assert set(threading.enumerate()) == before
    assert [*first, *numbers(ahead, 3)] == numbers(Numbers(), 5)


@pytest.mark.parametrize("how", ["ends", "gives up", "diverges"])
def test_a_training_leaves_no_thread_however_it_ends(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PrefetchedBatches] = []

    class Noted(PrefetchedBatches):
        def __init__(self, batches: Any) -> None:
            super().__init__(batches)
            made.append(self)

    monkeypatch.setattr(policy_training, "PrefetchedBatches", Noted)
    before = set(threading.enumerate())

    def progress(*_: Any) -> None:
        assert set(threading.enumerate()) > before, "a batch is being drawn, or waits"
        if how == "gives up":
            raise KeyboardInterrupt

    settings = {"steps": 12} | ({"learning_rate": 1e30, "gradient_clip": 1e30} if how == "diverges" else {})
    config = policy_training.PolicyTrainingConfig(**{**CONFIG.as_json(), **settings})
    raised = {"ends": None, "gives up": KeyboardInterrupt, "diverges": InputError}[how]
    if raised is None:
        result = policy_training.train_policy(TABLE, INDICATORS, config, None, tmp_path, progress)
        assert 0 <= result.waiting_share < 1
    else:
        with pytest.raises(raised):
            policy_training.train_policy(TABLE, INDICATORS, config, None, tmp_path, progress)
    assert len(made) == 1 and set(threading.enumerate()) == before


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_weights_are_those_of_a_training_without_the_thread(
    tmp_path: Path, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = policy_training.PolicyTrainingConfig(
        **{**CONFIG.as_json(), "steps": 10, "accumulate": accumulate}
    )

    class Plain(PrefetchedBatches):
        """Draws when asked."""

        def draw(self) -> dict[str, Any]:
            return self._batches.draw()

    policy_training.train_policy(TABLE, INDICATORS, config, None, tmp_path / "ahead")
    monkeypatch.setattr(policy_training, "PrefetchedBatches", Plain)
    policy_training.train_policy(TABLE, INDICATORS, config, None, tmp_path / "plain")
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "ahead" / path.name).read_bytes(), path.name

"""A Ray that does not start in time is one line that says what to do."""

from __future__ import annotations

import inspect

import pytest
import ray
from ray._private import node

from pipeline.errors import Failure
from workflows.local_ray import local_ray

LATE = "The current node timed out during startup."


@pytest.mark.parametrize(
    "error", [Exception(f"{LATE} This could happen."), TimeoutError("Timed out after 9 s")]
)
def test_a_start_that_takes_too_long_is_a_failure(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**given: object) -> None:
        raise error

    assert LATE in inspect.getsource(node)  # what this version of Ray says
    monkeypatch.setattr(ray, "init", late)
    with (
        pytest.raises(Failure, match=r"did not start in time.*: give the same command again") as caught,
        local_ray(1),
    ):
        raise AssertionError("it started")
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_what_else_goes_wrong_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(**given: object) -> None:
        raise RuntimeError("no such option")

    monkeypatch.setattr(ray, "init", wrong)
    with pytest.raises(RuntimeError, match="no such option"), local_ray(1):
        raise AssertionError("it started")

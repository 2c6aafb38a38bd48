"""Streamlit ends a page's run half-way when a key or a click starts the next one: no lease is lost by it."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData
from streamlit.runtime.scriptrunner_utils.script_run_context import get_script_run_ctx
from streamlit.testing.v1 import AppTest

from labeling_app.launch import APP
from pipeline.labels import LabelEvent, LabelStore, Lease
from pipeline.workspace import Workspace
from tests.labeling_app.pages import SPEAKING, clean, page_of, say, shown
from tests.tiny_episodes import EpisodeMaker

pytestmark = pytest.mark.usefixtures("on_loopback")
ENOUGH = 8  # so that a page takes the next episode in advance


def request(how: str) -> None:
    """What Streamlit's server does to a run that goes on: the next access to the session ends it.

    ``stop``: the browser has gone, or, with fast reruns, another thread runs the page from now on; ``rerun``:
    the same thread does.
    """
    context = get_script_run_ctx()
    assert context is not None and context.script_requests is not None
    if how == "stop":
        context.script_requests.request_stop()
    else:
        assert context.script_requests.request_rerun(RerunData(query_string="name=Ana"))


def interrupted(monkeypatch: pytest.MonkeyPatch, method: str, call: int, how: str) -> list[Any]:
    """What the label store's ``method`` returned; during its ``call``-th call the run's end is asked for."""
    returned: list[Any] = []
    real = getattr(LabelStore, method)

    def and_then(self: LabelStore, *args: Any, **named: Any) -> Any:
        found = real(self, *args, **named)
        returned.append(found)
        if len(returned) == call:
            request(how)
        return found

    monkeypatch.setattr(LabelStore, method, and_then)
    return returned


def leased(workspace: Workspace) -> set[str]:
    """The episodes that nobody else gets."""
    rows = LabelStore(workspace.labels_path)._read("SELECT id FROM episodes WHERE leased_by IS NOT NULL")
    return {row["id"] for row in rows}


def run(page: AppTest) -> AppTest:
    """Runs the page, though the run may end at once and leave nothing drawn."""
    return page.run()


@pytest.mark.parametrize("call", [1, 2], ids=["the episode shown", "the one after it"])
def test_a_browser_that_goes_while_an_episode_is_leased_leaves_it_to_others(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    for _ in range(ENOUGH):
        make_episode()
    leases = interrupted(monkeypatch, "claim", call, "stop")
    page = AppTest.from_file(str(APP), default_timeout=60)
    page.query_params["name"] = "Ana"
    run(page)
    assert len(leases) == call
    assert leased(workspace) == {lease.episode_id for lease in leases[:-1]}
    # Whoever comes next gets it, without waiting until a lease runs out.
    ben = page_of("Ben")
    assert shown(ben)["episode"] == leases[call - 1].episode_id


@pytest.mark.parametrize("call", [1, 2], ids=["the episode shown", "the one after it"])
def test_a_run_that_starts_over_while_an_episode_is_leased_holds_no_third_one(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    for _ in range(ENOUGH):
        make_episode()
    leases = interrupted(monkeypatch, "claim", call, "rerun")
    page = page_of("Ana")
    assert len(leases) == 3 and shown(page)["episode"] == "episode-000"
    assert leased(workspace) == {"episode-000", "episode-001"}
    # What the page's address names is what is leased: it is had again after a reload.
    again = page_of("Ana", **{name: str(page.query_params[name]) for name in ("at", "next")})
    assert shown(again)["token"] == shown(page)["token"]
    assert leased(workspace) == {"episode-000", "episode-001"}


@pytest.mark.parametrize("how", ["stop", "rerun"])
def test_an_answer_is_not_asked_for_twice_where_the_run_ends_after_it(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for _ in range(ENOUGH):
        make_episode()
    page = page_of(script=SPEAKING)
    said: list[LabelEvent] = interrupted(monkeypatch, "record", 1, how)
    first = shown(page)
    say(page, monkeypatch, "success")
    clean(page.run())
    assert [event.episode_id for event in said] == [first["episode"]]
    assert shown(page)["episode"] == "episode-001" and not page.error
    assert leased(workspace) == {"episode-001", "episode-002"}


def test_what_was_taken_back_is_shown_though_the_run_that_leased_it_ends(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(ENOUGH):
        make_episode()
    page = page_of(script=SPEAKING)
    say(page, monkeypatch, "failure", note="fell")
    leases: list[Lease] = interrupted(monkeypatch, "claim_episode", 1, "rerun")
    clean(page.button(key="undo").click().run())
    assert [lease.episode_id for lease in leases] == ["episode-000"] * 2
    assert (shown(page)["episode"], shown(page)["note"]) == ("episode-000", "fell")
    assert leased(workspace) <= {"episode-000", "episode-001", "episode-002"}

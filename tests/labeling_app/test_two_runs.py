"""Two runs of one page at once, each in a thread of its own, as Streamlit's fast reruns make them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.runtime.fragment import MemoryFragmentStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.scriptrunner_utils.exceptions import StopException
from streamlit.runtime.scriptrunner_utils.script_run_context import ScriptRunContext, add_script_run_ctx
from streamlit.runtime.state import SafeSessionState, SessionState

from labeling_app import on_screen
from labeling_app.catalogue import Catalogue
from labeling_app.labeling_queue import LabelingQueue, Ticket
from labeling_app.messages import Said
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker

LONG_S = 20.0
MOMENT_S = 0.5
"""How long the first of two calls waits for the second, which may have to wait for the first."""


class Run(threading.Thread):
    """A run of the page in a session that it shares with others; ``end`` is what Streamlit does to it."""

    def __init__(self, session: SessionState, page: Callable[[], Ticket | None]) -> None:
        super().__init__()
        self._session, self._page, self._told = session, page, threading.Event()
        self.found: Ticket | None = None
        self.ended_early = False

    def run(self) -> None:
        """As Streamlit's own thread: a state of its own over the shared session, which ends the run."""
        add_script_run_ctx(
            self,
            ScriptRunContext(
                session_id="one",
                _enqueue=lambda message: None,
                query_string="",
                session_state=SafeSessionState(self._session, self._end_if_told),
                uploaded_file_mgr=MemoryUploadedFileManager("/upload"),
                main_script_path="page.py",
                user_info={"email": None},
                fragment_storage=MemoryFragmentStorage(),
                pages_manager=PagesManager("page.py"),
            ),
        )
        try:
            self.found = self._page()
        except StopException:
            self.ended_early = True

    def end(self) -> None:
        """The run ends at its next access to the session."""
        self._told.set()

    def finish(self) -> Run:
        """Waits for the run's end."""
        self.join(LONG_S)
        assert not self.is_alive()
        return self

    def _end_if_told(self) -> None:
        if self._told.is_set():
            raise StopException


def started(session: SessionState, page: Callable[[], Ticket | None]) -> Run:
    run = Run(session, page)
    run.start()
    return run


def late(monkeypatch: pytest.MonkeyPatch, method: str) -> threading.Event:
    """The store's ``method`` is slow once: its first call is overtaken by the second, if that comes at all.

    The second then returns after the first. The event says that the first has begun.
    """
    begun, first_done, second_done = threading.Event(), threading.Event(), threading.Event()
    real = getattr(LabelStore, method)

    def and_late(self: LabelStore, *args: Any, **named: Any) -> Any:
        is_first = not begun.is_set()
        begun.set()
        if is_first:
            second_done.wait(MOMENT_S)
        found = real(self, *args, **named)
        (first_done if is_first else second_done).set()
        first_done.wait(LONG_S)
        return found

    monkeypatch.setattr(LabelStore, method, and_late)
    return begun


def test_the_lease_of_what_was_taken_back_holds_though_an_ended_run_claims_it_too(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode()
    session = SessionState()
    with LabelStore(workspace.labels_path) as store:
        catalogue = Catalogue(workspace, store)
        catalogue.look()
        queue = LabelingQueue(catalogue, store, "Ana")

        def answer_and_take_back() -> Ticket | None:
            ticket = on_screen.current_ticket(queue)
            assert ticket is not None
            on_screen.take_in(on_screen.screen(), queue, ticket, Said(ticket.token, "success"))
            on_screen.undo(queue)
            return ticket

        assert started(session, answer_and_take_back).finish().found is not None
        begun = late(monkeypatch, "claim_episode")
        old = started(session, lambda: on_screen.current_ticket(queue))
        assert begun.wait(LONG_S)
        old.end()
        new = started(session, lambda: on_screen.current_ticket(queue)).finish()
        assert old.finish().ended_early and new.found is not None
        assert queue.answer(new.found, Said(new.found.token, "failure")).outcome == "failure"

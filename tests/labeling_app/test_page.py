"""The page itself, run by Streamlit's own test harness on real episodes (no browser, no JavaScript)."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import streamlit.config
from streamlit.testing.v1 import AppTest

from labeling_app.launch import APP
from pipeline.episode import Source
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker

EVIL = "<img src=x onerror=alert(1)> *pick* [up](http://x)"


@pytest.fixture(autouse=True)
def on_loopback(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's address and command line, as ``recap label`` gives them."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--workspace", str(workspace.root)])
    streamlit.config.set_option("server.address", "127.0.0.1")


def opened(name: str | None = "Ana", **parameters: str) -> AppTest:
    """The page as it looks after the first run."""
    page = AppTest.from_file(str(APP), default_timeout=30)
    if name is not None:
        page.query_params["name"] = name
    for key, value in parameters.items():
        page.query_params[key] = value
    return clean(page.run())


def clean(page: AppTest) -> AppTest:
    assert not page.exception, page.exception
    return page


def episode_on(page: AppTest) -> str:
    """The id in the page's address (the harness gives a list where the page has set it)."""
    value = page.query_params["episode"]
    return value if isinstance(value, str) else value[0]


def press(page: AppTest, key: str) -> AppTest:
    return clean(page.button(key=key).click().run())


def test_a_newcomer_gives_a_name_and_labels_everything(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    make_episode(sources=[Source.POLICY] * 6 + [Source.INTERVENTION] * 6)
    make_episode(task="pick up the blue cube")
    page = opened(name=None)
    assert "Label episodes" in page.title[0].value
    page.text_input[0].input(" Ana ")
    clean(page.button[0].click().run())
    assert page.subheader[0].value == "pick up the red cube"
    assert any("a person corrected: 0.6–1.2 s" in text.value for text in page.markdown)
    assert len(list((workspace.cache / "films").glob("*.mp4"))) == 1

    press(page, "success")
    assert page.subheader[0].value == "pick up the blue cube"
    page.text_input[0].input("dropped it")
    press(page, "failure")
    assert page.title[0].value == "All episodes are labelled"
    labels = LabelStore(workspace.labels_path).current()
    assert [(label.annotator, label.outcome, label.note) for label in labels.values()] == [
        ("Ana", "success", ""),
        ("Ana", "failure", "dropped it"),
    ]


def test_undo_shows_the_episode_again(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    make_episode()
    make_episode()
    page = opened()
    first = episode_on(page)
    press(page, "success")
    assert episode_on(page) != first
    press(page, "undo")
    assert episode_on(page) == first
    assert LabelStore(workspace.labels_path).current() == {}
    press(page, "failure")
    assert LabelStore(workspace.labels_path).current()[first].outcome == "failure"


def test_skipped_episodes_can_be_looked_at_again(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    make_episode()
    page = press(opened(), "skip")
    assert page.title[0].value == "Nothing left for you"
    again = next(button for button in page.button if "skipped" in button.label)
    clean(again.click().run())
    press(page, "exclude")
    assert LabelStore(workspace.labels_path).current()["episode-000"].outcome == "exclude"


def test_two_annotators_and_a_reload(make_episode: EpisodeMaker) -> None:
    make_episode()
    make_episode()
    ana, ben = opened("Ana"), opened("Ben")
    assert episode_on(ana) != episode_on(ben)
    reloaded = opened("Ana", episode=episode_on(ana))
    assert episode_on(reloaded) == episode_on(ana)
    # The window that Ana forgot must not label the episode a second time.
    press(reloaded, "success")
    press(ana, "failure")
    assert any("Not saved" in toast.value for toast in ana.toast)


@pytest.mark.parametrize("key", ["success", "skip"])
def test_a_click_counts_only_for_the_episode_it_was_meant_for(
    workspace: Workspace, make_episode: EpisodeMaker, key: str
) -> None:
    make_episode()
    make_episode()
    page = opened()
    # As when the server has gone on, but the browser still showed the episode before as the key was pressed.
    store = LabelStore(workspace.labels_path)
    newer = store.claim_episode(episode_on(page), "Ana")
    page.session_state["ticket"] = replace(page.session_state["ticket"], lease=newer)
    press(page, key)
    assert store.current() == {}
    assert store.progress().leased == 1
    assert not page.toast
    press(page, "success")
    assert list(store.current()) == ["episode-000"]


def test_typed_text_is_never_markup(make_episode: EpisodeMaker) -> None:
    make_episode(task=EVIL, operator="<b>nadia</b>")
    make_episode(task=EVIL)
    page = press(opened("<i>Ana</i>"), "success")
    # Where Markdown is read, every sign that it acts on is escaped; elsewhere text is text.
    for element in (page.subheader[0], page.toast[0], page.sidebar.markdown[0]):
        assert r"\<img src\=x onerror\=alert\(1\)\> \*pick\* \[up\]\(http\:\/\/x\)" in element.value
    assert page.sidebar.text[0].value == "Labelling as <i>Ana</i>"
    assert all(not element.allow_html for element in (*page.markdown, *page.caption))


def test_an_episode_that_cannot_be_shown_can_still_be_excluded(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry = make_episode(size=(120, 160), truncated=True)
    data = entry.path.read_bytes()
    at = data.rindex(b"\xff\xd8\xff")
    entry.path.write_bytes(data[:at] + bytes(64) + data[at + 64 :])
    page = opened()
    assert "cannot be shown" in page.error[0].value
    assert "cut short" in page.warning[0].value
    press(page, "exclude")
    assert LabelStore(workspace.labels_path).current()[entry.id].outcome == "exclude"


def test_a_task_can_be_chosen(make_episode: EpisodeMaker) -> None:
    make_episode()
    make_episode(task="pick up the blue cube")
    page = opened()
    assert page.subheader[0].value == "pick up the red cube"
    clean(page.selectbox[0].select("pick up the blue cube").run())
    assert page.subheader[0].value == "pick up the blue cube"


def test_an_empty_workspace_says_what_to_do() -> None:
    assert opened().title[0].value == "No episodes yet"


def test_a_missing_workspace_is_one_clear_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--workspace", str(workspace.root / "nowhere")])
    assert "There is no workspace" in opened().error[0].value


@pytest.mark.parametrize("address", [None, "0.0.0.0", "192.168.1.20"])
def test_without_sign_in_the_page_serves_this_computer_only(
    make_episode: EpisodeMaker, address: str | None
) -> None:
    make_episode()
    streamlit.config.set_option("server.address", address)
    page = opened("Ana")
    assert not page.subheader
    assert "sign in" in page.error[0].value

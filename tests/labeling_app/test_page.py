"""The label page, run by Streamlit's own test harness on real episodes."""

from __future__ import annotations

import json
import sqlite3
import sys
from typing import Any

import pytest
import streamlit.config

from labeling_app import on_screen
from labeling_app.identity import is_reviewer
from pipeline.episode import Source
from pipeline.labels import LabelStore, QueueFilter
from pipeline.workspace import Workspace
from tests.labeling_app.pages import ONE_PAGE, SPEAKING, clean, errors, page_of, say, shown
from tests.tiny_episodes import EpisodeMaker

pytestmark = pytest.mark.usefixtures("on_loopback")
EVIL = "<img src=x onerror=alert(1)> *pick* [up](http://x)"


def test_a_newcomer_gives_a_name_and_sees_the_oldest_episode(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    make_episode(sources=[Source.POLICY] * 6 + [Source.INTERVENTION] * 6, operator_mark="failure")
    make_episode(task="pick up the blue cube")
    page = page_of(name=None)
    assert "Label episodes" in page.title[0].value
    page.text_input[0].input(" Ana ")
    clean(page.button[0].click().run())
    assert page.subheader[0].value == "pick up the red cube"
    data = shown(page)
    assert [span["driver"] for span in data["spans"]] == ["policy", "correction"]
    assert [camera["name"] for camera in data["cameras"]] == ["table", "wrist"]
    assert all(camera["url"].endswith(".mp4") for camera in data["cameras"])
    assert "failure" not in json.dumps(data)  # the operator's own mark is shown after the answer
    assert "failure" not in " ".join(text.value for text in page.text)


def test_answers_come_one_after_the_other_and_undo_goes_back(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode(operator_mark="failure")
    make_episode(task="pick up the blue cube")
    page = page_of(script=SPEAKING)
    mark = {"kind": "success", "start_frame": 3, "end_frame": 3, "text": ""}
    say(page, monkeypatch, "success", quality="clean", note="well", marks=[mark])
    assert page.subheader[0].value == "pick up the blue cube"
    assert any("operator: failure" in text.value for text in page.sidebar.markdown)
    say(page, monkeypatch, "failure")
    assert page.title[0].value == "All episodes are labelled"
    labels = LabelStore(workspace.labels_path).current()
    assert [(label.outcome, label.quality, label.note) for label in labels.values()] == [
        ("success", "clean", "well"),
        ("failure", None, ""),
    ]
    for task in ("pick up the blue cube", "pick up the red cube"):
        clean(page.button(key="undo").click().run())
        assert page.subheader[0].value == task
        assert task in page.toast[0].value
    assert LabelStore(workspace.labels_path).current() == {}
    data = shown(page)  # what was said of it is there again
    assert (data["quality"], data["note"], data["marks"]) == ("clean", "well", [mark])


def test_skipped_episodes_can_be_looked_at_again(
    make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode()
    page = say(page_of(script=SPEAKING), monkeypatch, "skip")
    assert page.title[0].value == "Nothing left for you"
    again = next(button for button in page.button if "skipped" in button.label)
    clean(again.click().run())
    assert shown(page)["episode"] == "episode-000"


def test_two_annotators_a_reload_and_a_forgotten_window(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        make_episode()
    ana, ben = page_of("Ana", script=SPEAKING), page_of("Ben", script=SPEAKING)
    assert shown(ana)["episode"] != shown(ben)["episode"]
    reloaded = page_of("Ana", script=SPEAKING, at=shown(ana)["token"])
    assert shown(reloaded)["episode"] == shown(ana)["episode"]
    say(reloaded, monkeypatch, "success")
    # The window that Ana forgot must not label the episode a second time.
    say(ana, monkeypatch, "failure")
    assert "Not saved" in errors(ana)
    assert [label.outcome for label in LabelStore(workspace.labels_path).current().values()] == ["success"]


def test_an_answer_counts_only_for_the_look_it_was_meant_for(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode()
    page = page_of(script=SPEAKING)
    monkeypatch.setattr(on_screen, "last_message", lambda: {"token": "episode-000:0", "answer": "success"})
    clean(page.button(key="say").click().run())
    assert LabelStore(workspace.labels_path).current() == {}
    monkeypatch.setattr(on_screen, "last_message", lambda: ["garbage"])
    clean(page.button(key="say").click().run())
    assert "Not saved" in errors(page)


def test_a_locked_store_refuses_the_label_and_keeps_the_page(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode()
    page = page_of(script=SPEAKING)
    before = shown(page)
    with sqlite3.connect(workspace.labels_path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        say(page, monkeypatch, "success")
        other.execute("ROLLBACK")
    other.close()
    assert "locked" in errors(page)
    assert "Your answer is still here" in errors(page)
    assert (shown(page)["token"], shown(page)["attempt"]) == (before["token"], before["attempt"] + 1)
    say(page, monkeypatch, "success")
    assert list(LabelStore(workspace.labels_path).current()) == ["episode-000"]


def test_a_full_disk_refuses_the_label_and_keeps_the_page(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode()
    page = page_of(script=SPEAKING)
    store = page.session_state["screen"].queue.store
    with store._lock:
        pages = store._opened().execute("PRAGMA page_count").fetchone()[0]
        store._opened().execute(f"PRAGMA max_page_count = {pages}")
    say(page, monkeypatch, "success", note="n" * 500)
    for _ in range(200):  # until the pages that are left are used up
        if page.error:
            break
        clean(page.button(key="undo").click().run())
        say(page, monkeypatch, "success", note="n" * 500)
    assert "full" in errors(page)
    assert "nothing was stored" in errors(page)


def test_a_read_only_store_refuses_the_label_and_keeps_the_page(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode()
    page = page_of(script=SPEAKING)
    store = page.session_state["screen"].queue.store
    with store._lock:
        store._opened().execute("PRAGMA query_only = 1")  # as where the file's permissions were taken away
    say(page, monkeypatch, "success")
    assert "cannot be written, nothing was stored" in errors(page)
    assert shown(page)["episode"] == "episode-000"
    with store._lock:
        store._opened().execute("PRAGMA query_only = 0")
    say(page, monkeypatch, "success")
    assert list(LabelStore(workspace.labels_path).current()) == ["episode-000"]


def test_a_store_that_is_no_database_is_one_clear_line(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    make_episode()
    workspace.labels_path.write_bytes(b"not a database" * 100)
    assert "cannot open the label store" in errors(page_of())


def test_typed_text_is_never_markup(make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    make_episode(task=EVIL, operator="<b>nadia</b>", operator_mark="success")
    make_episode(task=EVIL)
    page = page_of("<i>Ana</i>", script=SPEAKING)
    say(page, monkeypatch, "success", note=EVIL)
    # Where Markdown is read, every sign that it acts on is escaped; elsewhere text is text.
    for element in (page.subheader[0], page.toast[0], page.sidebar.markdown[0]):
        assert r"\<img src\=x onerror\=alert\(1\)\> \*pick\* \[up\]\(http\:\/\/x\)" in element.value
    assert page.sidebar.text[0].value == "Labelling as <i>Ana</i>"
    assert all(not element.allow_html for element in (*page.markdown, *page.caption))
    (player,) = page.get("bidi_component")
    assert EVIL not in player.proto.html_content + player.proto.js_content + player.proto.css_content


def test_the_script_of_the_player_never_writes_html() -> None:
    from labeling_app.player import FILES

    for path in FILES.glob("*.js"):
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in path.read_text(encoding="utf-8"), (path, way)


def test_an_episode_that_cannot_be_shown_can_still_be_excluded(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_episode(size=(120, 160), truncated=True)
    data = entry.path.read_bytes()
    at = data.rindex(b"\xff\xd8\xff")
    entry.path.write_bytes(data[:at] + bytes(64) + data[at + 64 :])
    page = page_of(script=SPEAKING)
    assert "cannot be shown" in shown(page)["problem"]
    assert "cut short" in shown(page)["hint"]
    say(page, monkeypatch, "exclude")
    assert LabelStore(workspace.labels_path).current()[entry.id].outcome == "exclude"


def test_the_queue_can_be_narrowed_and_ordered(make_episode: EpisodeMaker) -> None:
    make_episode()
    make_episode(task="pick up the blue cube", sources=[Source.POLICY] * 12)
    page = page_of()
    assert page.subheader[0].value == "pick up the red cube"
    clean(page.selectbox(key="task").select("pick up the blue cube").run())
    assert page.subheader[0].value == "pick up the blue cube"
    clean(page.selectbox(key="driver").select("teleop").run())
    assert not page.subheader
    clean(page.selectbox(key="task").select("all tasks").run())
    clean(page.selectbox(key="order").select("helpful").run())
    assert page.subheader[0].value == "pick up the red cube"
    assert page.session_state["filter"] == QueueFilter(order="helpful", driver="teleop")


def test_an_empty_workspace_says_what_to_do() -> None:
    assert page_of().title[0].value == "No episodes yet"
    for page in ("review", "dashboard"):
        assert page_of(script=ONE_PAGE.format(page=page, reviewer=True)).title[0].value == "No episodes yet"


def test_a_missing_workspace_is_one_clear_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--workspace", str(workspace.root / "nowhere")])
    assert "There is no workspace" in errors(page_of())


@pytest.mark.parametrize("address", [None, "0.0.0.0", "192.168.1.20"])
def test_without_sign_in_the_page_serves_this_computer_only(
    make_episode: EpisodeMaker, address: str | None
) -> None:
    make_episode()
    streamlit.config.set_option("server.address", address)
    page = page_of("Ana")
    assert not page.subheader
    assert "sign in" in page.error[0].value


def test_who_is_a_reviewer() -> None:
    assert is_reviewer("Ana", (), on_this_computer=True)
    assert not is_reviewer("Ana", (), on_this_computer=False)
    for here in (True, False):
        assert is_reviewer("Ana", ("Ana",), on_this_computer=here)
        assert not is_reviewer("Ben", ("Ana",), on_this_computer=here)


@pytest.mark.parametrize(
    ("subtasks", "count", "said"),
    [
        ([[f"s{i}", i, i + 1] for i in range(150)], 100, "The first 100 of 150 sub-tasks came with"),
        (
            [["reach for it, " * 16, 0, 5], ["lift", 5, 9]],
            1,
            "1 of 2 sub-tasks, without 1 with names of over 200 characters, came with",
        ),
        ([["reach for it, " * 16, 0, 5]], 0, "came with 1 with names of over 200"),
    ],
    ids=["too many", "one too long", "all too long"],
)
def test_only_sub_tasks_that_can_be_saved_are_proposed_and_the_page_says_what_is_left_out(
    workspace: Workspace,
    make_episode: EpisodeMaker,
    monkeypatch: pytest.MonkeyPatch,
    subtasks: list[list[Any]],
    count: int,
    said: str,
) -> None:
    make_episode(sources=(Source.TELEOP,) * 150, extra={"import": {"subtasks": subtasks}})
    page = page_of(script=SPEAKING)
    data = shown(page)
    assert len(data["marks"]) == count and said in data["hint"]
    assert ("are right" in data["hint"]) == bool(count)
    say(page, monkeypatch, "success", marks=data["marks"])
    assert not page.error
    (label,) = LabelStore(workspace.labels_path).current().values()
    assert len(label.marks) == count


def test_sub_tasks_that_an_episode_came_with_are_proposed_until_somebody_answers(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_episode(extra={"import": {"subtasks": [["reach", 0, 5], ["lift", 5, 9]]}})
    make_episode(extra={"import": {"subtasks": [["beyond the end", 0, 10_000]]}})
    page = page_of(script=SPEAKING)
    data = shown(page)
    assert [(m["kind"], m["text"], m["start_frame"], m["end_frame"]) for m in data["marks"]] == [
        ("segment", "reach", 0, 5),
        ("segment", "lift", 5, 9),
    ]
    assert "came with the recording" in data["hint"]
    say(page, monkeypatch, "success", marks=data["marks"][:1])
    assert shown(page)["marks"] == [] and "came with" not in shown(page)["hint"]
    (label,) = LabelStore(workspace.labels_path).current().values()
    assert [mark.text for mark in label.marks] == ["reach"]
    clean(page.button(key="undo").click().run())
    assert [mark["text"] for mark in shown(page)["marks"]] == ["reach"], (
        "what was said, not what was proposed"
    )

"""The app as annotators have it: a real server, a real browser, the keyboard."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import cv2

from pipeline.episode import Source
from pipeline.iteration_file import iterations_path
from pipeline.labels import LabelStore, Mark
from pipeline.workspace import Workspace
from tests.labeling_app.browser import Browser
from tests.labeling_app.serving import EPISODE, FRAME, IDLE, PLAYING, Server, needs_browser, next_episode
from tests.tiny_episodes import EpisodeMaker, picture
from tests.workflows.sample_history import make_history
from workflows.report_iterations import write_iterations_report

pytestmark = needs_browser
P, H = Source.POLICY, Source.INTERVENTION
FOCUSED = "(document.querySelector('input')?.focus(), document.activeElement.tagName == 'INPUT')"
EVIL = "pick up <img src=x onerror=window.evil=1> the cube"
HINT = "document.querySelector('.rc-hint').textContent"
TIMES = "JSON.stringify([...document.querySelectorAll('video')].map((v) => v.currentTime))"
# The left edge of the red square in the first camera's picture, in pixels of the recording.
SQUARE = """(() => {
  const video = document.querySelector('video');
  if (video.seeking || video.readyState < 2) return -1;
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0);
  const row = context.getImageData(0, canvas.height / 2 + 6, canvas.width, 1).data;
  for (let x = 0; x < canvas.width; x++) if (row[4 * x] - row[4 * x + 1] > 80) return x;
  return -1;
})()"""


def play_in_step(browser: Browser, rate_hz: float) -> None:
    """Waits until both cameras have moved on, within one frame of each other."""
    start = json.loads(browser.wait_for(f"{PLAYING} && {TIMES}"))

    def moved(times: list[float]) -> bool:
        return all(abs(now - before) > 1 / rate_hz for now, before in zip(times, start, strict=True))

    deadline = time.monotonic() + 20
    times = start
    while not (len(times) == 2 and moved(times) and abs(times[0] - times[1]) <= 1 / rate_hz):
        assert time.monotonic() < deadline, f"the cameras are not in step: {start}, {times}"
        time.sleep(0.02)
        times = json.loads(browser.run(TIMES))


def test_ten_episodes_with_keys_only_and_a_killed_server(
    workspace: Workspace, make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    for number in range(12):
        make_episode(
            task=EVIL, sources=[P] * 8 + [H] * 8 + [P] * 4, operator_mark=("success", None)[number % 2]
        )
    store = LabelStore(workspace.labels_path)
    with Server(workspace.root) as server, Browser(tmp_path / "profile") as browser:
        browser.open(server.address)
        browser.wait_for_text("Your name", 60)
        browser.wait_for(FOCUSED)
        browser.type("Ana")
        browser.wait_for("document.querySelector('input').value == 'Ana'")
        browser.press("Enter")
        browser.wait_for_text("a person corrected", 60)
        play_in_step(browser, 10.0)
        shown = str(browser.wait_for(EPISODE))
        assert "operator: success" not in browser.text()  # the operator's mark comes after the answer
        seen, outcomes = [], []
        for number in range(10):
            key, outcome = [("s", "success"), ("f", "failure"), ("x", "exclude")][number % 3]
            browser.press(key)
            seen.append(shown)
            outcomes.append(outcome)
            shown = next_episode(browser, shown)
        given = {id_: label.outcome for id_, label in store.current().items()}
        assert given == dict(zip(seen, outcomes, strict=True))
        browser.wait_for_text("operator: success")
        assert browser.run("window.evil === undefined && !document.querySelector('img[src=x]')")

        browser.wait_for(IDLE)
        browser.press("u")
        assert next_episode(browser, shown) == seen[-1]
        assert len(store.current()) == 9

        server.stop()  # SIGKILL
        server.start()
        browser.open(str(browser.run("location.href")))
        browser.wait_for_text("You have answered 9", 60)
        assert browser.wait_for(EPISODE) == seen[-1]
        browser.press("s")
        next_episode(browser, seen[-1])
        assert store.current()[seen[-1]].outcome == "success"
        assert len(store.current()) == 10


def mark_two_more_segments(browser: Browser) -> None:
    """After one that ends with frame 7: frames 8 and 9, and the same under another name, which goes again."""

    def end_as(name: str) -> None:
        browser.press("ArrowRight")
        browser.press("e")
        browser.wait_for("document.activeElement.className == 'rc-segment-text'")
        browser.type(name)
        browser.press("Enter")

    browser.press("b")  # without moving: it begins with the frame after the last one's end
    browser.wait_for(f"{FRAME} == 8")
    browser.wait_for(f"{HINT}.includes('begins at frame 9')")
    end_as("lift")
    browser.wait_for(f"{HINT} == ''")
    browser.press("ArrowLeft")
    browser.press("b")
    end_as("turn")
    browser.wait_for(f"{HINT} == '“lift” and “turn” share frames 9–10, where neither is taught.'")
    browser.run("document.querySelectorAll('.rc-chip-segment .rc-remove')[2].click()")
    browser.wait_for(f"{HINT} == ''")


def test_marks_quality_and_note_land_where_they_were_made(
    workspace: Workspace, make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    length, size = 15, (96, 128)
    for _ in range(2):
        make_episode(sources=[P] * length, size=size)
    store = LabelStore(workspace.labels_path)
    with Server(workspace.root) as server, Browser(tmp_path / "profile") as browser:
        browser.open(f"{server.address}/?name=Ana")
        browser.wait_for(PLAYING, 60)
        browser.press(" ")
        browser.press("Home")
        for key, frame in (("", 0), *(("ArrowRight", number) for number in range(1, 7)), ("ArrowLeft", 5)):
            if key:
                browser.press(key)
            browser.wait_for(f"{FRAME} == {frame}")
            shown = picture(frame, length, size, (210, 40, 40))[size[0] // 2 + 6].astype(int)
            left = int((shown[:, 0] - shown[:, 1] > 80).argmax())
            browser.wait_for(f"Math.abs({SQUARE} - {left}) <= 2")
        browser.press("d")
        browser.press("2")
        browser.press("b")
        browser.press("ArrowRight")
        browser.press("ArrowRight")
        browser.wait_for(f"{FRAME} == 7")
        browser.press("e")
        # What is typed is text, not answers; Enter goes back to the keys.
        browser.wait_for("document.activeElement.className == 'rc-segment-text'")
        for key in "sfx":
            browser.press(key)
        browser.press("Enter")
        mark_two_more_segments(browser)
        browser.press("t")
        browser.wait_for("document.activeElement.className == 'rc-note'")
        browser.type("<b>slow</b> start")
        for key in "su":
            browser.press(key)
        browser.press("Escape")
        assert store.current() == {}
        picture_path = Path(os.environ.get("LABELING_SCREENSHOT", tmp_path / "page.png"))
        browser.screenshot(picture_path)
        shot = cv2.imread(str(picture_path))
        assert shot is not None
        assert shot.shape == (800, 1280, 3)
        first = str(browser.run(EPISODE))
        browser.press("s")
        next_episode(browser, first)
    label = store.current()[first]
    assert (label.outcome, label.quality, label.note) == ("success", "clumsy", "<b>slow</b> startsu")
    segments = Mark("segment", 5, 8, "sfx"), Mark("segment", 8, 10, "lift")
    assert label.marks == (Mark("success", 5, 5), *segments)


def test_what_was_not_sent_survives_a_reload_and_an_open_segment_holds_the_answer(
    workspace: Workspace, make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    for _ in range(2):
        make_episode(sources=[P] * 10)
    with Server(workspace.root) as server, Browser(tmp_path / "profile") as browser:
        browser.open(f"{server.address}/?name=Ana")
        browser.wait_for(PLAYING, 60)
        first = str(browser.run(EPISODE))
        browser.press(" ")
        for key in ("Home", "d", "2", "b", "s"):
            browser.press(key)
        browser.wait_for(f"{HINT}.includes('has no end')")
        browser.press("Backspace")
        browser.press("t")
        browser.type("slow")
        browser.press("Enter")
        browser.wait_for(IDLE)
        browser.open(str(browser.run("location.href")))
        browser.wait_for(f"{PLAYING} && document.querySelector('.rc-note').value == 'slow'", 60)
        assert browser.run(EPISODE) == first
        browser.press("s")
        next_episode(browser, first)
        assert browser.run("document.querySelector('.rc-note').value") == ""
    label = LabelStore(workspace.labels_path).current()[first]
    assert (label.quality, label.note, label.marks) == ("clumsy", "slow", (Mark("success", 0, 0),))


def test_an_answer_given_while_the_server_is_away_is_not_lost(
    workspace: Workspace, make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    for _ in range(2):
        make_episode(sources=[P] * 10)
    store = LabelStore(workspace.labels_path)
    with Server(workspace.root) as server, Browser(tmp_path / "profile") as browser:
        browser.open(f"{server.address}/?name=Ana")
        browser.wait_for(PLAYING, 60)
        first = str(browser.run(EPISODE))
        browser.press(" ")
        browser.press("Home")
        browser.press("d")
        server.stop()
        browser.press("s")
        server.start()
        # The page finds the server by itself; the key then counts, once, with what was marked before.
        waiting = "document.querySelector('.rc').classList.contains('rc-waiting')"
        browser.wait_for(f"({EPISODE}) != {first!r} || !{waiting}", 60)
        if browser.run(EPISODE) == first:
            browser.wait_for(IDLE)
            browser.press("s")
        next_episode(browser, first)
    (event,) = store.events()
    assert (event.episode_id, event.marks) == (first, (Mark("success", 0, 0),))


def test_two_browsers_never_get_the_same_episode(
    workspace: Workspace, make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    # Each has two in hand, and what a slow machine lets run out goes to the other: there are more than six.
    for _ in range(16):
        make_episode(sources=[P] * 6)
    store = LabelStore(workspace.labels_path)
    with (
        Server(workspace.root) as server,
        Browser(tmp_path / "one") as one,
        Browser(tmp_path / "two") as two,
    ):
        people = {"Ana": one, "Ben": two}
        for name, browser in people.items():
            browser.open(f"{server.address}/?name={name}")
        shown = {name: str(browser.wait_for(EPISODE, 180)) for name, browser in people.items()}
        for _ in range(3):
            assert len(set(shown.values())) == 2
            for browser in people.values():  # at the same time
                browser.press("s")
            shown = {name: next_episode(browser, shown[name]) for name, browser in people.items()}
    given = [event for event in store.events() if event.undoes is None]
    assert len(given) == 6
    assert len({event.episode_id for event in given}) == 6
    assert {event.annotator for event in given} == {"Ana", "Ben"}


def test_the_other_pages_open(workspace: Workspace, make_episode: EpisodeMaker, tmp_path: Path) -> None:
    make_episode(sources=[P] * 6 + [H] * 6)
    expected = {
        "review": "Relabel",
        "adjudicate": "No disputes",
        "dashboard": "Corrections by policy",
        "iterations": "No iterations yet",
    }
    with Server(workspace.root) as server, Browser(tmp_path / "profile") as browser:
        for page, text in expected.items():
            browser.open(f"{server.address}/{page}?name=Ana")
            browser.wait_for_text(text, 60)
            browser.wait_for(IDLE)
            assert not browser.run("document.querySelector('[data-testid=stException]')")


def test_the_page_over_iterations_leads_to_its_episodes(
    workspace: Workspace, make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    """In both themes and at both widths; a rollout that people corrected opens on the review page."""
    episode = make_episode(sources=[P] * 6 + [H] * 6).id
    history = make_history(workspace.root, 3, starts=20, tasks=(EVIL,), people=(f"Ana {EVIL}", "Ben"))
    write_iterations_report(history.workspace, history.ledger, history.store)
    path = iterations_path(workspace.reports)
    # The drawn rollouts have no film: one that has takes the place of the first.
    path.write_text(path.read_text().replace('"rollout-3-0"', f'"{episode}"'))
    overflow = "document.querySelector('[data-testid=stMain]').scrollWidth > window.innerWidth"
    with Server(workspace.root) as server, Browser(tmp_path / "profile") as browser:
        browser.open(f"{server.address}/iterations?name=Ana")
        for width, scheme in ((1280, "light"), (1920, "dark")):
            browser.resize(width, 900, scheme)
            browser.wait_for(
                "document.querySelectorAll('[data-testid=stVegaLiteChart] canvas, "
                "[data-testid=stVegaLiteChart] svg').length >= 6",
                60,
            )
            browser.wait_for(IDLE)
            assert not browser.run(overflow)
            assert not browser.run("document.querySelector('[data-testid=stException]')")
        browser.wait_for_text("Most corrected rollouts", 60)
        assert EVIL in browser.text() and not browser.run("window.evil")
        link = "document.querySelector('[data-testid=stPageLink-NavLink]')"
        browser.wait_for(f"!!{link}", 60)
        browser.run(f"{link}.click()")
        browser.wait_for(f"({EPISODE}) == {episode!r}", 60)
        browser.wait_for_text("Relabel", 60)

"""The report's page: complete, self-contained, valid, escaped, and honest in its words."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.episode import ACTION_FIELD, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeEntry, EpisodeWriter, read_entry
from pipeline.errors import InputError
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from value_model.advantages import Reason
from value_model.calibration import ReliabilityBin, ValueQuality
from workflows.comparison import Attempt, Estimate, PairedDifference, paired_difference, performance
from workflows.report import ReportData, StepOrigin, choose_episodes, duration, write_report
from workflows.report_films import Clip, comparison_gif, film_strip
from workflows.report_figures import STRIP_FRAMES, runs, strip_indices
from workflows.report_words import headline, number, signed, tone

RATE_HZ = 10.0
TASKS = ("pick up the red cube", "pick up the blue cube")
CUBES = {TASKS[0]: (200, 50, 45), TASKS[1]: (45, 90, 200)}
VOID_TAGS = {"meta", "link", "img", "br", "hr", "input"}


def scene(progress: float, task: str, size: int = 84) -> np.ndarray:
    """A drawn table camera frame: a gripper that comes down to a cube and lifts it."""
    image = np.full((size, size, 3), (226, 221, 211), np.uint8)
    image[: size // 4] = (122, 132, 142)
    lift = max(0.0, progress - 0.6) * size * 0.7
    cube = (int(size * 0.75 - lift), int(size * 0.55))
    tool = int(size * 0.2 + min(progress / 0.6, 1) * size * 0.42 - lift)
    column = int(size * (0.25 + 0.3 * min(progress / 0.5, 1)))
    image[cube[0] : cube[0] + 10, cube[1] - 5 : cube[1] + 5] = CUBES[task]
    image[:tool, column - 2 : column + 2] = (70, 74, 80)
    image[max(0, tool) : tool + 9, [column - 7, column - 6, column + 6, column + 7]] = (40, 42, 46)
    return image


def record(folder: Path, info: EpisodeInfo, sources: np.ndarray, reach: float) -> EpisodeEntry:
    """Writes a real episode file whose cube is lifted when ``reach`` is 1."""
    path = folder / f"{info.id}.h5"
    state = {f.name: np.zeros(f.shape, f.dtype) for f in STATE_FIELDS}
    with EpisodeWriter(path, info, flush_interval_s=60.0) as writer:
        for i, source in enumerate(sources):
            image = scene(reach * i / (len(sources) - 1), info.task)
            stamp = 10**9 + i * 10**8
            frame = Frame(
                state, {"table": image}, np.zeros(ACTION_FIELD.shape), Source(source), stamp, {"table": stamp}
            )
            writer.append(frame)
    return read_entry(path)


def episode_rows(entry: EpisodeEntry, outcome: str | None, sources: np.ndarray, seed: int) -> pd.DataFrame:
    """Values that follow the return with noise, and the marks that the rule of the loop makes of them."""
    rng = np.random.default_rng(seed)
    length = len(sources)
    left = np.arange(length)[::-1] / 80
    returns = -left if outcome == "success" else np.maximum(-1, -left - 0.6)
    value = np.clip(0.75 * returns - 0.12 + np.cumsum(rng.normal(0, 0.02, length)), -1, 0)
    advantage = returns - value + rng.normal(0.05, 0.04, length)
    corrected = sources == Source.INTERVENTION
    reason = np.where(advantage > 0.06, Reason.ABOVE_THRESHOLD, Reason.BELOW_THRESHOLD)
    reason = np.where(corrected, Reason.FORCED_POSITIVE_INTERVENTION, reason)
    if outcome is None:
        returns, advantage = np.full(length, np.nan), np.full(length, np.nan)
        reason = np.full(length, Reason.NO_OUTCOME)
    indicator = np.select(
        [reason == Reason.NO_OUTCOME, reason == Reason.BELOW_THRESHOLD], [NONE, NEGATIVE], POSITIVE
    )
    return pd.DataFrame(
        {
            "episode_id": entry.id,
            "task": entry.info.task,
            "operator": entry.info.operator,
            "outcome": outcome,
            "frame": np.arange(length),
            "source": sources.astype(np.int8),
            "value": value.astype(np.float32),
            "advantage": advantage.astype(np.float32),
            "return_": returns.astype(np.float32),
            "indicator": indicator.astype(np.int8),
            "reason": reason.astype(np.int8),
        }
    )


def attempts(rate: float, seconds: float, count: int = 200, seed: int = 0) -> list[Attempt]:
    """An evaluation on numbered starts; the hard starts are the same whatever the rate."""
    ease = np.random.default_rng(3).random(count) * 0.7 + np.random.default_rng(seed).random(count) * 0.3
    order = np.argsort(np.argsort(-ease))
    won = order < rate * count
    spent = np.where(won, seconds, 8.0) + np.random.default_rng(seed).random(count)
    return [
        Attempt(TASKS[i % 2], 1_000_000 + i, bool(won[i]), int(spent[i] * RATE_HZ), float(spent[i]))
        for i in range(count)
    ]


def make_data(folder: Path, episodes: int = 8, operator: str = "Ana", lift: float = 0.3) -> ReportData:
    """A whole iteration's report; ``lift`` is how much better RECAP is than the base."""
    entries, rows = [], []
    rng = np.random.default_rng(0)
    for i in range(episodes):
        kind = ("teleop", "policy", "corrected", "policy")[i % 4]
        length = int(rng.integers(30, 50))
        sources = np.full(length, Source.TELEOP if kind == "teleop" else Source.POLICY)
        if kind == "corrected":
            sources[length // 2 : length - 6] = Source.INTERVENTION
        outcome = None if i == episodes - 1 and episodes > 4 else "failure" if i % 4 == 3 else "success"
        who = operator if i % 8 < 4 else "Ben"
        info = EpisodeInfo(
            f"episode-{i:03d}",
            TASKS[(i // 4) % 2],
            who,
            "simulated_gen3",
            RATE_HZ,
            ("table",),
            "2026",
            "0.1.0",
        )
        entries.append(record(folder, info, sources, 0.55 if outcome == "failure" else 1.0))
        rows.append(episode_rows(entries[-1], outcome, sources, i))
    base, filtered = attempts(0.42, 6.0), attempts(0.42 + 0.6 * lift, 5.6, seed=1)
    recap, negative = attempts(0.42 + lift, 5.0, seed=2), attempts(0.3, 6.5, seed=3)
    steps = [
        StepOrigin("train base policy", "a1b2c3d4e5f60718", "steps/train-base/a1b2c3d4e5f60718", 184.2),
        StepOrigin("score values", "0f1e2d3c4b5a6978", "steps/score-values/0f1e2d3c4b5a6978", 9.31),
        StepOrigin("evaluate RECAP", "99aa88bb77cc66dd", "steps/evaluate-recap/99aa88bb77cc66dd", 71.0),
    ]
    bins = tuple(
        ReliabilityBin(-1 + b / 10, -0.9 + b / 10, 40 + 9 * b, -0.95 + b / 10, -0.9 + 0.09 * b)
        for b in range(10)
    )
    quality = ValueQuality(
        2400, 60, 0.81, dict.fromkeys(TASKS, 0.8), 0.11, {"25%": 0.71, "50%": 0.84, "75%": 0.93}, {}, bins, {}
    )
    decay = [(s, float(1.4 * np.exp(-s / 300) + 0.3 + 0.04 * rng.normal())) for s in range(0, 1500, 10)]
    return ReportData(
        iteration=1,
        title="RECAP on the simulated Gen3",
        robot="simulated_gen3",
        tasks=TASKS,
        performances={
            "base": performance(base),
            "filtered BC": performance(filtered),
            "RECAP": performance(recap),
            "RECAP, asked for negative": performance(negative),
        },
        candidate="RECAP",
        reference="base",
        differences={
            "RECAP vs base": paired_difference(recap, base),
            "RECAP vs filtered BC": paired_difference(recap, filtered),
        },
        promoted=lift > 0,
        decision="Its successes per hour are above the champion's with the whole 95 % interval above zero.",
        frames=pd.concat(rows, ignore_index=True),
        thresholds=dict.fromkeys(TASKS, 0.06),
        value_quality=asdict(quality),
        training_curves={
            "base": decay,
            "filtered BC": [(s, v * 0.6 + 0.05) for s, v in decay[:100]],
            "RECAP": [(s, v * 0.55) for s, v in decay[:100]],
        },
        episodes=entries,
        origins={
            "performance": steps[2:],
            "advantages": steps[1:2],
            "values": steps[1:2],
            "training": steps[:1],
        },
        steps=steps,
        peak_memory_gib=3.4,
        wall_seconds=742.0,
        annotators={operator: 5, "Ben": 2},
    )


class Page(HTMLParser):
    """Collects text, attributes, and every tag that is not closed in order."""

    def __init__(self, html: str) -> None:
        """Parses ``html`` whole."""
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.errors: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remembers the tag and what it refers to."""
        self.tags.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Checks that the tag closes the one that was opened last."""
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        """Keeps text that a reader sees."""
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return make_data(tmp_path_factory.mktemp("episodes"))


@pytest.fixture(scope="module")
def html(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(data, tmp_path_factory.mktemp("page") / "reports" / "iteration-1.html").read_text()


def test_page_is_balanced_and_refers_to_nothing_outside_itself(html: str) -> None:
    page = Page(html)
    assert page.errors == [] and page.open == []
    assert page.references and all(r.startswith("data:") for r in page.references)
    assert "http" not in html.replace("http-equiv", "") and "url(" not in html and "@import" not in html
    assert "script" not in page.tags
    assert 100_000 < len(html) < 4_000_000


def test_first_screen_says_what_improved_and_what_was_decided(html: str, data: ReportData) -> None:
    text = Page(html).text
    top = text[: text.index("How well each policy works")]
    assert "RECAP gets" in top and "as much done as base" in top
    assert "144 of 200 attempts succeeded; with base, 84 of 200." in top
    assert "42 % → 72 %" in top and "+30 points" in top
    assert "against filtered BC" in top
    assert "✓ RECAP promoted" in top and data.decision in top


def test_every_part_is_there(html: str) -> None:
    page = Page(html)
    # performance, three episodes, advantages, reliability, training
    assert sum(r.startswith("data:image/svg") for r in page.references) == 7
    for words in (
        "RECAP, asked for negative",
        "correction by a person",
        "positive: a person's correction",
        "A success of the policy",
        "An attempt that a person corrected",
        "steps/evaluate-recap/99aa88bb77cc66dd",
        "12 min 22 s",
        "3.4 GiB",
        "0.93",
        "policy, corrected by a person",
        "7 episodes have an outcome and 1 has none",
    ):
        assert words in page.text, words


def test_the_same_data_make_the_same_bytes(html: str, data: ReportData, tmp_path: Path) -> None:
    out = write_report(data, tmp_path / "again.html")
    assert out.read_text() == html
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_names_that_look_like_markup_or_formulas_stay_text(tmp_path: Path) -> None:
    name = '<b>x</b>"$\\frac$ & \u5c71'
    data = make_data(tmp_path, episodes=4, operator=name)
    hostile = replace(data, decision=f"{name} agreed", title="</title><script>alert(1)</script>")
    page = Page(write_report(hostile, tmp_path / "r.html").read_text())
    assert page.errors == [] and page.open == []
    assert "script" not in page.tags
    assert f"{name} agreed" in page.text and f"operator {name}" in page.text


def test_what_is_missing_is_said_not_drawn(data: ReportData, tmp_path: Path) -> None:
    frames = data.frames[data.frames["source"] == Source.TELEOP].assign(
        outcome=None,
        advantage=np.nan,
        return_=np.nan,
        indicator=np.int8(NONE),
        reason=np.int8(Reason.NO_OUTCOME),
    )
    bare = replace(
        data,
        frames=frames,
        differences={},
        thresholds={},
        value_quality={},
        training_curves={},
        origins={},
        steps=[],
        peak_memory_gib=None,
        wall_seconds=None,
        annotators={},
    )
    page = Page(write_report(bare, tmp_path / "r.html").read_text())
    assert page.errors == [] and page.open == []
    assert "No frame has an advantage" in page.text
    assert page.text.count("There is none in this data.") == 3
    assert "No clear difference yet" in page.text


def test_a_recording_that_is_gone_leaves_its_values(data: ReportData, tmp_path: Path) -> None:
    page = Page(write_report(replace(data, episodes=[]), tmp_path / "r.html").read_text())
    assert page.text.count("its recording is not at hand") == 3


def test_film_is_inlined_and_a_missing_one_is_an_error(data: ReportData, tmp_path: Path) -> None:
    film = comparison_gif(*_clips(1), ("base", "RECAP"), tmp_path / "film.gif", tile=48)
    html = write_report(replace(data, film=film), tmp_path / "r.html").read_text()
    assert "data:image/gif;base64," in html
    with pytest.raises(InputError, match="film"):
        write_report(replace(data, film=tmp_path / "none.gif"), tmp_path / "s.html")
    assert not (tmp_path / "s.html").exists()


def test_unusable_data_is_refused(data: ReportData) -> None:
    with pytest.raises(InputError, match="'champion'"):
        replace(data, reference="champion")
    with pytest.raises(InputError, match="indicator"):
        replace(data, frames=data.frames.drop(columns="indicator"))


def test_chosen_episodes_are_of_their_kind_typical_and_independent_of_order(data: ReportData) -> None:
    chosen = choose_episodes(data.frames)
    assert set(chosen) == {"success", "failure", "corrected"}
    of = {kind: data.frames[data.frames["episode_id"] == e] for kind, e in chosen.items()}
    assert (of["corrected"]["source"] == Source.INTERVENTION).any()
    assert (of["success"]["outcome"] == "success").all() and (of["success"]["source"] == Source.POLICY).all()
    assert (of["failure"]["outcome"] == "failure").all()
    assert not (of["failure"]["source"] == Source.INTERVENTION).any()
    assert choose_episodes(data.frames.sample(frac=1, random_state=1)) == chosen


def test_typical_is_the_middle_one() -> None:
    lengths = {"a": 10, "b": 30, "c": 31, "d": 90, "e": 32}
    rows = [
        {
            "episode_id": e,
            "task": "t",
            "operator": "o",
            "outcome": "success",
            "frame": i,
            "source": 1,
            "value": -0.5,
        }
        for e, n in lengths.items()
        for i in range(n)
    ]
    assert choose_episodes(pd.DataFrame(rows)) == {"success": "c"}


@pytest.mark.parametrize(
    ("low", "high", "expected", "words"),
    [
        (5.0, 40.0, "good", "as much done as"),
        (-40.0, -5.0, "bad", "less done"),
        (-5.0, 40.0, "unclear", "No clear difference"),
        (0.0, 40.0, "unclear", "No clear difference"),
    ],
)
def test_headline_claims_no_more_than_the_interval(
    low: float, high: float, expected: str, words: str
) -> None:
    difference = PairedDifference(Estimate((low + high) / 2, low, high), Estimate(0.1, 0, 0.2), 0.01)
    shown = {"base": performance(attempts(0.4, 6)), "RECAP": performance(attempts(0.5, 6))}
    said = headline(shown, "RECAP", "base", difference)
    assert said.tone == tone(difference.successes_per_hour) == expected
    assert words in said.sentence


def test_headline_when_the_reference_never_succeeded() -> None:
    shown = {"base": performance(attempts(0.0, 6)), "RECAP": performance(attempts(0.5, 6))}
    difference = paired_difference(attempts(0.5, 6), attempts(0.0, 6))
    assert "where base never did" in headline(shown, "RECAP", "base", difference).sentence


def test_numbers_in_words() -> None:
    assert (number(-0.4), signed(0.04), signed(-2.6), signed(3)) == ("0", "0", "\u22123", "+3")
    assert number(12345) == "12\u202f345" and number(float("nan")) == "–"
    assert [duration(s) for s in (None, 9.31, 59.7, 742.4, 7260)] == [
        "–",
        "9.3 s",
        "1 min 0 s",
        "12 min 22 s",
        "2 h 1 min",
    ]


def test_runs_and_strip_cover_an_episode() -> None:
    assert runs(np.array([1, 1, 2, 1])) == [(0, 2, 1), (2, 3, 2), (3, 4, 1)]
    assert runs(np.array([], int)) == []
    for length in (1, 7, 8, 41):
        picked = strip_indices(length)
        assert len(picked) == STRIP_FRAMES and picked == sorted(picked)
        assert 0 <= picked[0] and picked[-1] < length


def _clips(count: int) -> tuple[list[Clip], list[Clip]]:
    def clip(length: int, success: bool) -> Clip:
        reach = 1.0 if success else 0.5
        return Clip(np.stack([scene(reach * i / length, TASKS[0]) for i in range(length)]), success, TASKS[0])

    return [clip(24, i % 2 == 0) for i in range(count)], [clip(16, True) for _ in range(count)]


@pytest.mark.parametrize("at_once", [1, 4])
def test_comparison_plays_every_start_and_holds_the_result(tmp_path: Path, at_once: int) -> None:
    out = comparison_gif(*_clips(4), ("base", "RECAP"), tmp_path / "c.gif", fps=10, tile=64, at_once=at_once)
    with Image.open(out) as film:
        total_ms = 0
        for i in range(film.n_frames):  # type: ignore[attr-defined]  # of GIF images only
            film.seek(i)
            total_ms += film.info["duration"]
        assert film.info["loop"] == 0
        last = np.asarray(film.convert("RGB"))
    pages = 4 // at_once
    assert total_ms == pytest.approx(pages * (24 * 100 + 1600), abs=1)
    right = last[:, last.shape[1] // 2 :]
    # Every attempt on the right succeeded: its last picture has a green disc.
    assert (np.abs(right.astype(int) - (0, 158, 115)).sum(axis=2) < 60).sum() > 40


def test_comparison_shrinks_to_its_limit_or_says_that_it_cannot(tmp_path: Path) -> None:
    clips = _clips(2)
    whole = comparison_gif(*clips, ("base", "RECAP"), tmp_path / "a.gif", tile=96).stat().st_size
    small = comparison_gif(*clips, ("base", "RECAP"), tmp_path / "b.gif", tile=96, max_bytes=whole // 2)
    assert small.stat().st_size <= whole // 2
    with pytest.raises(InputError, match="fewer starts"):
        comparison_gif(*clips, ("base", "RECAP"), tmp_path / "c.gif", max_bytes=100)
    with pytest.raises(InputError, match="same starts"):
        comparison_gif(clips[0], clips[1][:1], ("base", "RECAP"), tmp_path / "c.gif")
    assert not (tmp_path / "c.gif").exists()


def test_film_strip_has_all_frames_in_a_row(tmp_path: Path) -> None:
    images = [scene(i / 4, TASKS[1]) for i in range(5)]
    with Image.open(film_strip(images, tmp_path / "s.png", height=84)) as strip:
        assert strip.size == (5 * 84 + 4 * 6, 84)
        assert np.array_equal(np.asarray(strip)[:, :84], images[0])
    with pytest.raises(InputError):
        film_strip([], tmp_path / "t.png")


def test_page_has_no_leftover_template_syntax(html: str) -> None:
    assert not re.search(r"{{|{%|%}|}}(?!\s*$)", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))

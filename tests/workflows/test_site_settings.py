"""``[defaults]`` and ``[robot.options]`` of ``recap.toml``: each decides what it says, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.episode_file import EpisodeReader
from pipeline.label_snapshot import Snapshot
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows.cli import main
from workflows.commands import policy_evaluate, policy_train
from workflows.loop_graph import LoopGraph
from workflows.policy_door import DoorConfig
from workflows.policy_evaluation import NamedCheckpoint
from workflows.settings import FULL, LoopSettings, settings_from_site
from workflows.step_recipe import Step

TASK = "pick up the red cube"
Say = Callable[[str], Workspace]


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """A workspace whose recap.toml says this."""

    def write(text: str) -> Workspace:
        workspace = Workspace(tmp_path / "lab").create()
        workspace.config_path.write_text(text)
        return workspace

    return write


def settings(workspace: Workspace) -> LoopSettings:
    return settings_from_site(FULL, load_site_config(workspace.config_path))


def turn(workspace: Workspace) -> list[Step]:
    """Every step of a turn, and the base policy's training."""
    graph = LoopGraph(workspace, settings(workspace))
    snapshot = Snapshot(workspace.root / "none.parquet", "d" * 64, ())
    base = graph.base(snapshot)
    return [base, *graph.turn(snapshot, base).all()]


def sizes(step: Step) -> set[int]:
    """Every size of images in the step's parameters."""

    def found(value: Any) -> set[int]:
        if isinstance(value, dict):
            own = {value["image_size"]} if "image_size" in value else set()
            return own.union(*map(found, value.values()))
        return set()

    return found(dict(step.parameters))


def record(workspace: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """One scripted demonstration; status and errors."""
    place = ("--workspace", str(workspace.root))
    status = main(["record", "--task", TASK, "--operator", "skilled", "--episodes", "1", *words, *place])
    return status, capsys.readouterr().err


def test_the_size_of_images_holds_in_every_step_that_looks_at_them(say: Say) -> None:
    found = {step.name: sizes(step) for step in turn(say("[defaults]\nimage_size = 128\n"))}
    looking = {"train_base", "cache_frames", "train_value", "score_values", "advantages", "judge_values"}
    looking |= {"fine_tune_recap", "fine_tune_filtered", "evaluate"}
    assert {name for name, seen in found.items() if seen} == looking
    assert all(found[name] == {128} for name in looking)


def test_to_say_what_is_the_default_anyway_changes_no_key(say: Say) -> None:
    before = [step.key for step in turn(say(""))]
    after = [step.key for step in turn(say("[defaults]\nimage_size = 84\nrate_hz = 10\n"))]
    assert before == after
    assert settings(say("")) == settings_from_site(FULL, load_site_config(Path("/nonexistent")))
    assert settings(say("")).recording == FULL.recording


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate_hz = 20", (20.0, 160, 84)),
        ("rate_hz = 30", (20.0, 160, 84)),
        ("rate_hz = 5", (10.0, 80, 84)),
        ("image_size = 32", (10.0, 80, 84)),
        ("image_size = 1024", (10.0, 80, 720)),
    ],
)
def test_evaluations_are_as_the_simulated_arm_can(
    say: Say, text: str, expected: tuple[float, int, int]
) -> None:
    workspace = say(f"[defaults]\n{text}\n")
    (evaluation, *_) = [step.parameters["evaluation"] for step in turn(workspace) if step.name == "evaluate"]
    size = evaluation.get("image_size", 84)
    assert (evaluation["rate_hz"], evaluation["max_steps"], size) == expected
    named = NamedCheckpoint("A", workspace.root, None)
    config = policy_evaluate._config(workspace, named, (), 4, 8.0, None, None)
    assert (config.rate_hz, config.max_steps, config.image_size) == expected


def test_a_dataset_is_seen_at_the_sites_size_unless_the_command_says_another(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configs: list[DoorConfig] = []
    monkeypatch.setattr(policy_train, "_run", lambda workspace, config, *rest: configs.append(config))
    (tmp_path / "data/meta").mkdir(parents=True)
    (tmp_path / "data/meta/info.json").write_text("{}")
    words = ["policy", "train", "--dataset", str(tmp_path / "data")]
    for text in ("", "[defaults]\nimage_size = 96\n"):
        assert main([*words, "--workspace", str(say(text).root)]) == 0
    assert main([*words, "--image-size", "64", "--workspace", str(say(text).root)]) == 0
    assert [config.image_size for config in configs] == [84, 96, 64]


def test_scripted_people_record_on_the_arm_of_the_file(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    text = "[defaults]\nimage_size = 96\nrate_hz = 20\n[robot.options]\nimage_size = 40\n"
    workspace = say(text)
    assert record(workspace, capsys)[0] == 0
    (entry,) = workspace.list_episodes()
    assert entry.info.rate_hz == 20 and entry.length <= 160
    with EpisodeReader(entry.path) as reader:
        assert reader.image("table", 0).shape == (40, 40, 3)
    # Without the option they are as large as what is trained on; the command's own rate goes over the file's.
    workspace = say("[defaults]\nimage_size = 96\nrate_hz = 20\n")
    assert record(workspace, capsys, "--seed", "1", "--rate", "10")[0] == 0
    (entry,) = [one for one in workspace.list_episodes() if one.info.rate_hz == 10]
    with EpisodeReader(entry.path) as reader:
        assert reader.image("wrist", 0).shape == (96, 96, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[robot.options]\nimage_sise = 40", "did you mean 'image_size'"),
        ("[robot.options]\nimage_size = 4", "image_size is 4, must be 16 to 720"),
        ("[robot.options]\ncameras = ['table']", "scripted people record table and wrist"),
        ("[robot.options]\nrate_hz = 20", "decides nothing: say rate_hz under [defaults]"),
        ("[robot.options]\nseed = 3", "decides nothing: commands have --seed"),
        ("[defaults]\nrate_hz = 30", "rate_hz is 30.0, must be 10 to 20"),
    ],
)
def test_what_scripted_people_cannot_honour_is_refused(
    say: Say, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    workspace = say(text)
    status, error = record(workspace, capsys)
    assert status == 2 and message in error and "recap.toml" in error and error.count("\n") == 1
    assert not workspace.list_episodes()


def test_the_sites_annotator_labels_where_nobody_is_named(
    say: Say, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    workspace = say("")
    assert record(workspace, capsys)[0] == 0
    (entry,) = workspace.list_episodes()
    place = ("--workspace", str(workspace.root))
    file = tmp_path / "labels.csv"
    file.write_text(f"episode_id,outcome\n{entry.id},success\n")
    for words in (["set", entry.id, "success"], ["undo"]):
        assert main(["label", *words, *place]) == 2
        assert "--annotator NAME, or annotator under [defaults]" in capsys.readouterr().err
    assert main(["label", "import", str(file), *place]) == 2
    say('[defaults]\nannotator = "bo"\n')
    assert main(["label", "set", entry.id, "failure", *place]) == 0
    assert main(["label", "set", entry.id, "failure", "--annotator", "ana", *place]) == 0
    assert main(["label", "import", str(file), *place]) == 0
    assert main(["label", "undo", *place]) == 0
    with LabelStore(workspace.labels_path) as store:
        said = [(event.outcome, event.annotator) for event in store.history(entry.id)]
    assert said == [("failure", "bo"), ("failure", "ana"), ("success", "bo"), ("failure", "bo")]

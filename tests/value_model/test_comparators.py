"""LeRobot's reward models, really built, trained for a few steps and asked for values.

All weights are made here: the tests run without a network.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from tests.tiny_backbone import build_backbone
from tests.tiny_qwen import build_qwen3_vl
from tests.value_model.synthetic import SMALL, make_table, picture_episode
from value_model.calibration import measure_quality
from value_model.comparators import Comparator
from value_model.comparators_lerobot import LeRobotClassifier, history, local_model
from value_model.comparators_sarm import LeRobotSarm
from value_model.comparators_topreward import LeRobotTopReward
from value_model.returns import Outcomes


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ResNetConfig, ResNetModel

    folder = tmp_path_factory.mktemp("resnet")
    shape: dict[str, Any] = {
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ResNetModel(ResNetConfig(**shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_backbone(tmp_path_factory.mktemp("clip"), family="clip")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_qwen3_vl(tmp_path_factory.mktemp("qwen"))


def two_camera_table(episodes: int) -> tuple[FrameTable, Outcomes]:
    """Pictures tell how it goes and how far it is; the first camera sees nothing, the second everything."""
    rng = np.random.default_rng(0)
    won = [i % 2 == 0 for i in range(episodes)]
    images = []
    for w in won:
        seen = picture_episode(12, w, rng)
        images.append(np.concatenate([np.full_like(seen, 80), seen], axis=1))
    outcomes: Outcomes = {f"e{i:03d}": "success" if w else "failure" for i, w in enumerate(won)}
    return make_table([12] * episodes, images=images), outcomes


def check_values(values: np.ndarray, table: FrameTable, comparator: Comparator) -> None:
    assert values.shape == (len(table),) and values.dtype == np.float32
    assert (values >= -1).all() and (values <= 0).all()
    assert len(comparator.sentence.split()) > 4 and comparator.name.startswith("LeRobot")


def test_lerobots_classifier_learns_from_every_camera_how_episodes_end(resnet: Path) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 40, (12, 12, 2, 24, 24, 3), dtype=np.uint8)
    for i in range(12):
        # What a random encoder that is never trained can still tell: the colour of the whole picture.
        images[i, :, 1, :, :, i % 2] += 180
    table = make_table([12] * 12, images=list(images))
    outcomes: Outcomes = {f"e{i:03d}": ("success", "failure")[i % 2] for i in range(12)}
    comparator = LeRobotClassifier(str(resnet), width=32, steps=40, batch_size=16, learning_rate=3e-3)
    values = comparator.score(table, outcomes, SMALL)
    check_values(values, table, comparator)
    assert measure_quality(table, values, outcomes, 1.0).auc_same_age["50%"] == 1.0
    state = torch.get_rng_state()
    again = LeRobotClassifier(str(resnet), width=32, steps=2, batch_size=4)
    np.testing.assert_array_equal(again.score(table, outcomes, SMALL), again.score(table, outcomes, SMALL))
    assert torch.equal(torch.get_rng_state(), state)


def test_lerobots_sarm_learns_how_far_successes_have_come(clip: Path) -> None:
    table, outcomes = two_camera_table(12)
    comparator = LeRobotSarm(
        clip=str(clip), past=4, most_rewound=2, gap_s=0.1, width=32, layers=1, steps=90, learning_rate=3e-3
    )
    values = comparator.score(table, outcomes, SMALL)
    check_values(values, table, comparator)
    won = np.isin(
        table.episode_index, [i for i, e in enumerate(table.episode_ids) if outcomes[e] == "success"]
    )
    found = spearmanr(values[won], table.frame_index[won]).statistic
    assert found > 0.6


def test_lerobots_topreward_looks_at_the_past_of_every_camera_and_is_calibrated(qwen: Path) -> None:
    table, outcomes = two_camera_table(4)
    comparator = LeRobotTopReward(vlm=str(qwen), past=2, gap_s=0.1, every_s=0.3, dtype="float32")
    check_values(comparator.score(table, outcomes, SMALL), table, comparator)
    said = comparator.rewards(table, "cpu").reshape(4, 12)
    assert (said <= 0).all()
    # Asked every third frame; in between it is what was said last.
    np.testing.assert_array_equal(said.reshape(4, 4, 3), np.repeat(said[:, ::3, None], 3, axis=2))
    images = [table.images(np.arange(12 * i, 12 * i + 12)).copy() for i in range(4)]
    images[1][6:, 1] = 255 - images[1][6:, 1]
    other = comparator.rewards(make_table([12] * 4, images=images), "cpu").reshape(4, 12)
    np.testing.assert_array_equal(other[1, :6], said[1, :6])
    assert (other[1, 6:] != said[1, 6:]).all()
    np.testing.assert_array_equal(other[[0, 2, 3]], said[[0, 2, 3]])


CODE = """from pathlib import Path
Path({witness!r}).touch()
from transformers import PretrainedConfig, PreTrainedModel
class Config(PretrainedConfig):
    model_type = "unheard-of"
class Model(PreTrainedModel):
    config_class = Config
"""


@pytest.mark.parametrize("where", ["config.json", "processor_config.json", "part/config.json"])
def test_a_model_that_brings_code_of_its_own_is_refused_and_its_code_not_run(
    tmp_path: Path, where: str
) -> None:
    witness, folder = tmp_path / "the code ran", tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    own = {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    document = own if where == "config.json" else {"image_processor": [own]}
    (folder / where).write_text(json.dumps({"model_type": "unheard-of", **document}))
    (folder / "own.py").write_text(CODE.format(witness=str(witness)))
    table, outcomes = two_camera_table(4)
    for comparator in (
        LeRobotClassifier(str(folder)),
        LeRobotTopReward(str(folder)),
        LeRobotSarm(str(folder)),
    ):
        with pytest.raises(InputError, match="has an auto_map"):
            comparator.score(table, outcomes, SMALL)
    assert not witness.exists()


def test_models_come_from_a_folder_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, outcomes = two_camera_table(4)
    for comparator in (LeRobotClassifier("someone/model"), LeRobotTopReward("someone/model")):
        with pytest.raises(InputError, match="someone/model is no folder here"):
            comparator.score(table, outcomes, SMALL)
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert local_model("model") == tmp_path / "model"
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        local_model("model")


def test_robometer_cannot_be_trained_and_lacks_a_package(qwen: Path) -> None:
    """Why there is no comparator of it; where this fails, there may be one."""
    from lerobot.rewards.robometer.configuration_robometer import RobometerConfig
    from lerobot.rewards.robometer.modeling_robometer import RobometerRewardModel
    from lerobot.rewards.robometer.processor_robometer import RobometerEncoderProcessorStep

    settings = RobometerConfig(
        pretrained_path=None, base_model_id=str(qwen), torch_dtype="float32", device="cpu"
    )
    model = RobometerRewardModel(settings)
    assert not model.is_trainable
    with pytest.raises(NotImplementedError):
        model.forward({})
    if importlib.util.find_spec("qwen_vl_utils") is None:
        with pytest.raises(ImportError, match="qwen-vl-utils"):
            RobometerEncoderProcessorStep(base_model_id=str(qwen))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([5.0, 10.0, 30.0])), min_size=1, max_size=4),
    st.integers(1, 5),
    st.sampled_from([0.01, 0.1, 0.25]),
)
def test_a_frames_history_is_of_its_own_episode_and_ends_with_it(
    chosen: list[tuple[int, float]], count: int, gap_s: float
) -> None:
    table = make_table([n for n, _ in chosen], rates=[r for _, r in chosen])
    rows = history(table, np.arange(len(table)), count, gap_s)
    assert rows.shape == (len(table), count)
    for index in range(len(table)):
        episode = int(table.episode_index[index])
        start, gap = int(table.starts[episode]), max(1, round(gap_s * chosen[episode][1]))
        expected = [max(start, index - gap * back) for back in reversed(range(count))]
        assert rows[index].tolist() == expected

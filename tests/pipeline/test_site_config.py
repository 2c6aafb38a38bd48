"""recap.toml: everything optional, everything unknown or contradictory refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.site_config import (
    CacheSection,
    CameraSection,
    DefaultsSection,
    LabelsSection,
    OperatorSection,
    RobotSection,
    SiteConfig,
    load_site_config,
)
from pipeline.site_promotion import PromotionSection
from pipeline.site_remote import RemoteSection
from pipeline.site_value import ValueSection

FULL = """
tasks = ["pick up the red cube", "открой ящик"]
[robot]
type = "kinova_gen3"
[robot.options]
ip = "192.168.1.10"
[cameras.table]
type = "intelrealsense"
[cameras.table.options]
serial_number_or_name = "0123"
[operator]
type = "gen3_gamepad"
options = { max_linear_speed = 0.1 }
[defaults]
operator = "ana"
rate_hz = 20
[cache]
max_gib = 1.5
[labels]
double_share = 0.2
reviewers = ["ana", "Бо"]
[value]
network = "vlm"
backbone = "/models/siglip"
tune = "lora"
members = 3
n_seconds = 1
device = "cuda:1"
[gate]
fail_auc = 1
[promotion]
stop_early = false
starts = 300
success_loss = 0
[remote]
url = "file:///mnt/lab"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recap.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_file_is_read(tmp_path: Path) -> None:
    config = load_site_config(write(tmp_path, FULL))
    assert config == SiteConfig(
        robot=RobotSection("kinova_gen3", {"ip": "192.168.1.10"}),
        cameras={"table": CameraSection("intelrealsense", {"serial_number_or_name": "0123"})},
        operator=OperatorSection("gen3_gamepad", {"max_linear_speed": 0.1}),
        tasks=("pick up the red cube", "открой ящик"),
        defaults=DefaultsSection(operator="ana", rate_hz=20),
        cache=CacheSection(max_gib=1.5),
        labels=LabelsSection(double_share=0.2, reviewers=("ana", "Бо")),
        value=ValueSection(
            network="vlm", backbone="/models/siglip", tune="lora", members=3, n_seconds=1, device="cuda:1"
        ),
        gate={"fail_auc": 1.0},
        promotion=PromotionSection(stop_early=False, starts=300, success_loss=0),
        remote=RemoteSection(url="file:///mnt/lab"),
    )
    assert pickle.loads(pickle.dumps(config)) == config


def test_no_file_and_an_empty_file_mean_the_simulated_arm(tmp_path: Path) -> None:
    assert load_site_config(tmp_path / "recap.toml") == SiteConfig()
    assert load_site_config(write(tmp_path, "")) == SiteConfig()
    assert SiteConfig().robot.type == "simulated_gen3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks = [", "cannot read"),
        (
            "taks = []",
            r"unknown key 'taks' in the top level; did you mean 'tasks'\? known are robot, cameras, "
            "operator, tasks, defaults, cache, labels, value, gate, policy, promotion, remote$",
        ),
        ("[robot]\nip = '1'", r"unknown key 'ip' in \[robot\]"),
        ("[cameras.a]\ntype='x'\nfps=1", r"unknown key 'fps' in \[cameras.a\]"),
        ("[defaults]\nrate = 1", "unknown key 'rate'"),
        ("robot = 'kinova'", "robot must be a table"),
        ("cameras = 3", "cameras must be a table"),
        ("tasks = 'one'", "tasks must be a list"),
        ("tasks = ['']", "tasks must be a text"),
        ("tasks = [3]", "tasks must be a text"),
        ("tasks = ['a', 'a']", "names a task twice"),
        ("[robot]\ntype = ''", "robot.type must be a text"),
        ("[robot]\ntype = 'k'\noptions = 3", "robot.options must be a table"),
        ("[robot]\ntype = 'k'\n[cameras.a]", "cameras.a.type must be a text"),
        ("[robot]\ntype = 'k'\n[cameras.'a/b']\ntype='x'", "camera name 'a/b'"),
        ("[cameras.a]\ntype = 'x'", "contradicts robot.type 'simulated_gen3'"),
        ("[cameras.a]", "cameras.a.type must be a text"),
        ("[operator]\ntype = 3", "operator.type must be a text"),
        ("[operator.options]\nlinear_speed = 1", "operator.options without operator.type"),
        ("[defaults]\nrate_hz = 0", "rate_hz must lie"),
        ("[defaults]\nrate_hz = 201", "rate_hz must lie above 0 and up to 200 Hz"),
        ("[defaults]\nrate_hz = nan", "rate_hz must lie"),
        ("[defaults]\nrate_hz = true", "rate_hz must be a number"),
        ("[defaults]\nimage_size = 84.5", "image_size must be a whole number"),
        ("[defaults]\nimage_size = 8", "image_size must lie"),
        ("[cache]\nmax_gib = -1", "cache.max_gib must be 0 or more"),
        ("[cache]\nmax_gib = nan", "cache.max_gib must be 0 or more"),
        ("[cache]\nmax_gib = true", "cache.max_gib must be a number"),
        ("[cache]\nmax = 1", r"unknown key 'max' in \[cache\]"),
        ("[labels]\ndouble_share = 1.5", "labels.double_share must be a share from 0 to 1"),
        ("[labels]\ngold_share = nan", "labels.gold_share must be a share"),
        ("[labels]\ngold_share = true", "labels.gold_share must be a share"),
        ("[labels]\nreviewers = 'ana'", "labels.reviewers must be a list of names"),
        ("[labels]\nreviewers = ['']", "labels.reviewers must be a text"),
        ("[labels]\nreviewer = ['ana']", r"unknown key 'reviewer' in \[labels\]"),
        ("[value]\nnetwork = 'large'", r"value.network must be 'small' or 'vlm', not 'large'"),
        ("[value]\nnetwork = 3", "value.network must be 'small' or 'vlm', not 3"),
        ("[value]\nnetwork = 'vlm'", 'value.network = "vlm" needs value.backbone'),
        ("[value]\nnetwork = 'small'\ntune = 'lora'", 'are for value.network = "vlm"'),
        ("[value]\ntune = 'half'", "value.tune must be"),
        ("[value]\nfolds = 1", "value.folds must be a whole number, 2 or more, not 1"),
        ("[value]\nmembers = 1.5", "value.members must be a whole number, 1 or more, not 1.5"),
        ("[value]\nsteps = true", "value.steps must be a whole number"),
        ("[value]\nworkers = 0", "value.workers must be a whole number"),
        ("[value]\nn_step = 'start'", 'value.n_step must be a whole number, 1 or more or "end"'),
        ("[value]\nn_step = 10\nn_seconds = 1.0", "are both given"),
        ("[value]\nn_seconds = -1", "value.n_seconds must be a number above 0"),
        ("[value]\nfailure_penalty = inf", "value.failure_penalty must be a number above 0"),
        ("[value]\npositive_fraction = 1", "value.positive_fraction must lie between 0 and 1"),
        ("[value]\npositive_fraction = nan", "value.positive_fraction must lie between 0 and 1"),
        ("[value]\ndevice = ''", "value.device must be a text"),
        ("[value]\npositiv_fraction = 0.3", r"unknown key 'positiv_fraction' in \[value\]; did you mean"),
        ("[gate]\nfail_auc = 'high'", "gate.fail_auc must be a number"),
        ("[gate]\nfail_auc = nan", "gate.fail_auc must be a number"),
        ("gate = 3", "gate must be a table"),
        ("[promotion]\nstop_early = 1", "promotion.stop_early must be true or false, not 1"),
        ("[promotion]\nstarts = 1", "promotion.starts must be a whole number, 2 or more, not 1"),
        ("[promotion]\nround_starts = 2.5", "promotion.round_starts must be a whole number"),
        ("[promotion]\nstarts = 20\nround_starts = 40", "promotion.round_starts is 40, more than"),
        ("[promotion]\nsignificance = 0", "promotion.significance must be a number from 0.0001 "),
        ("[promotion]\nsignificance = 0.00005", "promotion.significance must be a number from 0.0001 "),
        ("[promotion]\nsignificance = 0.5", r"promotion.significance must be .* to below 0\.5"),
        ("[promotion]\nleast_chance = -0.1", "promotion.least_chance must be a number from 0 to below 0.5"),
        ("[promotion]\nsuccess_loss = 5", "promotion.success_loss must be a share from 0 to 1, not 5"),
        ("[promotion]\ntask_success_loss = nan", "promotion.task_success_loss must be a share"),
        ("[promotion]\nmore_interventions = true", "promotion.more_interventions must be a number from 0 to"),
        (
            "[promotion]\nsucces_loss = 0",
            r"unknown key 'succes_loss' in \[promotion\]; did you mean 'success_",
        ),
        ("promotion = 3", "promotion must be a table"),
        ("[remote]\nurl = 3", "remote.url must be a text"),
        ("[defaults]\noperator = ' '", "defaults.operator must be a text"),
    ],
)
def test_each_mistake_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_site_config(path)
    assert str(path) in str(caught.value)


def test_everybody_is_a_reviewer_until_some_are_named() -> None:
    assert LabelsSection().is_reviewer("bo")
    assert LabelsSection(reviewers=("ana",)).is_reviewer("ana")
    assert not LabelsSection(reviewers=("ana",)).is_reviewer("bo")

"""From the command line to a plan: what is inherited from the one that is known, and what is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from tests.pipeline.policy_serving import TASK, Weighing, serving
from tests.workflows.killed_evaluation import START, STOP, SUCCESS, go_on, typing
from workflows import policy_evaluation_wishes
from workflows.ledger import Ledger
from workflows.policy_evaluation import NamedCheckpoint, find_checkpoint
from workflows.policy_evaluation_plan import EvaluationPlan, read_plan
from workflows.policy_evaluation_wishes import RobotWishes, find_policies, make_plan


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """With the folders a, b and c; the present folder is that of the three."""
    lab = Workspace(tmp_path / "lab").create()
    lab.config_path.write_text('[robot]\ntype = "simulated_gen3"\n')
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    monkeypatch.chdir(tmp_path)
    return lab


@pytest.fixture
def history(lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> dict[str, NamedCheckpoint]:
    """``base`` and ``champion``, as a ledger would name them."""
    root = lab.root.parent
    named = {
        "base": NamedCheckpoint("base", root / "a", None, recorded="base/0"),
        "champion": NamedCheckpoint("champion", root / "b", "positive", recorded="fine_tune/3"),
    }

    def find(name: str, workspace: Workspace) -> NamedCheckpoint:
        return named[name] if name in named else find_checkpoint(name, workspace)

    monkeypatch.setattr(policy_evaluation_wishes, "find_checkpoint", find)
    return named


def planned(lab: Workspace, *given: str, **more: Any) -> EvaluationPlan:
    """What the command does up to the first attempt."""
    wishes = RobotWishes("monday", given, tasks=(TASK,), **more)
    known = read_plan(lab, "monday")
    site = load_site_config(lab.config_path)
    plan = make_plan(lab, site, wishes, known, find_policies(lab, wishes, known))
    plan.save(lab)
    return plan


def record_one(lab: Workspace, plan: EvaluationPlan) -> None:
    """From then on the plan is fixed."""
    go_on(lab, typing(START, SUCCESS, STOP), plan=plan)


def test_what_a_policy_is_asked_for_is_not_inherited_by_another_one(
    lab: Workspace, history: dict[str, NamedCheckpoint]
) -> None:
    assert planned(lab, "base").policies[0].asked_for is None
    assert planned(lab, "champion").policies[0].asked_for == "positive", "nothing was recorded by the other"
    assert planned(lab, "champion", asks=True, indicator="negative").policies[0].asked_for == "negative"
    assert planned(lab, "champion").policies[0].asked_for == "negative", "the same one, still"


def test_an_evaluation_goes_on_with_the_checkpoint_that_it_began_with(
    lab: Workspace, history: dict[str, NamedCheckpoint]
) -> None:
    plan = planned(lab, "champion")
    record_one(lab, plan)
    history["champion"] = NamedCheckpoint("champion", lab.root.parent / "c", "positive", recorded="x/4")
    assert planned(lab) == plan, "there is another champion by now"
    (found,) = find_policies(lab, RobotWishes("monday"), plan)
    assert (found.folder, found.recorded) == (lab.root.parent / "b", "fine_tune/3")
    assert (found.name, found.label) == ("champion of then (b)", "champion of then")
    with pytest.raises(InputError, match="policy A champion of other content than champion now"):
        planned(lab, "champion")
    (lab.root.parent / "b").rename(lab.root.parent / "away")
    with pytest.raises(InputError, match="the checkpoint of champion is gone"):
        planned(lab)


def test_the_champion_keeps_its_name(lab: Workspace) -> None:
    """Given as a path, named by the plan, and named by a plan from before plans kept names."""
    for step, key in (("start", "a" * 12), ("train", "b" * 12)):
        (lab.steps / step / key / "checkpoint").mkdir(parents=True)
        (lab.steps / step / key / "checkpoint" / "weights").write_text(key)
    ledger = Ledger(lab)
    ledger.promote("start", "a" * 12, 0, "base")
    ledger.promote("train", "b" * 12, 1, "promoted: faster")

    def named(plan: EvaluationPlan | None, *given: str) -> list[tuple[str, str]]:
        return [(one.name, one.label) for one in find_policies(lab, RobotWishes("monday", given), plan)]

    base, champion = (str(lab.steps / "start" / ("a" * 12)), str(lab.steps / "train" / ("b" * 12)))
    assert named(None, base, champion) == [
        ("base (start/aaaaaaaa)", "base"),
        ("champion (train/bbbbbbbb)", "champion"),
    ]
    plan = planned(lab, "c", "champion")
    assert named(plan) == [("c", "c"), ("champion", "")]
    old = replace(plan, policies=tuple(replace(one, name="", label="") for one in plan.policies))
    assert named(old) == [("c", "c"), ("champion", "")]
    (lab.steps / "train" / ("c" * 12)).mkdir()
    ledger.promote("train", "c" * 12, 2, "promoted: faster")
    assert named(plan)[1] == ("champion of then (train/bbbbbbbb)", "champion of then")


def test_who_was_champion_by_a_path_is_not_called_so_any_more(lab: Workspace) -> None:
    """And a link that somebody has called ``champion`` is called so, whoever is champion."""
    ledger, link = Ledger(lab), lab.root.parent / "links" / "champion"
    for key in "bd":
        (lab.steps / "train" / (key * 12) / "checkpoint").mkdir(parents=True)
        (lab.steps / "train" / (key * 12) / "checkpoint" / "weights").write_text(key)
    link.parent.mkdir()
    link.symlink_to(lab.root.parent / "a")
    ledger.promote("train", "b" * 12, 0, "base")
    ledger.promote("train", "b" * 12, 1, "promoted: faster")
    plan = planned(lab, str(lab.steps / "train" / ("b" * 12)), str(link))

    def named() -> list[tuple[str, str]]:
        return [(one.name, one.label) for one in find_policies(lab, RobotWishes("monday"), plan)]

    assert named() == [("champion (train/bbbbbbbb)", "champion"), ("champion (a)", "champion")]
    ledger.promote("train", "d" * 12, 2, "promoted: faster")
    assert named() == [
        ("champion of then (train/bbbbbbbb)", "champion of then"),
        ("champion (a)", "champion"),
    ]


def test_an_evaluation_goes_on_from_another_folder(lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(lab, "a", "b")
    record_one(lab, plan)
    monkeypatch.chdir("/")
    assert planned(lab) == plan
    assert [one.given for one in plan.policies] == ["a", "b"]


def test_what_a_server_would_not_heed_is_refused(lab: Workspace) -> None:
    with serving(Weighing("far"), handover_s=5.0) as server:
        with pytest.raises(InputError, match="leave --ask out"):
            planned(lab, server.url, asks=True)
        with pytest.raises(InputError, match="leave --guidance out"):
            planned(lab, "a", server.url, guidance=1.5)
        with pytest.raises(InputError, match="given twice"):
            planned(lab, server.url, server.url)
        assert planned(lab, server.url).policies[0].folder == ""
        assert planned(lab).policies[0].given == server.url

"""The pages on policies say what the code does: tables are compared with it, and the example is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3 import choices
from pipeline.site_config import load_site_config
from pipeline.site_policy import PolicySection
from tests.policy_tables import train_tiny
from tests.tiny_smolvla import TINY_ACT, TINY_GEN3
from workflows.settings import FULL, QUICK, settings_from_site

ROOT = Path(__file__).parents[2]
_PAGES = ("policies.md", "lerobot-policies.md", "gen3_vla.md")
PAGE = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in _PAGES)
CHOICES = {
    "backbone": choices.BACKBONES,
    "action_head": choices.ACTION_HEADS,
    "training": choices.TRAININGS,
    "backbone_tokens": choices.BACKBONE_TOKENS,
    "conditioning": choices.CONDITIONINGS,
    "bridge": choices.BRIDGES,
    "state_input": choices.STATE_INPUTS,
    "history": choices.HISTORIES,
    "indicator_input": choices.INDICATOR_INPUTS,
}


def table(head: str) -> list[list[str]]:
    """The cells of the table that begins with this row, below it."""
    lines = PAGE.split(f"{head}\n", 1)[1].splitlines()[1:]
    rows = lines[: next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code(language: str) -> str:
    """The one block of this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_table_of_recap_toml_has_every_key_and_its_default() -> None:
    rows = {key.strip("`"): default for key, _, default in table("| key | what it is | default |")}
    assert list(rows) == [one.name for one in fields(PolicySection)]
    for name, default in rows.items():
        value = getattr(FULL.policy, name)
        if value not in ("", {}):
            assert default.strip("`").split(";")[0] == (
                f"{value:g}" if isinstance(value, float) else str(value)
            )


def test_the_example_of_recap_toml_is_read_and_quick_ignores_the_steps_alone(tmp_path: Path) -> None:
    path = tmp_path / "recap.toml"
    path.write_text(code("toml"))
    site = load_site_config(path)
    full, quick = (settings_from_site(settings, site).policy for settings in (FULL, QUICK))
    assert full.type == "smolvla" and full.options == {"chunk_size": 16, "n_action_steps": 8}
    assert full.base_learning_rate == full.fine_tune_learning_rate == 1e-4
    different = {one.name for one in fields(full) if getattr(full, one.name) != getattr(quick, one.name)}
    assert different == {"base_steps", "fine_tune_steps"} and "`--quick` ignores `base_steps` and" in PAGE


def test_the_python_example_runs_for_any_policy_and_lerobot_then_finds_ours_by_its_name(
    tmp_path: Path,
) -> None:
    """In one new process, ours first, so that the example has to make it known to LeRobot."""
    script = ""
    for policy_type, options in {"gen3_vla": TINY_GEN3, "act": TINY_ACT}.items():
        train_tiny(tmp_path / policy_type, policy_type, dict(options))
        script += code("python").replace("CHECKPOINT", str(tmp_path / policy_type))
        script += "\nprint(policy.config.type, tuple(action.shape))\n"
    script += "from lerobot.policies.factory import make_policy_config\n"
    script += "print('found', get_policy_class('gen3_vla').__name__, "
    script += "make_policy_config('gen3_vla', device='cpu').type)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    actions = [line for line in done.stdout.splitlines() if line.endswith(")")]
    assert actions == ["gen3_vla (1, 7)", "act (1, 7)"]
    assert "found Gen3VLAPolicy gen3_vla" in done.stdout.splitlines()


def test_the_choices_of_gen3_vla_are_all_there_with_their_sources() -> None:
    default = Gen3VLAConfig()
    rows = table("| field | value | what it is, and where it comes from |")
    told = {(name.strip("`"), value): text for name, value, text in rows}
    for name, values in CHOICES.items():
        for value, text in values.items():
            mark = " (default)" if getattr(default, name) == value else ""
            assert told.pop((name, f"`{value}`{mark}")) == text
    assert {name for name, _ in told} == {"prediction"}


def test_every_other_field_of_gen3_vla_is_there_with_its_default() -> None:
    rows = {
        name.strip("`"): default.strip("`") for name, default, _ in table("| field | default | what it is |")
    }
    own = set(Gen3VLAConfig.__annotations__) - CHOICES.keys() - {"prediction"}
    assert rows.keys() == own | {"n_obs_steps"}
    for one in fields(Gen3VLAConfig):
        if one.name in rows:
            value = one.default if one.default_factory is MISSING else one.default_factory()
            assert json.loads(rows[one.name]) == json.loads(json.dumps(value))

"""What workers import before a step begins exists, and is of steps that exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import workflows
from workflows.step_imports import FIRST

ROOT = Path(workflows.__file__).parent


def test_steps_and_modules_exist() -> None:
    named = "".join(path.read_text() for path in ROOT.glob("*graph*.py"))
    named += (ROOT / "policy_door.py").read_text()
    assert [name for name in FIRST if not re.search(rf'"{name}"', named)] == []
    modules = {module for first in FIRST.values() for module in first}
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_a_step_has_what_it_needs_loaded_and_a_light_one_loads_nothing() -> None:
    # Values, since LeRobot, which a policy needs, takes four times as long.
    assert {"workflows.evaluation", "pipeline.policy.runner"} <= set(FIRST["evaluate"])
    script = (
        "import sys; from workflows.step_imports import load_first; load_first('cache_frames'); "
        "light = 'torch' in sys.modules; load_first('train_value'); "
        "print(light, 'torch' in sys.modules, 'value_model.training' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]

"""A checkpoint that names a folder with code, which transformers would run, is not loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.policy.processor_files import require_registered_steps
from tests.tiny_checkpoint import save_tiny_checkpoint
from tests.tiny_smolvla import TINY_GEN3

MARK = "RAN_CODE_OF_A_CHECKPOINT"


def tokenizer_with_code(folder: Path) -> Path:
    """A tokenizer as FAST's are: its class is in a file beside it, which sets a variable when imported."""
    folder.mkdir()
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Planted", "auto_map": {"AutoProcessor": "planted.Planted"}})
    )
    (folder / "planted.py").write_text(f"import os\nos.environ[{MARK!r}] = 'yes'\nclass Planted:\n    pass\n")
    return folder


@pytest.mark.parametrize("where", ["preprocessor", "config", "relative"])
def test_no_code_of_a_folder_is_run(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "no")
    checkpoint = save_tiny_checkpoint(tmp_path / "checkpoint", **TINY_GEN3)
    planted = tokenizer_with_code(checkpoint / "planted")
    if where == "config":
        path = checkpoint / "config.json"
        document = json.loads(path.read_text())
        document["pretrained_backbone"] = str(planted)
    else:
        path = checkpoint / "policy_preprocessor.json"
        document = json.loads(path.read_text())
        name = "planted" if where == "relative" else str(planted)
        step = {"registry_name": "action_tokenizer_processor", "config": {"action_tokenizer_name": name}}
        document["steps"].append(step)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="whose files have transformers run the code in it"):
        load_checkpoint(checkpoint)
    assert os.environ[MARK] == "no"


def test_lerobot_itself_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lerobot.processor import ActionTokenizerProcessorStep

    monkeypatch.setenv(MARK, "no")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    planted = tokenizer_with_code(tmp_path / "planted")
    with pytest.raises(Exception):  # noqa: B017  # whatever comes of a class that is no processor
        ActionTokenizerProcessorStep(action_tokenizer_name=str(planted))
    assert os.environ[MARK] == "yes"


def test_folders_without_code_and_texts_that_are_no_folders_are_taken(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    texts = [str(tmp_path / "model"), "model", "", "a\0b", "x" * 5000, "owner/name"]
    (tmp_path / "config.json").write_text(json.dumps({"texts": texts, "number": 3, "none": None}))
    require_registered_steps(tmp_path)

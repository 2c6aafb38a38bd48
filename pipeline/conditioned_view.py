"""Advantage-conditioned views of a dataset: the same videos and numbers, another task for each frame.

A frame's task is its episode's with ``Advantage: positive`` or ``Advantage: negative`` behind it, or
bare. The prompt is in the data, so any trainer that reads a LeRobotDataset can fine-tune on a view
without a plugin. Making one touches neither recorded episodes nor videos: the videos are hard links
(copies where there can be none), and only tables are written, so that each scoring run can have a view
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.atomic_folder import building
from pipeline.dataset_folder import is_built, read_episode_facts, read_record, write_record
from pipeline.errors import InputError
from pipeline.lerobot_dataset import KIND as BASE_KIND
from pipeline.lerobot_dataset import Columns, check_columns
from pipeline.prompts import INDICATOR_NAMES, check_indicators, drop_indicators, prompt

LAYOUT_VERSION = 1
KIND = "conditioned view"


@dataclass(frozen=True)
class Conditioning:
    """What a view adds to its base, whose N frames are S episodes one after the other.

    ``prompts`` are the tasks of the view, sorted; ``task_index`` (N,) int64 is each frame's place in
    them; ``columns`` are (N,) float32 by name; ``lengths`` (S,) int64.
    """

    prompts: list[str]
    task_index: np.ndarray
    columns: dict[str, np.ndarray]
    lengths: np.ndarray


def make_view(
    base: Path,
    indicators: Mapping[str, np.ndarray],
    out: Path,
    *,
    indicator_dropout: float,
    seed: int,
    extra_columns: Columns | None = None,
) -> Path:
    """Builds a view of the dataset ``base`` aside, verifies it, and renames it to ``out``, which it returns.

    ``base`` was made by :func:`pipeline.lerobot_dataset.export_dataset`. ``indicators`` maps each of its
    episodes' ids to (T,) int8 (see :mod:`pipeline.prompts`); a share ``indicator_dropout`` of the frames
    gets the bare task instead, which ones being decided by ``seed`` and the episode's id alone.
    ``extra_columns`` maps a column's name (value, advantage, return, …) to each episode's (T,) float32.

    Equal arguments give equal bytes; when ``out`` was built from equal ones nothing is done. Raises
    ``InputError`` when ``out`` holds anything else, when ``base`` is no such dataset, and for indicators
    or columns that are missing, not one per frame, not finite, or named like a column of ``base``.
    """
    base_record = read_record(base)
    if base_record is None or base_record.get("kind") != BASE_KIND:
        raise InputError(f"{base} is no dataset to make a view of: export one from the episodes first")
    facts = read_episode_facts(base)
    lengths = dict(zip(facts["id"], facts["length"], strict=True))
    columns = dict(extra_columns or {})
    _check_indicators(indicators, lengths)
    check_columns(columns, lengths)
    kept = {
        episode_id: drop_indicators(indicators[episode_id], indicator_dropout, _rng(seed, episode_id))
        for episode_id in lengths
    }
    joined = {
        name: np.concatenate([per_episode[i] for i in lengths]).astype(np.float32)
        for name, per_episode in columns.items()
    }
    codes = np.concatenate([kept[i] for i in lengths])
    record = _build_record(base_record, codes, joined, indicator_dropout, seed)
    if is_built(out, record, len(lengths)):
        return out
    counts = np.array(facts["length"], dtype=np.int64)
    prompts, task_index = number_prompts(facts["task"], codes, counts)
    conditioning = Conditioning(prompts, task_index, joined, counts)

    from pipeline.view_files import verify_view, write_view

    with building(out, links_are_durable=True) as aside:
        write_view(base, aside, conditioning)
        write_record(aside, record)
        verify_view(base, aside, conditioning)
    return out


def _check_indicators(indicators: Mapping[str, np.ndarray], lengths: Mapping[str, int]) -> None:
    for episode_id, length in lengths.items():
        if episode_id not in indicators or len(indicators[episode_id]) != length:
            raise InputError(f"episode {episode_id} needs one indicator for each of its {length} frames")
        check_indicators(indicators[episode_id])


def _rng(seed: int, episode_id: str) -> np.random.Generator:
    # By id, not by position: the frames dropped in one episode do not depend on which others there are.
    digest = blake2b(episode_id.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])


def number_prompts(tasks: list[str], codes: np.ndarray, lengths: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The prompts that occur in S episodes, sorted, and each frame's place in them, int64 (N,).

    ``tasks`` are the S episodes' bare tasks, ``lengths`` (S,) their numbers of frames, ``codes`` (N,) int8
    all frames' indicators. A million frames are numbered without making a text for each.
    """
    names = sorted(set(tasks))
    number = {name: i for i, name in enumerate(names)}
    task_of_frame = np.repeat([number[task] for task in tasks], lengths)
    kinds = list(INDICATOR_NAMES)
    kind_of_code = np.zeros(max(kinds) - min(kinds) + 1, dtype=np.int64)
    kind_of_code[np.array(kinds) - min(kinds)] = np.arange(len(kinds))
    combined = task_of_frame * len(kinds) + kind_of_code[codes.astype(np.int64) - min(kinds)]
    used = np.unique(combined)
    texts = {
        int(pair): prompt(names[pair // len(kinds)], INDICATOR_NAMES[kinds[pair % len(kinds)]])
        for pair in used
    }
    prompts = sorted(texts.values())
    place = np.zeros(len(names) * len(kinds), dtype=np.int64)
    place[used] = [prompts.index(texts[int(pair)]) for pair in used]
    return prompts, place[combined]


def _build_record(
    base: Mapping[str, Any],
    codes: np.ndarray,
    columns: Mapping[str, np.ndarray],
    indicator_dropout: float,
    seed: int,
) -> dict[str, Any]:
    """What a view was built from; two views with equal records have equal content."""
    digest = blake2b(codes.tobytes(), digest_size=16)
    for name, values in columns.items():
        digest.update(f"{name}\n".encode() + values.tobytes())
    return {
        "layout_version": LAYOUT_VERSION,
        "kind": KIND,
        "base": dict(base),
        "action_space": base["action_space"],
        "indicator_dropout": indicator_dropout,
        "seed": seed,
        "columns": list(columns),
        "content": digest.hexdigest(),
    }

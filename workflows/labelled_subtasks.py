"""Sub-tasks that people marked and a policy that predicts sub-tasks: whose names, and what is said of them.

``subtasks``, the option of ``gen3_vla``, is a list of names, or the text :data:`FROM_LABELS`: then the names
are those of the segments that people marked in the episodes of the training, in the order of the alphabet.
They become part of the training's parameters, and of the checkpoint's configuration: what people write later
does not change them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.frame_subtasks import marked_subtasks, segment_faults
from pipeline.label_snapshot import SnapshotRow
from pipeline.subtask_prompts import subtask_name
from workflows.json_documents import read_json
from workflows.snapshot_table import snapshot_outcomes

FROM_LABELS = "from labels"
OPTION = "subtasks"


def trained_rows(rows: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Of a snapshot's episodes those that a training on labelled ones learns from."""
    outcomes = snapshot_outcomes(rows)
    return [row for row in rows if outcomes[row.episode_id] is not None]


def with_names(options: Mapping[str, Any], rows: Sequence[SnapshotRow]) -> dict[str, Any]:
    """A new policy's options with the labelled names where they say ``FROM_LABELS``; ``rows`` that train.

    Names of which no frame is left, since others claim them all, are none. Raises ``InputError`` where there
    is no frame of any of its sub-tasks: a policy that never learned to predict them would act on what it
    makes up.
    """
    wanted = options.get(OPTION)
    names = [name for name, frames in marked_subtasks(rows).counts().items() if frames]
    if says_from_labels(wanted):
        wanted, of = names, ""
    elif wanted and isinstance(wanted, list | tuple):
        of = f" of {', '.join(map(str, wanted))}"
    else:
        return dict(options)
    if not {subtask_name(str(name)) for name in wanted} & set(names):
        raise InputError(
            f"{OPTION}: no label of these episodes has a segment{of}: mark some in the labelling app "
            f"(B and E), or leave {OPTION} out"
        )
    return {**options, OPTION: wanted}


def with_any_name(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same before the labels are read: to find out whether a policy takes the rest of its options."""
    return {**options, OPTION: [FROM_LABELS]} if says_from_labels(options.get(OPTION)) else dict(options)


def says_from_labels(wanted: Any) -> bool:
    """Whether that value of the option is ``FROM_LABELS``, whatever its case."""
    return isinstance(wanted, str) and subtask_name(wanted) == FROM_LABELS


def names_of(folder: Path) -> list[str]:
    """The sub-tasks that the LeRobot policy in ``folder`` predicts; empty where it predicts none."""
    if not (folder / "config.json").is_file():
        return []
    found = read_json(folder / "config.json").get(OPTION)
    return [str(name) for name in found] if isinstance(found, list) else []


def subtask_lines(rows: Sequence[SnapshotRow], known: Sequence[str]) -> list[str]:
    """What a training on these episodes makes of their segments, for a policy that predicts ``known``.

    ``rows`` are those that train.
    """
    found = marked_subtasks(rows)
    if not known:
        if not found.names:
            return []
        return [
            f"sub-tasks: people marked {len(found.names)}, which this policy does not predict: not used "
            f"(gen3_vla does with --policy.{OPTION}='{FROM_LABELS}', see docs/policies.md)"
        ]
    counts = found.known_as(known).counts()
    said = ", ".join(f"{name} {number}" for name, number in counts.items())
    return [f"sub-tasks, with their frames of {len(found.codes)}: {said}", *subtask_problems(rows, known)]


def subtask_problems(rows: Sequence[SnapshotRow], known: Sequence[str]) -> list[str]:
    """What a person should look at in ``rows`` that train; nothing for who predicts no sub-tasks."""
    if not known:
        return []
    names, marked = {subtask_name(name) for name in known}, marked_subtasks(rows).counts()
    others = {name: number for name, number in marked.items() if name not in names}
    lines = []
    if len(others) == len(marked):
        lines.append("sub-tasks: no label has a segment of those that the policy predicts, so it learns none")
    if others:
        said = ", ".join(f"{name} ({number} frames)" for name, number in others.items())
        lines.append(f"sub-tasks that the policy does not know, whose frames train without one: {said}")
    return [*lines, *filter(None, [segment_faults(rows)])]

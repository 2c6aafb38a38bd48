"""Evaluates named checkpoints on the simulator's numbered starts and puts them side by side."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.durable_files import write_file
from pipeline.errors import InputError
from pipeline.prompts import Indicator
from pipeline.workspace import Workspace
from workflows.comparison import (
    SIGNIFICANCE,
    Attempt,
    Estimate,
    mean_difference,
    paired_difference,
    paired_share,
    performance,
)
from workflows.evaluation import EvaluationConfig, evaluate, write_attempts
from workflows.ledger import Champion, Ledger
from workflows.progress import ProgressDisplay, reporter
from workflows.promotion_looks import standings
from workflows.step_files import CHECKPOINT, FILM_FILE

CHAMPION, BASE = "champion", "base"


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint's folder under the name that tables give it, and what it is asked for by default.

    ``label`` is a shorter name, for films; where it is empty the name is short enough. ``recorded`` is the
    name that the episodes keep which it drives, as in 'recap rollout'.
    """

    name: str
    folder: Path
    indicator: Indicator | None
    label: str = ""
    recorded: str = ""


def find_checkpoint(name: str, workspace: Workspace) -> NamedCheckpoint:
    """``champion``, ``base``, a checkpoint's folder or that of the step that made it.

    A base policy, and any checkpoint that was never trained on advantages, is asked for nothing. Raises
    ``InputError`` where there is no such checkpoint.
    """
    if name in (CHAMPION, BASE):
        history = Ledger(workspace).champions()
        if not history:
            raise InputError("there is no champion yet: name a checkpoint's folder, or run 'recap improve'")
        found: Champion = history[-1] if name == CHAMPION else history[0]
        indicator: Indicator | None = "positive" if found.iteration > 0 else None
        return NamedCheckpoint(name, found.path / CHECKPOINT, indicator, recorded=f"{found.name}/{found.key}")
    folder = Path(name)
    if (folder / CHECKPOINT).is_dir():
        folder = folder / CHECKPOINT
    if not folder.is_dir():
        raise InputError(f"{name} is neither {CHAMPION}, {BASE} nor a checkpoint's folder")
    full, label = _names(folder)
    said = Path(name).name
    if Path(name).is_symlink() and said not in full:
        # A link has the name that its maker gave it, and leads to one that is a key.
        full, label = f"{said} ({full})", said
    return NamedCheckpoint(full, folder, _asks(folder), label, recorded=name)


def evaluate_all(
    checkpoints: Sequence[NamedCheckpoint], configs: Sequence[EvaluationConfig], display: ProgressDisplay
) -> list[list[Attempt]]:
    """Each checkpoint's attempts on its configuration's starts, one checkpoint after the other."""
    found = []
    for i, (checkpoint, config) in enumerate(zip(checkpoints, configs, strict=True)):
        key = f"evaluate-{i}"
        display.start(key, f"evaluate {checkpoint.name}")
        found.append(evaluate(checkpoint.folder, config, progress=reporter(display, key)))
        display.finish(key)
    return found


def figures(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """What one evaluation comes to, as plain JSON; ``interventions`` are per episode."""
    found = performance(attempts)
    return {
        "attempts": found.attempts,
        "successes": found.successes,
        "success_rate": asdict(found.success_rate),
        "successes_per_hour": asdict(found.successes_per_hour),
        "interventions_per_episode": asdict(mean_difference([a.interventions for a in attempts])),
        "median_success_seconds": found.median_success_seconds,
    }


def difference(candidate: Sequence[Attempt], reference: Sequence[Attempt]) -> dict[str, Any]:
    """Candidate minus reference on the same starts, as plain JSON.

    ``success_rate`` has Tango's interval for paired shares. ``p_value`` is one-sided, for "no more successes
    per hour", by the sign-swap test of :mod:`workflows.promotion_looks`, looked at once. Of ``telling``
    starts that tell the two apart not even all one way can come to less than ``2 ** -telling``: where that
    is above the significance they are ``too_few`` to judge, nothing is better, and what is resampled from so
    few has no interval (``low`` and ``high`` are ``None``). Raises ``InputError`` where the starts differ.
    """
    found = paired_difference(candidate, reference)
    (standing,) = standings(candidate, reference, [len(candidate)], SIGNIFICANCE)
    telling = _telling(candidate, reference)
    least = 0.5**telling
    too_few = least > SIGNIFICANCE
    pairs = [(c.success, r.success) for c, r in zip(candidate, reference, strict=True)]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    fewer = [c.interventions - r.interventions for c, r in zip(candidate, reference, strict=True)]
    return {
        "starts": len(pairs),
        "gained": gained,
        "lost": lost,
        "success_rate": asdict(paired_share(gained, lost, len(pairs))),
        "successes_per_hour": asdict(found.successes_per_hour) | (_NO_BOUNDS if too_few else {}),
        "interventions_per_episode": asdict(mean_difference(fewer)) | (_NO_BOUNDS if too_few else {}),
        "telling": telling,
        "too_few": too_few,
        "p_value": max(standing.p, least),  # random swaps may miss the least by a little
        "better": standing.better and not too_few,
    }


_NO_BOUNDS = {"low": None, "high": None}


def _telling(candidate: Sequence[Attempt], reference: Sequence[Attempt]) -> int:
    """How many starts tell the two apart: by success, or, where anything succeeded, by the time it took."""
    any_success = any(attempt.success for attempt in (*candidate, *reference))
    return sum(
        c.success != r.success or (any_success and c.seconds != r.seconds)
        for c, r in zip(candidate, reference, strict=True)
    )


def rows_of(named: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, ...]]:
    """The table's rows: name, episodes, success rate, successes per hour, interventions per episode."""
    return [
        (
            name,
            str(found["attempts"]),
            interval(found["success_rate"], 100, " %"),
            interval(found["successes_per_hour"]),
            interval(found["interventions_per_episode"], digits=2),
        )
        for name, found in named
    ]


HEADER = ("", "episodes", "success rate", "successes per hour", "interventions per episode")


def difference_lines(candidate: str, reference: str, found: dict[str, Any]) -> list[str]:
    """The comparison in words."""
    chance = f"one-sided p {max(found['p_value'], 0.001):.3f}"
    verdict = "better beyond chance" if found["better"] else "not shown to be better"
    if found["too_few"]:
        telling = found["telling"]
        verdict = "too few starts to judge"
        chance = f"{telling or 'none'} of them {'tells' if telling == 1 else 'tell'} the two apart"
    starts = "start" if found["starts"] == 1 else f"{found['starts']} starts"
    return [
        f"{candidate} against {reference} on the same {starts}: {verdict} ({chance})",
        f"  solved that the other did not: {found['gained']}; the other way round: {found['lost']}",
        f"  success rate {interval(found['success_rate'], 100, ' points', signed=True)}, "
        f"successes per hour {interval(found['successes_per_hour'], signed=True)}",
    ]


def interval(
    estimate: dict[str, Any], scale: float = 1, unit: str = "", digits: int = 0, signed: bool = False
) -> str:
    """``value unit [low, high]``; without the brackets where there is no interval."""
    sign = "+" if signed else ""
    if estimate["low"] is None:
        return f"{scale * estimate['value']:{sign}.{digits}f}{unit}"
    found = Estimate(*(scale * estimate[key] for key in ("value", "low", "high")))
    value, low, high = (f"{x:{sign}.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value}{unit} [{low}, {high}]"


def film(
    out: Path,
    checkpoints: Sequence[NamedCheckpoint],
    configs: Sequence[EvaluationConfig],
    attempts: Sequence[Sequence[Attempt]],
    starts: int,
) -> None:
    """Writes a GIF of the two checkpoints side by side on starts that show how they differ."""
    from workflows.film_steps import film_side_by_side

    with tempfile.TemporaryDirectory() as aside:
        folders = []
        for i, (checkpoint, done) in enumerate(zip(checkpoints, attempts, strict=True)):
            folder = Path(aside, str(i))
            folder.mkdir()
            (folder / CHECKPOINT).symlink_to(checkpoint.folder.absolute())
            write_attempts(done, folder)
            folders.append(folder)
        film_side_by_side(
            Path(aside),
            reference=folders[0],
            candidate=folders[1],
            reference_attempts=[folders[0]],
            candidate_attempts=[folders[1]],
            evaluations=[asdict(config) for config in configs],
            labels=[checkpoint.label or checkpoint.name for checkpoint in checkpoints],
            starts=starts,
            progress=lambda done, total: None,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, Path(aside, FILM_FILE).read_bytes())


def require_two(first: str, second: str, same: bool) -> None:
    """Raises ``InputError`` where two policies that are to be compared are the same one."""
    if same:
        raise InputError(f"{first} and {second} are the same checkpoint: name two that differ")


def tell_apart(checkpoints: Sequence[NamedCheckpoint]) -> list[NamedCheckpoint]:
    """The same with different names, by a number where they have the same."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if len(set(names)) == len(names):
        return list(checkpoints)
    return [
        replace(one, name=f"{one.name} ({i + 1})", label=f"{one.label or one.name} ({i + 1})")
        for i, one in enumerate(checkpoints)
    ]


def _names(folder: Path) -> tuple[str, str]:
    """Type and ``step/key`` or folder, for tables; type and key alone, which fit into a film."""
    kind = _type(folder)
    folder = folder.resolve()
    name = label = folder.name
    if name == CHECKPOINT and len(folder.parts) > 2:
        label = folder.parent.name[:8]
        name = f"{folder.parent.parent.name}/{label}"
    if kind is None or kind == name:
        return name, label
    return f"{kind} {name}", f"{kind} {label}"


def _type(folder: Path) -> str | None:
    """The type that a checkpoint's configuration says, such as "act"; ``None`` where it says none."""
    try:
        kind = json.loads((folder / "config.json").read_text())["type"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not a checkpoint: who loads it says so
    return str(kind)


def _asks(folder: Path) -> Indicator | None:
    """What the checkpoint's processor asks for by itself; "positive" where it says nothing of it."""
    try:
        steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    except (OSError, ValueError, KeyError):
        return "positive"  # not a checkpoint: who loads it says so
    for step in steps:
        absent = step.get("config", {}).get("when_absent")
        if absent is not None:
            return None if absent == "nothing" else absent
    return "positive"

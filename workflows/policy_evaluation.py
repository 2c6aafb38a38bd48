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
    paired_share,
    performance,
)
from workflows.evaluation import EvaluationConfig, evaluate, write_attempts
from workflows.ledger import Champion, Ledger
from workflows.paired_comparison import least_p, paired_difference, telling_starts
from workflows.progress import ProgressDisplay, reporter
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
    said, seat = Path(name).name, _seat(folder, workspace)
    if Path(name).is_symlink() and said not in full:
        # A link has the name that its maker gave it, and leads to one that is a key.
        full, label = f"{said} ({full})", said
    if seat is not None and seat not in full:
        full, label = f"{seat} ({full})", seat
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
    per hour", as in :mod:`workflows.paired_comparison`. Where not even all ``telling`` starts, those that
    tell the two apart, could be significant, they are ``too_few`` to judge, and what is resampled from so few
    has no interval (``low`` and ``high`` are ``None``). Raises ``InputError`` where the starts differ.
    """
    found = paired_difference(candidate, reference)
    telling = telling_starts(candidate, reference)
    too_few = least_p(telling) > SIGNIFICANCE
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
        "p_value": found.p_value,
        "better": found.better,
    }


_NO_BOUNDS = {"low": None, "high": None}


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


def is_champion(folder: Path, workspace: Workspace) -> bool:
    """Whether the checkpoint in ``folder`` is the present champion's."""
    return _seat(folder, workspace) == CHAMPION


def _seat(folder: Path, workspace: Workspace) -> str | None:
    """``champion`` or ``base`` where that is the one whose checkpoint lies in ``folder``."""
    try:
        history = Ledger(workspace).champions()
    except InputError:  # a ledger that is lost is no matter for a folder's name
        return None
    seats = {CHAMPION: history[-1], BASE: history[0]} if history else {}
    of = folder.resolve()
    return next((seat for seat, one in seats.items() if (one.path / CHECKPOINT).resolve() == of), None)


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

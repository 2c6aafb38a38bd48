"""One episode of another format becomes one of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import numpy as np

from pipeline.episode import STATE_FIELDS, EpisodeInfo
from pipeline.episode_file import read_entry
from pipeline.errors import InputError
from pipeline.exchange.column_mapping import ColumnMapping
from pipeline.exchange.foreign_episode import ForeignEpisode, camera_name
from pipeline.exchange.imported_file import importing_alone, write_imported
from pipeline.exchange.mapped_fields import GEN3_ROBOTS, MappedFields, Recording, mapped_fields
from pipeline.exchange.plausibility import require_plausible
from pipeline.segment_runs import ORIGIN, SUBTASKS, subtask_note
from pipeline.workspace import Workspace, check_id

UNKNOWN_START = "2000-01-01T00:00:00.000Z"
"""When an episode began of which nobody knows: the same at each import, and nobody's real recording."""

QUIETLY_MISSING = ("joint_velocities", "tool_wrench")
"""What few recordings have and no policy reads; its absence is noted in the episode and not refused."""


@dataclass(frozen=True)
class ImportOptions:
    """What the person who imports says. ``task``, ``operator`` and ``robot`` overrule the recording.

    ``mapping`` overrules the format's own. With ``allow_missing`` an episode comes in though it lacks what a
    policy needs; with ``dry_run`` nothing is written.
    """

    task: str | None = None
    operator: str | None = None
    robot: str | None = None
    mapping: ColumnMapping = field(default_factory=ColumnMapping)
    allow_missing: bool = False
    dry_run: bool = False

    def changes(self) -> dict[str, Any]:
        """What differs from an import without options, as JSON; kept with the episode."""
        said: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("task", "operator", "robot")
            if getattr(self, name) is not None
        }
        default = asdict(ColumnMapping())
        mapping = {name: value for name, value in asdict(self.mapping).items() if value != default[name]}
        if mapping:
            said["mapping"] = mapping
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain

    @property
    def done(self) -> str:
        """What is said of an episode that was not there."""
        return "would be imported" if self.dry_run else "imported"


@dataclass(frozen=True)
class Imported:
    """``status`` is ``imported``, ``would be imported`` or ``present``; ``notes`` say what was left out."""

    id: str
    task: str
    frames: int
    status: str
    notes: tuple[str, ...] = ()


def convert(episode: ForeignEpisode, origin: str, workspace: Workspace, options: ImportOptions) -> Imported:
    """Writes ``episode`` into the workspace unless it is there.

    Raises ``InputError`` where the task is not known, columns cannot be mapped, something is missing that a
    policy needs, a camera is not there or damaged, or another episode has the id.
    """
    episode_id = check_id(episode.episode_id())
    task = _task(episode, options)
    mapping = options.mapping.over(episode.mapping)
    present = _present(episode, episode_id, workspace, options)
    if present is not None:
        return present
    cameras, dropped = _cameras(episode, mapping)
    fields = _fields(episode, mapping, options)
    notes = [*episode.notes, *([f"cameras left out: {', '.join(dropped)}"] if dropped else [])]
    loud = [name for name in fields.missing if name not in QUIETLY_MISSING]
    if loud and not options.allow_missing and not episode.restored_info:
        raise InputError(
            f"{', '.join(loud)} cannot be had from its columns ({_listed(episode)}): say which they are "
            "with --mapping, or with --allow-missing take it in for looking and labelling, not for training"
            f"{_hints(episode, loud, options)}"
        )
    if loud:
        notes.append(f"not for training: without {', '.join(loud)}")
    info = _info(episode, episode_id, task, tuple(cameras), fields, options)
    if options.dry_run:
        for theirs in cameras.values():
            next(episode.cameras[theirs](), None)
        return Imported(episode_id, task, episode.length, options.done, tuple(notes))
    with importing_alone(workspace, episode_id):
        present = _present(episode, episode_id, workspace, options)
        if present is None:
            write_imported(episode, info, fields, cameras, workspace)
    return present or Imported(episode_id, task, episode.length, options.done, tuple(notes))


def _task(episode: ForeignEpisode, options: ImportOptions) -> str:
    task = options.task if options.task is not None else next(iter(episode.tasks), "")
    if not task.strip():
        raise InputError("it does not say what the task was: give it with --task")
    return task.strip()


def _present(
    episode: ForeignEpisode, episode_id: str, workspace: Workspace, options: ImportOptions
) -> Imported | None:
    """What to report where the episode is there already; ``None`` where it is not."""
    there = next(workspace.episodes.glob(f"*/{episode_id}.h5"), None)
    if there is None:
        return None
    entry = read_entry(there)
    note = entry.info.extra.get(ORIGIN)
    came = note if isinstance(note, dict) else {}
    fingerprint = episode.restored_info.get("fingerprint")
    # Our own exports of one recording differ in what they hold besides: it is the recording that counts.
    key, value = ("fingerprint", fingerprint) if fingerprint else ("content", episode.content_hash)
    recorded_here = bool(fingerprint) and entry.fingerprint == fingerprint
    if not recorded_here and came.get(key) != value:
        raise InputError(f"there is another episode {episode_id} here already")
    options_then = {} if recorded_here else came.get("options")
    if options_then != options.changes():
        differences = "; ".join(_differences(options_then or {}, options.changes()))
        raise InputError(
            f"it is here already with other options: {differences}. To import it anew, move {entry.path} "
            "away first"
        )
    notes = _other_subtasks(episode, came, recorded_here=recorded_here)
    return Imported(episode_id, entry.info.task, entry.length, "present", notes)


def _other_subtasks(
    episode: ForeignEpisode, came: Mapping[str, Any], *, recorded_here: bool
) -> tuple[str, ...]:
    """A note where the recording has sub-tasks and the episode ``came`` with none, or with others."""
    if not episode.subtasks or subtask_note(episode.subtasks)[SUBTASKS] == came.get(SUBTASKS):
        return ()
    if recorded_here:
        return ("its sub-tasks are not taken, since the recording itself is here: mark them ('recap label')",)
    return (
        "its sub-tasks were annotated since it was imported; not taken: to have them proposed, move its file "
        "in episodes/ away and import it again, which keeps its labels",
    )


def _cameras(episode: ForeignEpisode, mapping: ColumnMapping) -> tuple[dict[str, str], list[str]]:
    """Our name of each camera and the recording's; and those left out: all that are not named, if any is."""
    if not mapping.cameras:
        return {name: name for name in episode.cameras}, []
    cameras: dict[str, str] = {}
    for ours, theirs in mapping.cameras:
        cameras[ours] = theirs if theirs in episode.cameras else camera_name(theirs)
        if cameras[ours] not in episode.cameras:
            known = ", ".join(sorted(episode.cameras)) or "none"
            raise InputError(f"it has no camera {theirs!r}; it has {known}")
    return cameras, sorted(set(episode.cameras) - set(cameras.values()))


def _fields(episode: ForeignEpisode, mapping: ColumnMapping, options: ImportOptions) -> MappedFields:
    robot = options.robot or episode.robot or ""
    rate_hz = mapping.rate_hz or episode.rate_hz
    recording = Recording(episode.columns, episode.component_names, episode.length, rate_hz, robot)
    fields = mapped_fields(recording, mapping)
    if not episode.restored_info:
        require_plausible(fields)
        return fields
    kept = {name: np.asarray(values, np.float32) for name, values in episode.restored.items()}
    for field_ in STATE_FIELDS:
        if field_.name in kept and kept[field_.name].shape != (episode.length, *field_.shape):
            raise InputError(f"{field_.name} has shape {kept[field_.name].shape}: it is damaged")
    state = {name: kept.get(name, values) for name, values in fields.state.items()}
    return MappedFields(state, kept.get("action", fields.action), tuple(episode.restored_info["missing"]))


def _info(
    episode: ForeignEpisode,
    episode_id: str,
    task: str,
    cameras: tuple[str, ...],
    fields: MappedFields,
    options: ImportOptions,
) -> EpisodeInfo:
    known = episode.restored_info
    note = {
        "format": episode.format,
        "dataset": episode.dataset,
        "episode": episode.name,
        "content": episode.content_hash,
        "options": options.changes(),
        **({"fingerprint": known["fingerprint"]} if "fingerprint" in known else {}),
        **({"tasks": list(episode.tasks)} if len(episode.tasks) > 1 else {}),
        **subtask_note(episode.subtasks),
    }
    extra = _plain({**known.get("extra", {}), **episode.extra, ORIGIN: note})
    rate_hz = options.mapping.rate_hz or episode.rate_hz
    return EpisodeInfo(
        id=episode_id,
        task=task,
        operator=options.operator or episode.operator or "unknown",
        robot=options.robot or episode.robot or "unknown",
        rate_hz=float(known.get("rate_hz", rate_hz)),
        cameras=cameras,
        created=_created(episode),
        software_version=str(known.get("software_version", version("kinova-recap"))),
        policy_checkpoint=known.get("policy_checkpoint", episode.policy_checkpoint),
        operator_mark=episode.outcome_mark,
        truncated=bool(known.get("truncated", episode.truncated)),
        extra=extra,
        missing=fields.missing,
    )


def _created(episode: ForeignEpisode) -> str:
    if episode.created:
        return episode.created
    if episode.times_ns is None:
        return UNKNOWN_START
    began = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(episode.times_ns[0]) // 1_000_000)
    return began.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    """The same as JSON holds it: numbers that JSON has not become null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _hints(episode: ForeignEpisode, missing: list[str], options: ImportOptions) -> str:
    """What else the person may want to know of why fields are missing."""
    said = ""
    if "action" in missing and episode.why_no_action and options.mapping.action is None:
        said += f"; {episode.why_no_action}"
    robot = options.robot or episode.robot
    if "joint_positions" not in missing and "tool_pose" in missing and robot not in GEN3_ROBOTS:
        said += f"; if the robot is a Gen3, --robot {GEN3_ROBOTS[0]} computes the tool pose from the joints"
    return said


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each option that is not the same, with both values where they are short."""

    def flat(options: Mapping[str, Any]) -> dict[str, Any]:
        mapping = options.get("mapping", {})
        parts = {name: value for name, value in options.items() if name != "mapping"}
        return parts | {f"mapping.{name}": value for name, value in mapping.items()}

    old, new = flat(before), flat(now)
    return [
        f"{name} {_short(old.get(name))} → {_short(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _short(value: Any) -> str:
    if value is None:
        return "not given"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else "(another)"


def _listed(episode: ForeignEpisode) -> str:
    names = sorted(episode.columns)
    return (
        ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        or "there are none"
    )

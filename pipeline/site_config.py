"""``recap.toml``: a site's own facts, such as the robot's address, the cameras and the tasks.

::

    tasks = ["pick up the red cube", "pick up the blue cube"]

    [robot]
    type = "kinova_gen3"        # a LeRobot robot's registered name
    [robot.options]             # fields of that robot's own configuration class
    ip = "192.168.1.10"

    [cameras.table]
    type = "intelrealsense"     # a LeRobot camera's registered name
    [cameras.table.options]
    serial_number_or_name = "0123456789"

    [operator]
    type = "gen3_gamepad"       # a LeRobot teleoperator's registered name
    [operator.options]          # fields of that teleoperator's own configuration class
    max_linear_speed = 0.2

    [cache]
    max_gib = 200               # decoded frames, all image sizes together

    [labels]
    double_share = 0.1          # of the episodes, labelled by two people who do not see each other's answer
    gold_share = 0.05           # of an annotator's answers, asked for on episodes whose outcome is certain
    reviewers = ["ana"]         # who settles disputes; nobody named: everybody may

    [value]                     # the value model, see pipeline/site_value.py
    members = 3
    [gate]                      # bounds of the gate that values must pass, see 'recap value check'
    fail_auc = 0.65
    [policy]                    # the policy that is fine-tuned, see pipeline/site_policy.py
    type = "smolvla"

    [promotion]                 # when a candidate is promoted, see pipeline/site_promotion.py
    success_loss = 0.05

    [remote]                    # an object store that keeps the workspace, see docs/object-store.md
    url = "s3://bucket/lab"

    [defaults]
    operator = "ana"            # who drives
    annotator = "bo"            # who labels, in 'recap label set', 'undo' and 'import'
    rate_hz = 20                # control steps per second
    image_size = 128            # pixels, side of the square images that the loop trains on

Every key is optional. A missing file means the simulated arm.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.site_policy import PolicySection
from pipeline.site_promotion import PromotionSection
from pipeline.site_remote import RemoteSection
from pipeline.site_value import ValueSection, check_gate

SIMULATED_ROBOT = "simulated_gen3"
# Options of the simulated arm that the commands set, whatever the file says.
_SAID_ELSEWHERE = {"rate_hz": "say rate_hz under [defaults]", "seed": "commands have --seed"}
MAX_RATE_HZ = 200.0
"""Control steps a second; recording sessions take no more."""


@dataclass(frozen=True)
class RobotSection:
    """``[robot]``. ``options`` go to the robot's own configuration class, which checks them."""

    type: str = SIMULATED_ROBOT
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Rejects values of the wrong type."""
        _require_text("robot.type", self.type)
        _require_table("robot.options", self.options)


@dataclass(frozen=True)
class CameraSection:
    """``[cameras.<name>]``. ``options`` go to the camera's own configuration class."""

    type: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OperatorSection:
    """``[operator]``: the input device. ``options`` go to the teleoperator's own configuration class."""

    type: str = ""  # empty: the command line names one
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Rejects values of the wrong type."""
        if not isinstance(self.type, str):
            raise InputError(f"operator.type must be a text, not {self.type!r}")
        _require_table("operator.options", self.options)
        if self.options and not self.type:
            raise InputError("operator.options without operator.type: say which device they are for")


@dataclass(frozen=True)
class DefaultsSection:
    """``[defaults]``: what commands assume when a flag is not given."""

    operator: str = "operator"  # who drives, as recorded in each episode
    annotator: str = ""  # who labels from the shell; empty: the command line names one
    rate_hz: float = 10.0  # control steps per second
    image_size: int = 84  # pixels, side of the square images that value models and policies see

    def __post_init__(self) -> None:
        """Rejects values out of range."""
        _require_text("defaults.operator", self.operator)
        if self.annotator != "":
            _require_text("defaults.annotator", self.annotator)
        if isinstance(self.rate_hz, bool) or not isinstance(self.rate_hz, int | float):
            raise InputError(f"defaults.rate_hz must be a number, not {self.rate_hz!r}")
        if not 0 < self.rate_hz <= MAX_RATE_HZ:
            raise InputError(
                f"defaults.rate_hz must lie above 0 and up to {MAX_RATE_HZ:g} Hz, not {self.rate_hz!r}"
            )
        if isinstance(self.image_size, bool) or not isinstance(self.image_size, int):
            raise InputError(f"defaults.image_size must be a whole number, not {self.image_size!r}")
        if not 16 <= self.image_size <= 4096:
            raise InputError(f"defaults.image_size must lie in 16..4096 pixels, not {self.image_size!r}")


@dataclass(frozen=True)
class CacheSection:
    """``[cache]``: how much space decoded frames may take."""

    max_gib: float | None = None  # GiB; none: half of the disk space that is free or the cache's already

    def __post_init__(self) -> None:
        """Rejects anything but a number of at least 0."""
        if self.max_gib is None:
            return
        if isinstance(self.max_gib, bool) or not isinstance(self.max_gib, int | float):
            raise InputError(f"cache.max_gib must be a number, not {self.max_gib!r}")
        if not 0 <= self.max_gib < float("inf"):
            raise InputError(f"cache.max_gib must be 0 or more GiB, not {self.max_gib!r}")


@dataclass(frozen=True)
class LabelsSection:
    """``[labels]``: how far labels are checked, and who settles disputes."""

    double_share: float = 0.1  # share of the episodes that two people label, each without the other's answer
    gold_share: float = 0.05  # share of an annotator's answers that are asked for on gold episodes
    reviewers: tuple[str, ...] = ()  # names as annotators give them; empty: everybody is one

    def __post_init__(self) -> None:
        """Rejects anything but shares in 0..1 and names."""
        for name in ("double_share", "gold_share"):
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise InputError(f"labels.{name} must be a share from 0 to 1, not {share!r}")
        if isinstance(self.reviewers, list):
            object.__setattr__(self, "reviewers", tuple(self.reviewers))
        if not isinstance(self.reviewers, tuple):
            raise InputError(f"labels.reviewers must be a list of names, not {self.reviewers!r}")
        for reviewer in self.reviewers:
            _require_text("labels.reviewers", reviewer)

    def is_reviewer(self, name: str) -> bool:
        """Whether this annotator may adjudicate and set gold."""
        return not self.reviewers or name in self.reviewers


@dataclass(frozen=True)
class SiteConfig:
    """All of ``recap.toml``. Contradictions are rejected when it is built."""

    robot: RobotSection = field(default_factory=RobotSection)
    cameras: Mapping[str, CameraSection] = field(default_factory=dict)
    operator: OperatorSection = field(default_factory=OperatorSection)
    tasks: tuple[str, ...] = ()  # empty: the robot's own tasks, if it has any
    defaults: DefaultsSection = field(default_factory=DefaultsSection)
    cache: CacheSection = field(default_factory=CacheSection)
    labels: LabelsSection = field(default_factory=LabelsSection)
    value: ValueSection = field(default_factory=ValueSection)
    gate: Mapping[str, float] = field(default_factory=dict)  # bounds by name; the gate knows the names
    policy: PolicySection = field(default_factory=PolicySection)
    promotion: PromotionSection = field(default_factory=PromotionSection)
    remote: RemoteSection = field(default_factory=RemoteSection)
    path: Path | None = field(default=None, compare=False)  # the file it was read from, for errors

    def __post_init__(self) -> None:
        """Rejects doubled tasks, nameless cameras, and cameras for an arm that renders its own."""
        for task in self.tasks:
            _require_text("tasks", task)
        if len(set(self.tasks)) != len(self.tasks):
            raise InputError("tasks names a task twice")
        for name, camera in self.cameras.items():
            if not name.isidentifier():
                raise InputError(f"camera name {name!r} must be letters, digits and '_'")
            _require_text(f"cameras.{name}.type", camera.type)
            _require_table(f"cameras.{name}.options", camera.options)
        if self.cameras and self.robot.type == SIMULATED_ROBOT:
            raise InputError(
                f"[cameras] contradicts robot.type {SIMULATED_ROBOT!r}: it renders its own images"
            )

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """What is raised as ``InputError`` inside begins with the file's path."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.path or 'recap.toml'}: {error}") from error


def load_site_config(path: Path) -> SiteConfig:
    """Reads ``recap.toml``; the defaults if there is none.

    Raises ``InputError`` naming the file and the key for bad TOML, unknown keys and bad values.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return SiteConfig()
    except NotADirectoryError as error:
        raise InputError(f"the workspace {path.parent} is a file: name a folder with --workspace") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    try:
        return replace(_from_document(document), path=path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _from_document(document: dict[str, Any]) -> SiteConfig:
    _reject_unknown("", document, SiteConfig)
    cameras = {
        name: CameraSection(**_table(f"cameras.{name}", section, CameraSection))
        for name, section in _require_table("cameras", document.get("cameras", {})).items()
    }
    robot = RobotSection(**_table("robot", document.get("robot", {}), RobotSection))
    for name, where in _SAID_ELSEWHERE.items():
        if robot.type == SIMULATED_ROBOT and name in robot.options:
            raise InputError(f"robot.options.{name} of {SIMULATED_ROBOT!r} decides nothing: {where}")
    tasks = document.get("tasks", [])
    if not isinstance(tasks, list):
        raise InputError(f"tasks must be a list of texts, not {tasks!r}")
    return SiteConfig(
        robot=robot,
        cameras=cameras,
        operator=OperatorSection(**_table("operator", document.get("operator", {}), OperatorSection)),
        tasks=tuple(tasks),
        defaults=DefaultsSection(**_table("defaults", document.get("defaults", {}), DefaultsSection)),
        cache=CacheSection(**_table("cache", document.get("cache", {}), CacheSection)),
        labels=LabelsSection(**_table("labels", document.get("labels", {}), LabelsSection)),
        value=ValueSection(**_table("value", document.get("value", {}), ValueSection)),
        gate=check_gate(dict(_require_table("gate", document.get("gate", {})))),
        policy=PolicySection(**_table("policy", document.get("policy", {}), PolicySection)),
        promotion=PromotionSection(**_table("promotion", document.get("promotion", {}), PromotionSection)),
        remote=RemoteSection(**_table("remote", document.get("remote", {}), RemoteSection)),
    )


def _table(name: str, value: Any, section: type) -> dict[str, Any]:
    table = _require_table(name, value)
    _reject_unknown(name, table, section)
    return dict(table)


def _reject_unknown(name: str, table: Mapping[str, Any], section: type) -> None:
    known = [f.name for f in fields(section) if f.compare]  # all but the path, which is not in the file
    require_known_keys(f"[{name}]" if name else "the top level", table, known)


def require_known_keys(where: str, table: Iterable[str], known: Iterable[str]) -> None:
    """Raises ``InputError`` for a key of ``table`` that is not ``known``: with the one meant, and all."""
    names = list(known)
    unknown = sorted(set(table) - set(names))
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown key {unknown[0]!r} in {where}; {hint}known are {', '.join(names)}")


def _require_table(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a table, not {value!r}")
    return value


def _require_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} must be a text that is not empty, not {value!r}")

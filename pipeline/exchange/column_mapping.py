"""What the columns of a recording mean in our schema: which, in what unit, order and convention.

A mapping is data, so that a format's own (``ForeignEpisode.mapping``) and a site's TOML file
(:mod:`pipeline.exchange.mapping_file`) are the same thing. :mod:`pipeline.exchange.mapped_fields`
applies it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.exchange.orientations import ANGLES, WIDTHS, check_convention

UNITS: dict[str, float] = {
    "": 1.0,
    **{"m": 1.0, "cm": 0.01, "mm": 0.001, "m/s": 1.0, "cm/s": 0.01, "mm/s": 0.001},
    **{"rad": 1.0, "deg": np.pi / 180, "rad/s": 1.0, "deg/s": np.pi / 180},
    **{"N": 1.0, "Nm": 1.0},
}
"""A column's unit and the factor to ours; none given means ours."""


@dataclass(frozen=True)
class Selection:
    """Components of one column: all, or ``indices`` in the order wanted, in ``unit``.

    ``components`` picks by name instead, where the recording names them.
    """

    column: str
    indices: tuple[int, ...] = ()
    components: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        """Rejects an unknown unit, negative indices, and indices together with names."""
        if not self.column:
            raise InputError("'column' is empty: name a column of the recording")
        if self.unit not in UNITS:
            raise InputError(f"there is no unit {self.unit!r}; there are {', '.join(u for u in UNITS if u)}")
        if any(i < 0 for i in self.indices):
            raise InputError(f"column {self.column!r}: indices count from 0, {self.indices} has one below")
        if self.indices and self.components:
            raise InputError(f"column {self.column!r}: give 'indices' or 'components', not both")

    @property
    def width(self) -> int | None:
        """How many numbers it selects; ``None`` for all that the column has."""
        return len(self.indices) or len(self.components) or None


@dataclass(frozen=True)
class Orientation(Selection):
    """A selection that is an orientation by one of :data:`pipeline.exchange.orientations.WIDTHS`."""

    convention: str = "quaternion_wxyz"

    def __post_init__(self) -> None:
        """Rejects an unknown convention, a wrong number of indices and a unit without angles."""
        super().__post_init__()
        check_convention(self.convention)
        if self.width not in (None, WIDTHS[self.convention]):
            raise InputError(
                f"column {self.column!r}: {self.convention} has {WIDTHS[self.convention]} numbers, "
                f"{self.width} are selected"
            )
        if self.unit not in ("", "rad", "rad/s") and self.convention not in ANGLES:
            raise InputError(f"column {self.column!r}: {self.convention} has no unit, {self.unit!r} is given")


@dataclass(frozen=True)
class Pose:
    """A pose in the robot's base: position and orientation, or ``whole``: x y z w x y z kept as it is.

    ``origin`` (3, m) is where the base stands in the recording's frame of reference, if not at its origin;
    their axes must be the same.
    """

    position: Selection | None = None
    orientation: Orientation | None = None
    whole: Selection | None = None
    origin: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Rejects half a pose, a pose given twice, and an origin that is no place."""
        if len(self.origin) not in (0, 3) or not np.isfinite(self.origin).all():
            raise InputError(f"'origin' has 3 numbers, x y z in m, not {list(self.origin)}")
        parts = (self.position is not None, self.orientation is not None)
        if parts != ((False, False) if self.whole is not None else (True, True)):
            raise InputError("a pose needs 'position' and 'orientation', or 'whole' alone")


@dataclass(frozen=True)
class Gripper(Selection):
    """A gripper as one number, or as several fingers, of which the mean of the absolute values counts.

    ``open`` is the value of a fully open gripper, ``closed`` that of a closed one; what lies between
    maps linearly to 0 (open) … 1 (closed), and what lies beyond is clipped.
    """

    open: float = 0.0
    closed: float = 1.0

    def __post_init__(self) -> None:
        """Rejects a range of no width."""
        super().__post_init__()
        if not np.isfinite([self.open, self.closed]).all() or self.open == self.closed:
            raise InputError(f"column {self.column!r}: 'open' and 'closed' are {self.open} and {self.closed}")


@dataclass(frozen=True)
class Action:
    """What the recorded actions say: in which space, from which columns.

    ``twist`` and ``delta_pose`` take ``translation`` (3) and ``rotation`` (a rotation vector or Euler
    angles; none means no rotation), ``absolute_pose`` both as a pose, ``joint_positions`` takes
    ``joints`` (7). ``scale`` (6) multiplies translation and rotation after clipping them to [-1, 1]
    where ``clip`` is set, and ``offset`` (6) is then added; neither is for the other two spaces.
    ``whole`` is our own action vector of that space. ``enabled`` is a column of flags: where it is 0, no
    command was sent, so the twist is zero and the gripper stays where it is.
    """

    space: ActionSpace
    gripper: Gripper | None = None
    translation: Selection | None = None
    rotation: Orientation | None = None
    joints: Selection | None = None
    whole: Selection | None = None
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    clip: bool = False
    enabled: str = ""

    def __post_init__(self) -> None:
        """Rejects parts that the space does not have and lacks that it needs."""
        given = {
            name for name in ("translation", "rotation", "joints", "whole") if getattr(self, name) is not None
        }
        relative = self.space in (ActionSpace.TWIST, ActionSpace.DELTA_POSE)
        if "whole" in given:
            fits = given == {"whole"} and self.gripper is None
        elif self.space is ActionSpace.JOINT_POSITIONS:
            fits = given == {"joints"}
        else:
            fits = given == {"translation", "rotation"} or (relative and given == {"translation"})
        if not fits:
            raise InputError(
                f"action: the space {self.space} does not go with {', '.join(sorted(given)) or 'no columns'}"
                f"{' and a gripper' if self.gripper is not None else ''}"
            )
        if "whole" not in given and self.gripper is None:
            raise InputError("action: 'gripper' is missing: name the column of the gripper's target")
        if relative and self.rotation is not None and self.rotation.convention not in ANGLES:
            raise InputError("action: a change of orientation is a rotation vector or Euler angles")
        turned = None if self.rotation is None else self.rotation.convention
        if self.space is ActionSpace.TWIST and turned not in (None, "rotation_vector"):
            raise InputError("action: the rotation of a twist is a rotation_vector, an angular velocity")
        if (self.scale or self.offset or self.clip) and (not relative or "whole" in given):
            raise InputError("action: 'scale', 'offset' and 'clip' are for translation and rotation only")
        if len(self.scale) not in (0, 6) or len(self.offset) not in (0, 6):
            raise InputError("action: 'scale' and 'offset' have 6 numbers, translation then rotation")


@dataclass(frozen=True)
class ColumnMapping:
    """Which columns hold what. ``None`` where a recording has no such thing.

    ``cameras`` gives our name of a camera for the recording's; empty keeps all under their own.
    ``image_order`` is the order of the channels in arrays and in JPEGs as OpenCV decodes them
    (ALOHA only); ``rate_hz`` overrules or supplies the rate.
    """

    joint_positions: Selection | None = None
    joint_velocities: Selection | None = None
    tool_pose: Pose | None = None
    gripper_position: Gripper | None = None
    tool_wrench: Selection | None = None
    action: Action | None = None
    cameras: tuple[tuple[str, str], ...] = ()
    image_order: str = "rgb"
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        """Rejects doubled cameras, an unknown order of channels, a rate that is none, wrong widths."""
        for side, kind in ((0, "our"), (1, "the recording's")):
            names = [pair[side] for pair in self.cameras]
            if len(set(names)) != len(names):
                raise InputError(f"cameras: {kind} names must differ, not {names}")
        for ours, _ in self.cameras:
            if not ours.isidentifier():
                raise InputError(f"cameras: our name {ours!r} must be letters, digits and '_'")
        if self.image_order not in ("rgb", "bgr"):
            raise InputError(f"image_order is 'rgb' or 'bgr', not {self.image_order!r}")
        if self.rate_hz is not None and not 0 < self.rate_hz <= 10_000:
            raise InputError(f"rate_hz must lie above 0 and up to 10000, not {self.rate_hz}")
        for name, width in (("joint_positions", 7), ("joint_velocities", 7), ("tool_wrench", 6)):
            selection = getattr(self, name)
            if selection is not None and selection.width not in (None, width):
                raise InputError(f"{name} needs {width} components, {selection.width} are selected")

    def over(self, proposed: ColumnMapping) -> ColumnMapping:
        """This mapping, and where it says nothing what the format proposes."""
        changes = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {name: value for name, value in changes.items() if value not in (None, ())}
        if self.image_order == "rgb":
            kept.pop("image_order")
        return replace(proposed, **kept)

"""The ways in which recordings write an orientation, turned into quaternions ``w x y z``.

| convention | numbers | meaning |
|---|---|---|
| ``quaternion_wxyz``, ``quaternion_xyzw`` | 4 | of any length but zero |
| ``euler_xyz`` and the other orders, small letters | 3 | turns about fixed axes, first letter first |
| ``euler_XYZ`` and the other orders, capitals | 3 | turns about the turned axes, first letter first |
| ``rotation_vector`` | 3 | axis times angle |
| ``rotation_6d_columns`` | 6 | the matrix's first two columns (Zhou et al., 2019) |
| ``rotation_6d_rows`` | 6 | its first two rows (PyTorch3D, robomimic, diffusion policy) |
| ``matrix`` | 9 | row by row |

Angles in rad. Capitals and small letters mean what they mean in SciPy.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from pipeline.errors import InputError
from pipeline.exchange import rotations

_EULER = tuple(f"euler_{''.join(p)}" for letters in ("xyz", "XYZ") for p in permutations(letters))
WIDTHS: dict[str, int] = {
    "quaternion_wxyz": 4,
    "quaternion_xyzw": 4,
    "rotation_vector": 3,
    "rotation_6d_columns": 6,
    "rotation_6d_rows": 6,
    "matrix": 9,
    **dict.fromkeys(_EULER, 3),
}
"""How many numbers each convention has."""

ANGLES: tuple[str, ...] = ("rotation_vector", *_EULER)
"""The conventions whose numbers are angles, and so may be in degrees."""


def quaternions(convention: str, values: np.ndarray) -> np.ndarray:
    """Unit quaternions ``w x y z``, float64 (T, 4), of ``values`` (T, :data:`WIDTHS`); signs do not jump.

    Raises ``InputError`` for an unknown convention, a wrong width and rows that are no rotation.
    """
    check_convention(convention)
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(numbers), WIDTHS[convention]):
        raise InputError(
            f"an orientation as {convention} has {WIDTHS[convention]} numbers, not {numbers.shape[1:]}"
        )
    if convention.startswith("quaternion"):
        turned = rotations.normalised(numbers if convention.endswith("wxyz") else np.roll(numbers, 1, -1))
    elif convention == "rotation_vector":
        turned = rotations.from_rotation_vector(numbers)
    elif convention.startswith("euler"):
        turned = _from_euler(convention.removeprefix("euler_"), numbers)
    elif convention == "matrix":
        turned = _from_matrices(numbers.reshape(-1, 3, 3))
    else:
        columns = _gram_schmidt(numbers)
        rows_given = convention.endswith("rows")
        turned = _from_matrices(np.swapaxes(columns, -1, -2) if rows_given else columns)
    bad = np.flatnonzero(~np.isfinite(turned).all(axis=1))
    if len(bad):
        raise InputError(f"the orientation in frame {bad[0]} is no rotation as {convention}")
    return rotations.continuous(turned)


def check_convention(convention: str) -> None:
    """Raises ``InputError`` for a convention that there is not."""
    if convention not in WIDTHS:
        raise InputError(f"there is no orientation convention {convention!r}; there are {', '.join(WIDTHS)}")


def _from_euler(order: str, angles: np.ndarray) -> np.ndarray:
    total = np.tile([1.0, 0.0, 0.0, 0.0], (len(angles), 1))
    for position, letter in enumerate(order.lower()):
        vector = np.zeros((len(angles), 3))
        vector[:, "xyz".index(letter)] = angles[:, position]
        turn = rotations.from_rotation_vector(vector)
        # About fixed axes a later turn comes on the left, about turned axes on the right.
        total = rotations.product(turn, total) if order.islower() else rotations.product(total, turn)
    return total


def _gram_schmidt(columns: np.ndarray) -> np.ndarray:
    first, second = columns[:, :3], columns[:, 3:]
    with np.errstate(invalid="ignore", divide="ignore"):
        x = first / np.linalg.norm(first, axis=1, keepdims=True)
        y = second - (x * second).sum(axis=1, keepdims=True) * x
        y = y / np.linalg.norm(y, axis=1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def _from_matrices(matrices: np.ndarray) -> np.ndarray:
    finite = np.isfinite(matrices).all(axis=(1, 2))
    known = np.where(finite[:, None, None], matrices, np.eye(3))
    error = np.abs(known @ np.swapaxes(known, -1, -2) - np.eye(3)).max(axis=(1, 2))
    proper = finite & (error < 1e-3) & (np.linalg.det(known) > 0)
    turned = rotations.from_matrix(np.where(proper[:, None, None], known, np.eye(3)))
    return np.where(proper[:, None], turned, np.nan)

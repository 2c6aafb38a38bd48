"""Many rotations at once: quaternions ``w x y z``, rotation vectors (axis times angle, rad), matrices.

Every function takes arrays with any leading axes and computes in float64. Rows of NaN give rows of NaN.
Formulas: Solà, "Quaternion kinematics for the error-state Kalman filter" (2017), sections 1 and 2.
"""

from __future__ import annotations

import numpy as np

_TINY = 1e-12  # below this sine of the half angle, the first term of the series is exact in float64


def normalised(quaternions: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4) in the direction of ``quaternions``; NaN where one has no length."""
    q = np.asarray(quaternions, dtype=np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    return q / np.where(length > 0, length, np.nan)


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Hamilton product (..., 4): the rotation ``second``, then ``first``."""
    aw, ax, ay, az = np.moveaxis(np.asarray(first, dtype=np.float64), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(second, dtype=np.float64), -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def conjugate(quaternions: np.ndarray) -> np.ndarray:
    """The inverse (..., 4) of unit quaternions."""
    return np.asarray(quaternions, dtype=np.float64) * (1.0, -1.0, -1.0, -1.0)


def from_rotation_vector(vectors: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4) of rotation vectors (..., 3) in rad."""
    v = np.asarray(vectors, dtype=np.float64)
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    # sin(angle / 2) / angle, which numpy's sinc gives for angle 0 too.
    return np.concatenate([np.cos(angle / 2), v * np.sinc(angle / (2 * np.pi)) / 2], axis=-1)


def to_rotation_vector(quaternions: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3) in rad, at most π long, of unit quaternions (..., 4) of either sign."""
    q = np.asarray(quaternions, dtype=np.float64)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    return q[..., 1:] * np.where(sine > _TINY, angle / np.maximum(sine, _TINY), 2.0)


def from_matrix(rotations: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4) of rotation matrices (..., 3, 3).

    Shepperd's method (1978): of four equivalent formulas each matrix gets the one that divides by the
    largest component.
    """
    r = np.asarray(rotations, dtype=np.float64)
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    wx, wy, wz = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    xy, xz, yz = r[..., 1, 0] + r[..., 0, 1], r[..., 0, 2] + r[..., 2, 0], r[..., 2, 1] + r[..., 1, 2]
    candidates = np.stack(
        [
            np.stack([1 + xx + yy + zz, wx, wy, wz], -1),
            np.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            np.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            np.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        axis=-2,
    )
    largest = np.argmax(np.stack([xx + yy + zz, xx, yy, zz], -1), axis=-1)
    chosen = np.take_along_axis(candidates, largest[..., None, None], axis=-2)[..., 0, :]
    return normalised(chosen)


def continuous(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations (T, 4) without jumps of sign from row to row.

    A quaternion and its negative are one rotation. The first row's largest component is positive, every
    later row has the sign that is nearer to the row before. Rows with NaN stay and do not count.
    """
    q = np.array(quaternions, dtype=np.float64)
    rows = np.flatnonzero(np.isfinite(q).all(axis=-1))
    if not len(rows):
        return q
    known = q[rows]
    turns = np.where((known[1:] * known[:-1]).sum(-1) < 0, -1.0, 1.0)
    first = 1.0 if known[0, np.argmax(np.abs(known[0]))] > 0 else -1.0
    q[rows] = known * np.cumprod(np.concatenate([[first], turns]))[:, None]
    return q

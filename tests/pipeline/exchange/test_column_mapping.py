"""The arithmetic of mappings against independent formulas, and the mapping file's checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.errors import InputError
from pipeline.exchange.column_mapping import ColumnMapping, Gripper
from pipeline.exchange.mapped_fields import Recording, gripper, mapped_fields
from pipeline.exchange.mapping_file import parse_mapping, read_mapping
from pipeline.exchange.orientations import WIDTHS, quaternions
from pipeline.gen3_kinematics import quaternion_from_rotation, rotation_from_quaternion

ANGLES = arrays(np.float64, (4, 3), elements=st.floats(-3.0, 3.0))
EXAMPLES = settings(max_examples=25, deadline=None)


def recording(rate_hz: float = 10.0, robot: str = "arm", **columns: np.ndarray) -> Recording:
    length = len(next(iter(columns.values())))
    return Recording(columns, {}, length, rate_hz, robot)


def about(letter: str, angle: float) -> np.ndarray:
    """The matrix of a turn about one axis."""
    c, s = np.cos(angle), np.sin(angle)
    rows = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]]}
    return np.array(rows.get(letter, [[c, -s, 0], [s, c, 0], [0, 0, 1]]))


def from_euler(order: str, angles: np.ndarray) -> np.ndarray:
    """Fixed axes for small letters: later turns on the left; turned axes for capitals: on the right."""
    first, second, third = (about(letter.lower(), angle) for letter, angle in zip(order, angles, strict=True))
    return third @ second @ first if order.islower() else first @ second @ third


def from_vector(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector.astype(np.float64))
    x, y, z = vector / max(angle, 1e-30)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def assert_same_rotations(found: np.ndarray, expected: np.ndarray) -> None:
    """``found`` (T, 4) are w x y z, unit and without jumps of sign; ``expected`` (T, 3, 3) matrices."""
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0)
    assert np.allclose([rotation_from_quaternion(row) for row in found], expected, atol=1e-7)
    assert (np.sum(found[1:] * found[:-1], axis=1) > -1e-9).all()


@EXAMPLES
@given(ANGLES)
def test_every_orientation_convention(angles: np.ndarray) -> None:
    matrices = np.stack([from_vector(row) for row in angles])
    w, x, y, z = np.stack([quaternion_from_rotation(matrix) for matrix in matrices]).T * 2.5
    known = {
        "quaternion_wxyz": np.stack([w, x, y, z], axis=1),
        "quaternion_xyzw": np.stack([x, y, z, w], axis=1),
        "rotation_vector": angles,
        "rotation_6d_columns": np.concatenate([matrices[:, :, 0], matrices[:, :, 1]], axis=1),
        "rotation_6d_rows": matrices[:, :2].reshape(-1, 6),
        "matrix": matrices.reshape(-1, 9),
    }
    for convention, width in WIDTHS.items():
        if convention.startswith("euler"):
            order = convention.removeprefix("euler_")
            expected = np.stack([from_euler(order, row) for row in angles])
            assert_same_rotations(quaternions(convention, angles), expected)
        else:
            assert known[convention].shape[1] == width
            assert_same_rotations(quaternions(convention, known[convention]), matrices)


@pytest.mark.parametrize(
    ("convention", "row"),
    [
        ("quaternion_xyzw", [0, 0, 0, 0]),
        ("matrix", [1, 0, 0, 0, 1, 0, 0, 0, -1]),
        ("rotation_6d_rows", [0] * 6),
    ],
)
def test_what_is_no_rotation_is_refused(convention: str, row: list[float]) -> None:
    good = {
        "quaternion_xyzw": [0, 0, 0, 1],
        "matrix": np.eye(3).ravel(),
        "rotation_6d_rows": np.eye(3)[:2].ravel(),
    }
    with pytest.raises(InputError, match="frame 1 is no rotation"):
        quaternions(convention, np.array([good[convention], row], dtype=float))


@EXAMPLES
@given(st.floats(-10, 10), st.floats(-10, 10), arrays(np.float64, (5,), elements=st.floats(0, 1)))
def test_a_gripper_maps_its_range_linearly(opened: float, closed: float, part: np.ndarray) -> None:
    if abs(opened - closed) < 1e-3:
        return
    values = opened + part * (closed - opened)
    mapped = gripper(recording(g=values), Gripper("g", open=opened, closed=closed), "g")
    assert mapped.shape == (5, 1) and np.allclose(mapped[:, 0], part, atol=1e-9)
    beyond = gripper(
        recording(g=np.array([2 * opened - closed, 2 * closed - opened])),
        Gripper("g", open=opened, closed=closed),
        "g",
    )
    assert np.allclose(beyond[:, 0], [0, 1])


@EXAMPLES
@given(arrays(np.float64, (4,), elements=st.floats(0, 0.04)))
def test_two_fingers_are_one_gripper(finger: np.ndarray) -> None:
    both = np.stack([finger, -finger], axis=1)
    mapped = gripper(recording(q=both), Gripper("q", open=0.04, closed=0.0), "q")
    assert np.allclose(mapped[:, 0], 1 - finger / 0.04)


@EXAMPLES
@given(
    arrays(np.float64, (4, 7), elements=st.floats(-2, 2)),
    arrays(np.float64, (6,), elements=st.floats(0.01, 2)),
    st.floats(1, 100),
)
def test_a_scaled_delta_is_a_twist(actions: np.ndarray, scale: np.ndarray, rate_hz: float) -> None:
    mapping = parse_mapping(
        {
            "action": {
                "space": "delta_pose",
                "translation": {"column": "a", "indices": [0, 1, 2]},
                "rotation": {"column": "a", "indices": [3, 4, 5], "convention": "rotation_vector"},
                "gripper": {"column": "a", "indices": [6], "open": -1, "closed": 1},
                "scale": scale.tolist(),
                "clip": True,
            }
        }
    )
    fields = mapped_fields(recording(rate_hz, a=actions), mapping)
    assert "action" not in fields.missing
    expected = np.clip(actions[:, :6], -1, 1) * scale * rate_hz
    assert np.allclose(fields.action[:, :6], expected, rtol=1e-5, atol=1e-5)
    assert np.allclose(fields.action[:, 6], (np.clip(actions[:, 6], -1, 1) + 1) / 2, atol=1e-6)


@EXAMPLES
@given(ANGLES, ANGLES, arrays(np.float64, (4, 6), elements=st.floats(-1, 1)))
def test_an_absolute_target_is_a_twist(euler: np.ndarray, turn: np.ndarray, places: np.ndarray) -> None:
    here = np.stack([from_euler("xyz", row) for row in euler])
    goal = np.stack([from_vector(row * 0.9) for row in turn]) @ here
    w, x, y, z = np.stack([quaternion_from_rotation(matrix) for matrix in goal]).T
    columns = {
        "pose": np.concatenate([places[:, :3], np.rad2deg(euler)], axis=1),
        "goal": np.column_stack([places[:, 3:], x, y, z, w]),
        "grip": np.linspace(0, 1, 4),
    }
    mapping = parse_mapping(
        {
            "tool_pose": {
                "position": {"column": "pose", "indices": [0, 1, 2]},
                "orientation": {
                    "column": "pose",
                    "indices": [3, 4, 5],
                    "unit": "deg",
                    "convention": "euler_xyz",
                },
                "origin": [0.5, -1.0, 2.0],
            },
            "action": {
                "space": "absolute_pose",
                "translation": {"column": "goal", "indices": [0, 1, 2]},
                "rotation": {"column": "goal", "indices": [3, 4, 5, 6], "convention": "quaternion_xyzw"},
                "gripper": {"column": "grip"},
            },
        }
    )
    fields = mapped_fields(recording(5.0, **columns), mapping)
    assert np.allclose(fields.state["tool_pose"][:, :3], places[:, :3] - (0.5, -1.0, 2.0), atol=1e-5)
    assert np.allclose(fields.action[:, :3], (places[:, 3:] - places[:, :3]) * 5, atol=1e-4)
    reached = np.stack([from_vector(row / 5) for row in fields.action[:, 3:6]]) @ here
    assert np.abs(reached - goal).max() < 1e-4


SELECTION = {"column": "a"}
MOTION: dict[str, Any] = {"translation": SELECTION, "gripper": SELECTION}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"joints": SELECTION}, "unknown key joints"),
        ({"joint_positions": {"colunm": "a"}}, "unknown key joint_positions.colunm"),
        ({"joint_positions": {"unit": "deg"}}, "joint_positions lacks 'column'"),
        ({"joint_positions": {"column": "a", "unit": "degrees"}}, "no unit 'degrees'"),
        ({"joint_positions": {"column": "a", "indices": [0, 1]}}, "needs 7 components, 2 are selected"),
        ({"joint_positions": {"column": "a", "indices": [0.5]}}, "must be a list of whole numbers"),
        ({"joint_positions": {"column": "a", "indices": [0], "components": ["b"]}}, "not both"),
        ({"joint_positions": "a"}, "must be a table"),
        ({"tool_pose": {"position": SELECTION}}, "needs 'position' and 'orientation'"),
        (
            {"tool_pose": {"position": SELECTION, "orientation": {"column": "a", "convention": "euler"}}},
            "no orientation convention 'euler'",
        ),
        ({"gripper_position": {"column": "a", "open": 1.0}}, "'open' and 'closed' are 1.0 and 1.0"),
        ({"action": {"space": "velocity", **MOTION}}, "must be one of twist"),
        ({"action": {"space": "joint_positions", **MOTION}}, "does not go with translation"),
        ({"action": {"space": "twist", "translation": SELECTION}}, "'gripper' is missing"),
        ({"action": {"space": "twist", **MOTION, "scale": [1, 2]}}, "have 6 numbers"),
        (
            {"action": {"space": "twist", **MOTION, "rotation": {"column": "a", "convention": "euler_xyz"}}},
            "an angular velocity",
        ),
        ({"cameras": {"my camera": "a"}}, "'my camera' must be letters"),
        ({"cameras": {"left": "a", "right": "a"}}, "names must differ"),
        ({"cameras": ["a"]}, "cameras must be a table"),
        ({"image_order": "gbr"}, "'rgb' or 'bgr'"),
        ({"rate_hz": 0}, "rate_hz must lie above 0"),
        ({"rate_hz": "ten"}, "rate_hz must be a number"),
    ],
)
def test_a_wrong_mapping_is_refused_in_one_line(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")) as caught:
        parse_mapping(document)
    assert "\n" not in str(caught.value)


def test_a_mapping_file_that_is_no_toml_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("a = = 3")
    with pytest.raises(InputError, match=r"wrong\.toml"):
        read_mapping(path)
    path.write_text("frames = 3")
    with pytest.raises(InputError, match=r"wrong\.toml: unknown key frames"):
        read_mapping(path)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"column": "b"}, "there is no column 'b'; there are a"),
        ({"column": "a", "indices": [0, 1, 2, 3, 4, 5, 8]}, "has 8 components, there is no index 8"),
        ({"column": "a"}, "needs 7 numbers a frame, column 'a' gives 8"),
        ({"column": "a", "components": list("abcdefg")}, "has no component 'a'"),
    ],
)
def test_a_mapping_that_does_not_fit_the_columns(selection: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mapped_fields(recording(a=np.zeros((3, 8))), parse_mapping({"joint_positions": selection}))


def test_a_number_that_is_none_is_refused() -> None:
    values = np.zeros((3, 7))
    values[2, 4] = np.inf
    with pytest.raises(InputError, match="joint_positions is not a finite number in frame 2"):
        mapped_fields(recording(a=values), parse_mapping({"joint_positions": SELECTION}))


def test_only_a_gen3_gets_its_tool_pose_from_the_joints() -> None:
    mapping = parse_mapping({"joint_positions": SELECTION})
    joints = np.zeros((2, 7))
    assert "tool_pose" in mapped_fields(recording(a=joints), mapping).missing
    fields = mapped_fields(recording(robot="kinova_gen3", a=joints), mapping)
    assert "tool_pose" not in fields.missing and np.isfinite(fields.state["tool_pose"]).all()


def test_a_file_s_mapping_goes_over_the_format_s() -> None:
    proposed = parse_mapping({"joint_positions": SELECTION, "gripper_position": SELECTION, "rate_hz": 5})
    said = parse_mapping({"gripper_position": {"column": "b"}, "cameras": {"table": "top"}})
    both = said.over(proposed)
    assert both.joint_positions == proposed.joint_positions and both.rate_hz == 5
    assert both.gripper_position == said.gripper_position and both.cameras == (("table", "top"),)
    assert ColumnMapping().over(proposed) == proposed


def test_the_documented_mapping_is_a_mapping(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "import-export.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    path = tmp_path / "example.toml"
    path.write_text(example, encoding="utf-8")
    mapping = read_mapping(path)
    assert all(getattr(mapping, name) is not None for name in ("joint_positions", "tool_pose", "action"))
    assert mapping.action is not None and mapping.action.clip and len(mapping.action.scale) == 6

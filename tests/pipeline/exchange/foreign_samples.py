"""Writes small recordings in the formats of other projects, exact in names, shapes, dtypes and units."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import h5py
import numpy as np

from pipeline.gen3_kinematics import READY
from tests.pipeline.episodes import make_image

LENGTH = 9
SIZE = 32

Columns = dict[str, np.ndarray]


def images(length: int = LENGTH, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Smooth pictures, (T, size, size, 3) uint8 RGB; red above blue everywhere, so that orders differ."""
    rng = np.random.default_rng(seed)
    shown = np.stack([make_image(rng, size) for _ in range(length)])
    shown[..., 0] = 200 + shown[..., 0] // 8
    shown[..., 2] = shown[..., 2] // 8
    return shown


def write_video(path: Path, shown: np.ndarray, rate_hz: int, codec: str = "h264") -> Path:
    """A video of the images, one frame each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate_hz, options={"crf": "5", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = shown.shape[2], shown.shape[1], "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 20_000_000
        for i, image in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def joints(length: int = LENGTH, seed: int = 0) -> np.ndarray:
    """Joint angles of a Gen3 that moves a little, (T, 7) rad."""
    steps = np.random.default_rng(seed).normal(scale=0.01, size=(length, 7))
    return READY + np.cumsum(steps, axis=0)


# robomimic ---------------------------------------------------------------------------------------------

OSC_POSE = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "control_delta": True,
}


def robomimic_demo(seed: int = 0, length: int = LENGTH) -> dict[str, np.ndarray]:
    """One demo's datasets by path, as robosuite's Panda gives them."""
    rng = np.random.default_rng(seed)
    quaternions = rng.normal(size=(length, 4))
    opening = rng.uniform(0, 0.04, length)
    return {
        "actions": rng.uniform(-1, 1, (length, 7)),
        "rewards": np.eye(length)[-1],
        "dones": np.eye(length, dtype=np.int64)[-1],
        "states": rng.normal(size=(length, 45)),
        "obs/agentview_image": images(length, seed),
        "obs/robot0_eye_in_hand_image": images(length, seed + 1),
        "obs/robot0_joint_pos": joints(length, seed),
        "obs/robot0_joint_vel": rng.normal(size=(length, 7)),
        "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
        "obs/robot0_eef_quat": quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
        "obs/robot0_gripper_qpos": np.stack([opening, -opening], axis=1),
        "obs/object": rng.normal(size=(length, 14)),
        "next_obs/object": rng.normal(size=(length, 14)),
    }


def write_robomimic_file(
    path: Path, demos: Sequence[Columns], controller: Any = OSC_POSE, **settings: Any
) -> Path:
    """A file of demos with robosuite's ``env_args``."""
    arguments = {
        "env_name": "Lift",
        "type": 1,
        "env_version": "1.4.1",
        "env_kwargs": {
            "robots": ["Panda"],
            "control_freq": 20,
            "controller_configs": controller,
            "camera_names": ["agentview", "robot0_eye_in_hand"],
            **settings,
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(arguments, indent=4)
        data.attrs["total"] = sum(len(demo["actions"]) for demo in demos)
        for i, demo in enumerate(demos):
            group = data.create_group(f"demo_{i}")
            group.attrs["num_samples"] = len(demo["actions"])
            for name, values in demo.items():
                group.create_dataset(name, data=values)
        names = [f"demo_{i}".encode() for i in range(len(demos))]
        file.create_dataset("mask/train", data=np.array(names[:1]))
    return path


# ALOHA -------------------------------------------------------------------------------------------------


def aloha_columns(width: int, seed: int = 0, length: int = LENGTH) -> Columns:
    """qpos, qvel, effort and action of 14 numbers for two arms, 8 for seven joints and a gripper."""
    rng = np.random.default_rng(seed)
    qpos = rng.normal(size=(length, width))
    action = rng.normal(size=(length, width))
    if width == 8:
        qpos[:, :7], action[:, :7] = joints(length, seed), joints(length, seed + 1)
        qpos[:, 7], action[:, 7] = rng.uniform(0, 1, length), rng.uniform(0, 1, length)
    return {
        "observations/qpos": qpos,
        "observations/qvel": rng.normal(size=(length, width)),
        "observations/effort": rng.normal(size=(length, width)),
        "action": action,
    }


def write_aloha_file(path: Path, columns: Columns, shown: Columns, *, compress: bool = False) -> Path:
    """One episode; ``compress`` as ALOHA does it: OpenCV's JPEG of the array, padded with zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", rdcc_nbytes=1024**2 * 2) as file:
        file.attrs["sim"] = False
        file.attrs["compress"] = compress
        for name, values in columns.items():
            file.create_dataset(name, data=values)
        lengths = []
        for camera, pictures in shown.items():
            if not compress:
                file.create_dataset(
                    f"observations/images/{camera}", data=pictures, chunks=(1, *pictures.shape[1:])
                )
                continue
            jpegs = [cv2.imencode(".jpg", p, [int(cv2.IMWRITE_JPEG_QUALITY), 90])[1] for p in pictures]
            lengths.append([len(jpeg) for jpeg in jpegs])
            padded = np.zeros((len(jpegs), max(map(len, jpegs))), np.uint8)
            for row, jpeg in zip(padded, jpegs, strict=True):
                row[: len(jpeg)] = jpeg
            file.create_dataset(f"observations/images/{camera}", data=padded, chunks=(1, padded.shape[1]))
        if compress:
            file.create_dataset("compress_len", data=np.array(lengths))
    return path


# DROID -------------------------------------------------------------------------------------------------

SERIALS = {"wrist": "14013996", "ext1": "20036094", "ext2": "24259877"}
DROID_START_MS = 1_688_748_143_123


def droid_columns(seed: int = 0, length: int = LENGTH) -> Columns:
    """The datasets of ``trajectory.h5``."""
    rng = np.random.default_rng(seed)
    times = DROID_START_MS + np.round(np.arange(length) * 1000 / 15).astype(np.int64)
    pose = np.concatenate([rng.normal(size=(length, 3)), rng.uniform(-1, 1, (length, 3))], axis=1)
    state, action = "observation/robot_state", "action"
    return {
        f"{state}/joint_positions": joints(length, seed),
        f"{state}/joint_velocities": rng.normal(size=(length, 7)),
        f"{state}/joint_torques_computed": rng.normal(size=(length, 7)),
        f"{state}/cartesian_position": pose,
        f"{state}/gripper_position": rng.uniform(0, 1, length),
        f"{state}/prev_command_successful": np.ones(length, bool),
        "observation/controller_info/movement_enabled": np.arange(length) > 0,
        "observation/controller_info/success": np.zeros(length, bool),
        "observation/controller_info/failure": np.zeros(length, bool),
        "observation/timestamp/robot_state/read_start": times,
        **{
            f"observation/timestamp/cameras/{serial}_estimated_capture": times - 40 - i
            for i, serial in enumerate(SERIALS.values())
        },
        **{
            f"observation/camera_type/{serial}": np.full(length, 0 if name == "wrist" else 1)
            for name, serial in SERIALS.items()
        },
        f"{action}/cartesian_position": pose + rng.uniform(-0.02, 0.02, (length, 6)),
        f"{action}/cartesian_velocity": rng.uniform(-1, 1, (length, 6)),
        f"{action}/joint_position": joints(length, seed + 1),
        f"{action}/gripper_position": rng.uniform(0, 1, length),
        f"{action}/gripper_velocity": rng.uniform(-1, 1, length),
    }


def write_droid_folder(
    folder: Path,
    columns: Columns,
    shown: Columns,
    *,
    attributes: dict[str, Any] | None = None,
    metadata: bool = True,
) -> Path:
    """One episode's folder; ``shown`` maps ``wrist``, ``ext1``, ``ext2`` to the left images."""
    folder.mkdir(parents=True)
    facts = {"success": True, "current_task": "Put the marker in the pot", "user": "Ana Robot"}
    with h5py.File(folder / "trajectory.h5", "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
        file.attrs.update({**facts, "robot_serial_number": "panda-295341-1325480", **(attributes or {})})
    if metadata:
        record = {
            **facts,
            "uuid": "AUTOLab+0d4edc83+2023-07-07-09h-42m-23s",
            "lab": "AUTOLab",
            "trajectory_length": LENGTH,
            **{f"{name}_cam_serial": serial for name, serial in SERIALS.items()},
            "wrist_cam_extrinsics": [0.0] * 6,
        }
        (folder / f"metadata_{record['uuid']}.json").write_text(json.dumps(record))
    for name, pictures in shown.items():
        write_video(folder / "recordings" / "MP4" / f"{SERIALS[name]}.mp4", pictures, 60, "mpeg4")
        write_video(folder / "recordings" / "MP4" / f"{SERIALS[name]}-stereo.mp4", pictures, 60, "mpeg4")
    return folder

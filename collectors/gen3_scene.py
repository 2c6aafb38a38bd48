"""The simulated workplace as MuJoCo XML: a Gen3 with a two-finger gripper, a table, two cubes.

The arm has the true kinematics, limits, torques and masses of :mod:`pipeline.gen3_kinematics` and
a shape of capsules and cylinders; nothing of it is a mesh, so that two cameras draw in a millisecond
on one core. World frame = the robot's base frame; the table's top is at z = 0. Units m, kg, rad, N.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.gen3_kinematics import GRIPPER_BASE_POSITION, LINKS, TOOL_OFFSET

CUBE_COLORS = ("red", "blue")
CUBE_SIZE = 0.05  # edge, m
FINGER_STROKE = 0.0425  # travel of each finger; the opening is twice that, 85 mm
LINK_GROUP = 3  # the geometry group of the arm's seven links
# These cameras look away from the links: not drawing them changes no pixel and halves the time.
CAMERAS_WITHOUT_LINKS = ("wrist",)
TABLE_CAMERA_TARGET = (0.47, 0.0, 0.07)

_RGBA = {"red": "0.86 0.10 0.08 1", "blue": "0.08 0.24 0.86 1"}
_STIFFNESS = (2000, 2000, 2000, 2000, 800, 800, 800)
_DAMPING = (160, 160, 120, 120, 40, 40, 30)
# A position servo with velocity damping trails a moving target by this time constant, s.
SERVO_LAG_S = np.array(_DAMPING) / np.array(_STIFFNESS)
# Radius of each link's tube; about those of the real arm.
_RADII = (0.046, 0.046, 0.046, 0.043, 0.036, 0.036, 0.036)


def _text(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{v:.6g}" for v in values)


def _look_at(position: Sequence[float], target: Sequence[float], up: Sequence[float]) -> str:
    """A camera's pose attributes: at ``position``, towards ``target``, image top near ``up``."""
    back = np.subtract(position, target)
    back /= np.linalg.norm(back)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    return f'pos="{_text(position)}" xyaxes="{_text(right)} {_text(np.cross(back, right))}"'


def _tube_inertia(mass: float, radius: float, end: np.ndarray) -> str:
    """The inertial element of a solid cylinder of ``radius`` from the link's origin to ``end``."""
    length = float(np.linalg.norm(end))
    across = mass * (3 * radius**2 + length**2) / 12
    inertia = np.full(3, across)
    inertia[int(np.argmax(np.abs(end)))] = mass * radius**2 / 2
    return f'<inertial pos="{_text(end / 2)}" mass="{mass}" diaginertia="{_text(inertia)}"/>'


def _arm(inner: str) -> str:
    """The seven nested link bodies, with ``inner`` in the last one."""
    ends = [np.array(link.position) for link in LINKS[1:]] + [np.array(GRIPPER_BASE_POSITION)]
    xml = inner
    for i in reversed(range(7)):
        link, end, radius = LINKS[i], ends[i], _RADII[i]
        limit = f'range="{-link.limit} {link.limit}"' if np.isfinite(link.limit) else 'limited="false"'
        axis = end / np.linalg.norm(end)
        band = _text([*(-0.004 * axis), *(0.012 * axis)])
        xml = f"""
        <body name="{link.name}" pos="{_text(link.position)}" quat="{_text(link.quaternion)}" gravcomp="1">
          {_tube_inertia(link.mass, radius, end)}
          <joint name="joint_{i + 1}" class="arm" {limit}/>
          <geom class="shell" group="{LINK_GROUP}" type="capsule" size="{radius}"
                fromto="0 0 0 {_text(end)}"/>
          <geom class="band" group="{LINK_GROUP}" type="cylinder" size="{radius + 0.003}" fromto="{band}"/>
          {xml}
        </body>"""
    return xml


def _finger(name: str, side: int) -> str:
    """One finger: it slides along the gripper's x and its pad touches the middle at full travel."""
    pad_centre = TOOL_OFFSET - 0.0045
    return f"""
      <body name="{name}_finger" pos="{side * FINGER_STROKE} 0 0" gravcomp="1">
        <inertial pos="{side * 0.012} 0 0.11" mass="0.06" diaginertia="6e-5 6e-5 2e-5"/>
        <joint name="{name}_finger" class="finger" axis="{-side} 0 0"/>
        <geom class="dark" type="box" size="0.008 0.010 0.022" pos="{side * 0.017} 0 0.100"/>
        <geom class="pad" name="{name}_pad" type="box" size="0.005 0.011 0.0185"
              pos="{side * 0.005} 0 {pad_centre}"/>
      </body>"""


def _gripper() -> str:
    camera = (0.0, 0.080, 0.045)
    return f"""
    <body name="gripper" pos="{_text(GRIPPER_BASE_POSITION)}" quat="0 1 0 0" gravcomp="1">
      <inertial pos="0 0 0.045" mass="0.78" diaginertia="1.2e-3 1.2e-3 6e-4"/>
      <geom class="dark" type="cylinder" size="0.037" fromto="0 0 0 0 0 0.03"/>
      <geom class="dark" name="palm" type="box" size="0.05 0.022 0.028" pos="0 0 0.056"
            contype="1" conaffinity="1"/>
      <geom class="dark" type="box" size="0.024 0.030 0.010" pos="0 0.062 0.030"/>
      <camera name="wrist" fovy="72" {_look_at(camera, (0.0, 0.022, 0.2), (0, 1, 0))}/>
      <site name="tool" pos="0 0 {TOOL_OFFSET}" size="0.002" rgba="0 0 0 0"/>
      {_finger("left", 1)}
      {_finger("right", -1)}
    </body>"""


def _cube(color: str) -> str:
    half = CUBE_SIZE / 2
    return f"""
    <body name="{color}_cube" pos="0.5 {0.1 if color == "red" else -0.1} {half}">
      <freejoint name="{color}_cube"/>
      <geom name="{color}_cube" type="box" size="{half} {half} {half}" mass="0.08"
            rgba="{_RGBA[color]}" friction="1.0 0.01 0.0005" condim="4" contype="1" conaffinity="1"/>
    </body>"""


def _actuators() -> str:
    lines = [
        f'<position name="joint_{i + 1}" joint="joint_{i + 1}" kp="{_STIFFNESS[i]}" kv="{_DAMPING[i]}" '
        f'forcerange="{-link.peak_torque} {link.peak_torque}"/>'
        for i, link in enumerate(LINKS)
    ]
    lines += [
        f'<position name="{side}_finger" joint="{side}_finger" kp="1500" kv="30" forcerange="-25 25"/>'
        for side in ("left", "right")
    ]
    return "\n".join(lines)


def scene_xml(timestep_s: float) -> str:
    """The whole scene as MJCF for a physics step of ``timestep_s`` seconds (about 0.004)."""
    return f"""
<mujoco model="gen3_workplace">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{timestep_s!r}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <size memory="4M"/>
  <visual>
    <global offwidth="960" offheight="720"/>
    <quality offsamples="0" shadowsize="0" numslices="12" numstacks="6" numquads="1"/>
    <headlight ambient="0.42 0.42 0.42" diffuse="0.30 0.30 0.30" specular="0 0 0"/>
    <map znear="0.02" zfar="20"/>
  </visual>
  <default>
    <geom contype="0" conaffinity="0" group="2"/>
    <default class="arm"><joint axis="0 0 1" armature="0.1" damping="1"/></default>
    <default class="finger">
      <joint type="slide" range="0 {FINGER_STROKE}" armature="0.02" damping="2"/>
    </default>
    <default class="shell"><geom rgba="0.93 0.94 0.95 1"/></default>
    <default class="band"><geom rgba="0.33 0.36 0.40 1"/></default>
    <default class="dark"><geom rgba="0.16 0.17 0.19 1"/></default>
    <default class="pad">
      <geom rgba="0.30 0.31 0.33 1" contype="1" conaffinity="1" friction="1.5 0.02 0.001" condim="4"/>
    </default>
  </default>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="0.80 0.86 0.92" rgb2="0.52 0.55 0.58"
             width="32" height="192"/>
  </asset>
  <worldbody>
    <light directional="true" castshadow="false" pos="0 0 3" dir="-0.35 0.30 -1" diffuse="0.5 0.5 0.48"
           specular="0.05 0.05 0.05"/>
    <camera name="table" fovy="41" {_look_at((1.03, 0.0, 0.62), TABLE_CAMERA_TARGET, (0, 0, 1))}/>
    <camera name="overview" fovy="40" {_look_at((1.25, -0.95, 0.85), (0.30, 0.0, 0.22), (0, 0, 1))}/>
    <geom name="table" type="box" size="0.50 0.62 0.03" pos="0.32 0 -0.03" rgba="0.80 0.74 0.65 1"
          contype="1" conaffinity="1" friction="0.9 0.01 0.0005" condim="4"/>
    <geom type="box" size="0.19 0.29 0.0006" pos="0.475 0 0.0002" rgba="0.62 0.66 0.66 1"/>
    <geom type="plane" size="6 6 1" pos="0 0 -0.75" rgba="0.52 0.55 0.58 1"/>
    <geom class="dark" type="cylinder" size="0.09 0.008" pos="0 0 0.008"/>
    <geom class="shell" type="cylinder" size="0.046" fromto="0 0 0.01 0 0 0.15"/>
    {_arm(_gripper())}
    {"".join(_cube(color) for color in CUBE_COLORS)}
  </worldbody>
  <equality>
    <joint joint1="left_finger" joint2="right_finger" solref="0.008 1"/>
  </equality>
  <actuator>
    {_actuators()}
  </actuator>
</mujoco>"""

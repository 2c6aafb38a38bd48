"""The people of the loop: those who hold a device, and the scripted ones for the simulated arm."""

from collectors.scripted_operators import ScriptedOperator, Skill, SkilledSkill, SloppySkill
from collectors.scripted_supervisor import ScriptedAnnotator, ScriptedSupervisor, SupervisorConfig, Trouble
from collectors.teleoperators import Gen3Gamepad, Gen3Keyboard, Gen3Phone, Gen3SpaceMouse

__all__ = [
    "Gen3Gamepad",
    "Gen3Keyboard",
    "Gen3Phone",
    "Gen3SpaceMouse",
    "ScriptedAnnotator",
    "ScriptedOperator",
    "ScriptedSupervisor",
    "Skill",
    "SkilledSkill",
    "SloppySkill",
    "SupervisorConfig",
    "Trouble",
]

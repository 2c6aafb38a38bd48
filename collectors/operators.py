"""The people of the loop. Scripted ones, for the simulated arm: operators, supervisor, annotator."""

from collectors.scripted_operators import ScriptedOperator, Skill, SkilledSkill, SloppySkill
from collectors.scripted_supervisor import ScriptedAnnotator, ScriptedSupervisor, SupervisorConfig, Trouble

__all__ = [
    "ScriptedAnnotator",
    "ScriptedOperator",
    "ScriptedSupervisor",
    "Skill",
    "SkilledSkill",
    "SloppySkill",
    "SupervisorConfig",
    "Trouble",
]

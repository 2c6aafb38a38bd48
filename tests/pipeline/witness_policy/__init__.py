"""A LeRobot policy plugin for tests: ACT that writes down the tasks it is trained on."""

from tests.pipeline.witness_policy.configuration_witness import WitnessConfig

__all__ = ["WitnessConfig"]

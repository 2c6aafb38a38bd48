"""Policies: the VLA of this project and the door to every other LeRobot policy.

Importing this package registers the policy type ``gen3_vla`` and its processor steps with LeRobot
(``lerobot-train --policy.discover_packages_path=pipeline.policy`` does so too).
"""

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.processor_gen3_vla import make_gen3_vla_pre_post_processors

__all__ = ["Gen3VLAConfig", "make_gen3_vla_pre_post_processors"]

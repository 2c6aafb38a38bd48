"""The simulated arm as an environment of ``lerobot-eval``, so that LeRobot's command judges a checkpoint::

    lerobot-eval --env.discover_packages_path=collectors.lerobot_env --env.type=simulated_gen3 \\
        --policy.path=CHECKPOINT --eval.n_episodes=20 --eval.batch_size=1 --policy.device=cpu

Importing it registers the environment, and ``gen3_vla`` with it.
"""

import pipeline.policy  # noqa: F401 - registers gen3_vla, so that its checkpoints load here
from collectors.lerobot_env.configuration import SimulatedGen3Env

__all__ = ["SimulatedGen3Env"]

"""People and robots to episodes: the simulated Gen3, its scripted people, and the collection loop.

LeRobot looks for a device's class beside its configuration's module, here: so this package knows where
each of its devices is, and imports it when it is asked for.
"""

import importlib
from typing import Any

_DEVICES = {
    "SimulatedGen3": "collectors.simulated_gen3",
    "KinovaGen3": "collectors.kinova_gen3",
}


def __getattr__(name: str) -> Any:
    if name not in _DEVICES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_DEVICES[name]), name)

"""ACT that writes down the tasks of each batch that it is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lerobot.policies.act.modeling_act import ACTPolicy

from tests.pipeline.witness_policy.configuration_witness import WitnessConfig


class WitnessPolicy(ACTPolicy):
    """Learns nothing from the tasks; it shows that a policy gets them."""

    config_class = WitnessConfig
    name = "witness"

    def forward(self, batch: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """ACT's loss."""
        with Path(self.config.notes).open("a") as notes:
            notes.write(json.dumps(batch["task"]) + "\n")
        return super().forward(batch, *arguments, **named)

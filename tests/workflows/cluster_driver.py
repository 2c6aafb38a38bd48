"""A driver on a cluster, for tests that kill it and what it works with. Prints one JSON object."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from tests.workflows import sample_steps
from workflows import cluster
from workflows.step_recipe import ExternalInput, Step
from workflows.steps import StepRunner


def main() -> None:
    """Arguments: what to do, the cluster's address, the workspace, and a number."""
    what, address, folder, number = sys.argv[1:5]
    workspace = Workspace(Path(folder)).create()
    # So that a test need not wait for it.
    cluster.HEAD_GONE_S = 2.0
    try:
        said = (
            score(workspace, address) if what == "score" else compute(what, workspace, address, float(number))
        )
    except (InputError, Failure) as error:
        said = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(said), flush=True)


def compute(what: str, workspace: Workspace, address: str, number: float) -> dict[str, Any]:
    """Computes the steps called ``what``; the nodes that they ran on, in their order."""
    from tests.workflows import cluster_steps

    place = workspace.root / "marks"
    place.mkdir(exist_ok=True)
    steps = {
        "pair": lambda: cluster_steps.pair(place),
        "die": lambda: [Step("die", sample_steps.die_once, inputs={"mark": ExternalInput(place / "x", "x")})],
        "beats": lambda: cluster_steps.beats(place, 3, number),
        "gpu": lambda: [Step("environment", sample_steps.tell_environment, num_gpus=1)],
        "environment": lambda: [Step("environment", sample_steps.tell_environment, num_cpus=64)],
    }[what]()
    with StepRunner(workspace, cluster=address) as runner:
        results = runner.run_all(steps)
        return {"results": [found.result for found in results], "computed": len(runner.computed)}


def score(workspace: Workspace, address: str) -> dict[str, Any]:
    """Scores every episode on two nodes and on none; whether the values are equal to the last bit."""
    import shutil

    from tests.workflows.test_scoring_pool import same, values_of
    from value_model import scoring
    from workflows.scoring_pool import score_workspace
    from workflows.value_ensemble import load_ensemble

    scoring.ITEM_FRAMES = 60
    ids = [entry.id for entry in workspace.list_episodes()]
    ensemble = load_ensemble(workspace)
    alone = score_workspace(workspace, ensemble, ids, workers=1)
    by_one = values_of(workspace, alone.run, ids)
    shutil.rmtree(workspace.cache / "scores" / alone.run)
    together = score_workspace(workspace, ensemble, ids, workers=2, cluster=address)
    by_two = values_of(workspace, together.run, ids)
    return {"workers": together.workers, "scored": together.scored, "same": same(by_one, by_two)}


if __name__ == "__main__":
    main()

"""Recording sessions from the command line: scripted people at the simulated arm, in this process."""

from __future__ import annotations

from pathlib import Path

from collectors.gen3_tasks import split_task
from collectors.simulated_sessions import SessionConfig, run_session
from pipeline.episode import Outcome
from pipeline.errors import InputError
from pipeline.workspace import Workspace, task_slug
from workflows.ledger import Ledger
from workflows.loop_graph import COMMAND_SCENES
from workflows.progress import progress_display, reporter
from workflows.step_files import CHECKPOINT


def record_demonstrations(root: Path, task: str, person: str, episodes: int, seed: int) -> None:
    """Records a session of demonstrations into the workspace at ``root``, which is made if need be.

    Raises ``InputError`` for a task that the simulation does not have, before anything is made.
    """
    split_task(task)
    workspace = Workspace(root).create()
    name = f"{person}-{task_slug(task)}-s{seed}"
    _run(
        workspace,
        SessionConfig(name, person, episodes, (task,), seed, COMMAND_SCENES["record"] + 1_000 * seed),
    )


def record_rollouts(workspace: Workspace, task: str, episodes: int, supervised: bool, seed: int) -> None:
    """Rolls out the champion. Raises ``InputError`` where there is none yet."""
    split_task(task)
    champion = Ledger(workspace).champion()
    if champion is None:
        raise InputError("there is no champion to roll out: train one with 'recap improve' or 'recap demo'")
    person = "supervisor" if supervised else "observer"
    config = SessionConfig(
        f"rollout-{champion.key[:8]}-{task_slug(task)}-{person}-s{seed}",
        person,
        episodes,
        (task,),
        seed,
        COMMAND_SCENES["rollout"] + 1_000 * seed,
        indicator="positive" if champion.iteration > 0 else None,
    )
    _run(workspace, config, champion.path / CHECKPOINT, f"{champion.name}/{champion.key}")


def _run(
    workspace: Workspace, config: SessionConfig, checkpoint: Path | None = None, name: str | None = None
) -> None:
    with progress_display() as display:
        display.start("session", config.name)
        ids = run_session(workspace, config, checkpoint, name, progress=reporter(display, "session"))
        display.finish("session")
    marks = [workspace.find(episode_id).info.operator_mark for episode_id in ids]
    print(
        f"{len(ids)} episodes in {workspace.episodes}; the operator marked {marks.count(Outcome.SUCCESS)} "
        f"a success\nnext: recap label --workspace {workspace.root}"
    )

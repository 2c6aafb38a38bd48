"""Recording sessions from the command line: scripted people at the simulated arm, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from collectors.gen3_tasks import split_task
from collectors.simulated_sessions import SessionConfig, run_session
from collectors.site_devices import make_robot
from pipeline.episode import CAMERAS, Outcome
from pipeline.errors import InputError
from pipeline.site_config import SiteConfig, load_site_config
from pipeline.workspace import Workspace, task_slug
from workflows.ledger import Ledger
from workflows.loop_graph import COMMAND_SCENES
from workflows.progress import progress_display, reporter
from workflows.recording_settings import RecordingSettings, recording_with
from workflows.step_files import CHECKPOINT


def record_demonstrations(
    root: Path, task: str, person: str, episodes: int, seed: int, rate_hz: float | None = None
) -> None:
    """Records a session of demonstrations into the workspace at ``root``, which is made if need be.

    The arm is that of ``recap.toml``; ``rate_hz``: ``None`` for the file's. Raises ``InputError`` for a task
    or an option that the simulation does not have, before anything is made.
    """
    split_task(task)
    workspace = Workspace(root)
    arm = _arm(load_site_config(workspace.config_path), rate_hz)
    workspace.create()
    name = f"{person}-{task_slug(task)}-s{seed}"
    _run(
        workspace,
        SessionConfig(name, person, episodes, (task,), seed, COMMAND_SCENES["record"] + 1_000 * seed, **arm),
    )


def record_rollouts(
    workspace: Workspace,
    task: str,
    episodes: int,
    supervised: bool,
    seed: int,
    rate_hz: float | None = None,
) -> None:
    """Rolls out the champion on the arm of ``recap.toml``. Raises ``InputError`` where there is none yet."""
    split_task(task)
    arm = _arm(load_site_config(workspace.config_path), rate_hz)
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
        **arm,
    )
    _run(workspace, config, champion.path / CHECKPOINT, f"{champion.name}/{champion.key}")


def _arm(site: SiteConfig, rate_hz: float | None) -> dict[str, Any]:
    """How often the simulated arm of ``site`` is driven, for how many steps, and how large its images are.

    Raises ``InputError`` for what it does not take, and for options that scripted people cannot honour.
    """
    wanted = recording_with(RecordingSettings(), site.defaults)
    rate = float(site.defaults.rate_hz if rate_hz is None else rate_hz)
    options = {"image_size": wanted.rendered_size, **site.robot.options, "rate_hz": rate}
    config: Any = make_robot(replace(site, robot=replace(site.robot, options=options))).config
    if tuple(config.cameras) != CAMERAS:
        both = " and ".join(CAMERAS)
        with site.named_in_errors():
            raise InputError(f"robot.options.cameras: scripted people record {both}: leave it out")
    seconds = RecordingSettings().max_steps / RecordingSettings().rate_hz
    return {"rate_hz": rate, "image_size": config.image_size, "max_steps": round(seconds * rate)}


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

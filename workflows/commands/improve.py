"""``recap improve``: one turn of the loop from what the workspace holds."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.errors import InputError
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    PolicyStepsOption,
    RayAddressOption,
    SeedOption,
    StartsOption,
    ValueStepsOption,
    WorkspaceOption,
    existing_workspace,
)


def improve(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    quick: Annotated[bool, typer.Option("--quick", help="Few gradient steps, to see that it works.")] = False,
    seed: SeedOption = 0,
    policy_steps: PolicyStepsOption = None,
    value_steps: ValueStepsOption = None,
    starts: StartsOption = None,
    accept_values: Annotated[
        bool,
        typer.Option(
            "--accept-values", help="Go on with values that do not pass the gate; the report says so."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which steps are done, and which would run and why.")
    ] = False,
    ray_address: RayAddressOption = None,
) -> None:
    """One turn of the loop: learn values, judge them, condition, fine-tune, evaluate, promote, report.

    Reads every labelled episode in episodes/, labels.sqlite, and [value], [gate], [policy] and [promotion] of
    recap.toml; writes snapshots/, cache/, steps/, datasets/, reports/, value-model.json and runs.sqlite.
    Fine-tunes start from the base policy, which is trained on the demonstrations first if there is none.
    Candidates are evaluated in simulation, in rounds, until it is decided whether one is better. Values that
    cannot be trusted end the turn with exit status 1 before anything is fine-tuned on them: what was found is
    printed and drawn in reports/values-<iteration>.html. A --quick turn is too small
    to judge: it shows the findings and goes on.

    With --ray-address the steps run on the machines of a Ray cluster, each of which needs this software and
    the workspace at the same path; 'ray job submit' gives the address by itself.

    With --dry-run nothing is computed, and nothing written but the index of episodes in cache/.
    """
    from pipeline.site_config import load_site_config
    from workflows.cluster_address import cluster_address
    from workflows.dry_run import dry_run as told
    from workflows.improvement import Loop, base_of
    from workflows.improvement import improve as turn
    from workflows.ledger import Ledger
    from workflows.settings import FULL, QUICK, resized, settings_from_site
    from workflows.steps import StepRunner
    from workflows.summary import gate_lines, turn_summary
    from workflows.turn_labels import waiting_for_labels
    from workflows.value_gate import GateClosed

    cluster = cluster_address(ray_address)
    found = existing_workspace(workspace)
    entries = found.list_episodes()
    if not entries:
        raise InputError(f"there are no episodes in {found.episodes}: record some with 'recap record'")
    tasks = tuple(dict.fromkeys(entry.info.task for entry in entries))
    settings = resized(
        settings_from_site(QUICK if quick else FULL, load_site_config(found.config_path)),
        seed=seed,
        tasks=tasks,
        policy_steps=policy_steps,
        value_steps=value_steps,
        starts=starts,
    )
    if waiting := waiting_for_labels(found, [entry.id for entry in entries]):
        print(waiting)
    if dry_run:
        for line in told(found, settings, entries, accept_values=accept_values):
            print(line)
        return
    with StepRunner(found, cluster=cluster) as runner:
        loop = Loop(found, settings, runner, Ledger(found), accept_values)
        base = base_of(loop, [e.id for e in entries if e.info.policy_checkpoint is None])
        try:
            result = turn(loop, [entry.id for entry in entries], base)
        except GateClosed as closed:
            for line in gate_lines(closed):
                print(line)
            raise
    for line in turn_summary(result, workspace):
        print(line)

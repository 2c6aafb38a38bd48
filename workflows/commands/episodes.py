"""``recap episodes``: looks at what has been recorded; changes nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.episode import Source
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import Failure
from pipeline.labels import Label, LabelStore
from pipeline.workspace import Workspace
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    command_group,
    existing_workspace,
    table,
)

app = command_group("List, show and check what has been recorded. Reads episodes/ and labels.sqlite.")


class Listed(StrEnum):
    """Which episodes to list."""

    SUCCESS = "success"
    FAILURE = "failure"
    EXCLUDE = "exclude"
    UNLABELLED = "unlabelled"


@app.command("list")
def list_episodes(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    task: Annotated[str | None, typer.Option(help="Only the episodes of this task.")] = None,
    outcome: Annotated[
        Listed | None, typer.Option(help="Only those with this outcome.", case_sensitive=False)
    ] = None,
) -> None:
    """One line per episode, oldest first. Reads episodes/ and labels.sqlite, writes nothing."""
    found = existing_workspace(workspace)
    labels = current_labels(found)
    rows = []
    for entry in found.list_episodes(task):
        label = outcome_of(entry, labels)
        if outcome in (None, label):
            info = entry.info
            seconds = round(entry.length / info.rate_hz, 1)
            rows.append([entry.id, info.task, driver(entry), label, entry.length, seconds, info.operator])
    if rows:
        print(table(["episode", "task", "driver", "outcome", "frames", "seconds", "operator"], rows))
    print(f"{len(rows)} episode{'' if len(rows) == 1 else 's'}")


@app.command()
def show(
    episode: Annotated[str, typer.Argument(help="The episode's id.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """All that is known of one episode. Reads its file and labels.sqlite, writes nothing."""
    found = existing_workspace(workspace)
    entry = found.find(episode)
    info = entry.info
    with EpisodeReader(entry.path) as reader:
        sources = reader.sources
        dropped = reader.dropped
    counts = [f"{int((sources == source).sum())} {source.name.lower()}" for source in Source]
    facts = {
        "file": entry.path,
        "task": info.task,
        "recorded": f"{info.created} by {info.operator} on {info.robot}",
        "frames": f"{entry.length} at {info.rate_hz:g} Hz ({', '.join(counts)}; {dropped} dropped)",
        "cameras": ", ".join(info.cameras),
        "policy": info.policy_checkpoint or "none",
        "operator's mark": info.operator_mark or "none",
        "truncated": "yes" if info.truncated else "no",
        "software": info.software_version,
        "fingerprint": entry.fingerprint,
        **{f"extra {name}": value for name, value in info.extra.items()},
    }
    for name, value in facts.items():
        print(f"{name + ':':18}{value}")
    if found.labels_path.exists():
        with LabelStore(found.labels_path) as store:
            for event in store.history(episode):
                said = event.outcome or "unlabelled"
                print(f"{'label:':18}{said} by {event.annotator} at {event.created_at} {event.note}".rstrip())


@app.command()
def check(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Reads every frame and reports what is wrong; exit status 1 if an episode must not be used."""
    findings = existing_workspace(workspace).check()
    for finding in findings:
        print(f"{finding.severity}: {finding.episode_id or finding.path}: {finding.message}")
    fatal = sum(finding.severity == "fatal" for finding in findings)
    print(f"{fatal} fatal, {len(findings) - fatal} warnings")
    if fatal:
        raise Failure(f"{fatal} episode files must not be trained on: move them out of episodes/")


def current_labels(workspace: Workspace) -> dict[str, Label]:
    """The labels that hold; none where nobody has labelled yet."""
    if not workspace.labels_path.exists():
        return {}
    with LabelStore(workspace.labels_path) as store:
        return store.current()


def outcome_of(entry: EpisodeEntry, labels: dict[str, Label]) -> str:
    """An episode's outcome as text, ``unlabelled`` where nobody has labelled it."""
    return labels[entry.id].outcome if entry.id in labels else "unlabelled"


def driver(entry: EpisodeEntry) -> str:
    """Who drove: a person from start to end, or a policy (perhaps corrected by a person)."""
    return "person" if entry.info.policy_checkpoint is None else "policy"

"""The scripted annotator labels simulated episodes through the label store that people use."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import Failure
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace

ANNOTATOR = "scripted annotator"


def label_from_notes(workspace: Workspace, episode_ids: Sequence[str], tasks: dict[str, str]) -> int:
    """Labels those of the episodes that nobody has labelled yet; returns how many that were.

    ``tasks`` maps each episode to its task. An episode that a person holds open in the app is left to
    that person. Raises ``Failure`` for an episode that the annotator did not watch.
    """
    from collectors.simulated_sessions import AnnotatorNotes

    with LabelStore(workspace.labels_path) as store:
        store.sync((episode_id, tasks[episode_id]) for episode_id in episode_ids)
        labelled = store.current()
        waiting = [episode_id for episode_id in episode_ids if episode_id not in labelled]
        if not waiting:
            return 0
        notes = AnnotatorNotes(workspace).read()
        done = 0
        for episode_id in waiting:
            if episode_id not in notes:
                raise Failure(
                    f"the scripted annotator has no note on episode {episode_id}: label it with 'recap label'"
                )
            lease = store.claim_episode(episode_id, ANNOTATOR)
            if lease is not None:
                store.record(lease, "success" if notes[episode_id] else "failure")
                done += 1
        return done

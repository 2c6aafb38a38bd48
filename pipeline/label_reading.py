"""What can be asked of the label store; nothing here changes it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime

from pipeline.label_agreement import Agreement, Rated, measure
from pipeline.label_file import LabelFile, unknown
from pipeline.label_queue import LEFT, answers_to_come
from pipeline.label_rows import event_of, label_of
from pipeline.label_state import answers, as_opinion, resolve
from pipeline.label_types import ROLES, Dispute, Label, LabelEvent, Left, Mark, Opinion, Progress, QueueFilter

_HOUR_S = 3600.0


class LabelReading(LabelFile):
    """The questions. Each answer is of one moment."""

    def current(self) -> dict[str, Label]:
        """The label that holds for each episode that has one; unlabelled and disputed ones are absent."""
        rows = self._read("SELECT * FROM held_labels ORDER BY episode_id")
        return {row["episode_id"]: label_of(row) for row in rows}

    def history(self, episode_id: str) -> list[LabelEvent]:
        """Everything that was ever said of an episode, oldest first. Not for an annotator's eyes."""
        rows = self._read(
            "SELECT * FROM label_events WHERE episode_id = :id ORDER BY event_id", {"id": episode_id}
        )
        return [event_of(row) for row in rows]

    def events(self) -> list[LabelEvent]:
        """Everything that was ever said, oldest first."""
        return [event_of(row) for row in self._read("SELECT * FROM label_events ORDER BY event_id")]

    def labels_of(self, annotator: str, newest: int, *, roles: Collection[str] = ROLES) -> list[LabelEvent]:
        """What this annotator said last (of ``roles``) and did not take back, newest first, up to ``newest``.

        All that a page may show an annotator of the past: it tells nothing of others' answers, nor whether
        an episode was gold or labelled twice, as long as the role is not shown.
        """
        rows = self._read(
            "SELECT * FROM standing_labels WHERE annotator = :annotator"
            " AND role IN (SELECT value FROM json_each(:roles)) ORDER BY event_id DESC LIMIT :newest",
            {"annotator": annotator, "newest": newest, "roles": json.dumps(list(roles))},
        )
        return [event_of(row) for row in rows]

    def marks(self, episode_id: str) -> list[Mark]:
        """The marks of the label that holds, by frame; none where none holds."""
        rows = self._read("SELECT * FROM held_labels WHERE episode_id = :id", {"id": episode_id})
        return [mark for row in rows for mark in label_of(row).marks]

    def opinions(self, episode_id: str) -> list[Opinion]:
        """What independent annotators say of the episode, one opinion each, also after an adjudication."""
        return [as_opinion(event) for event in resolve(self.history(episode_id)).opinions]

    def all_opinions(self) -> dict[str, list[Opinion]]:
        """:meth:`opinions` of every episode that has several; the others are absent."""
        found = {}
        for episode_id, events in self._histories("role = 'second'").items():
            opinions = [as_opinion(event) for event in resolve(events).opinions]
            if len(opinions) > 1:
                found[episode_id] = opinions
        return found

    def tasks(self) -> dict[str, str]:
        """The task of every episode that the store knows, oldest first."""
        return {
            row["id"]: row["task"] for row in self._read("SELECT id, task FROM episodes ORDER BY position")
        }

    def states(self) -> dict[str, str]:
        """:meth:`state` of every episode, oldest first."""
        rows = self._read("SELECT id, state FROM episodes ORDER BY position")
        return {row["id"]: row["state"] for row in rows}

    def state(self, episode_id: str) -> str:
        """``unlabelled``, ``single``, ``agreed``, ``disputed``, ``adjudicated`` or ``gold``.

        Raises ``InputError`` if the store does not know the episode.
        """
        rows = self._read("SELECT state FROM episodes WHERE id = :id", {"id": episode_id})
        if not rows:
            raise unknown(episode_id)
        return str(rows[0]["state"])

    def disputed(self, task: str | None = None) -> list[Dispute]:
        """Episodes (of ``task``) on which annotators differ and no reviewer has spoken, oldest first."""
        rows = self._read(
            "SELECT id, task FROM episodes WHERE state = 'disputed' AND (:task IS NULL OR task = :task)"
            " ORDER BY position",
            {"task": task},
        )
        return [Dispute(row["id"], row["task"], tuple(self.opinions(row["id"]))) for row in rows]

    def gold(self) -> dict[str, str]:
        """The certain outcome of each gold episode."""
        rows = self._read("SELECT id, outcome FROM episodes WHERE state = 'gold' ORDER BY id")
        return {row["id"]: row["outcome"] for row in rows}

    def agreement(self) -> Agreement:
        """How far annotators agree with each other and with gold; see :mod:`pipeline.label_agreement`."""
        with self.moment():
            tasks, several, gold = self.tasks(), self.all_opinions(), self.gold()
            histories = self._histories("role = 'gold'")
        rated = [
            Rated(tasks[episode_id], {opinion.annotator: opinion.outcome for opinion in opinions})
            for episode_id, opinions in several.items()
        ]
        asked = [
            Rated(
                tasks[episode_id],
                {name: event.outcome for name, event in answers(events).items() if event.outcome is not None},
                gold[episode_id],
            )
            for episode_id, events in histories.items()
            if episode_id in gold
        ]
        return measure(rated, asked)

    def progress(self, task: str | None = None) -> Progress:
        """How far the labelling is, over all episodes or those of one task."""
        now = self._clock()
        (row,) = self._read(
            """
            SELECT COUNT(*), COALESCE(SUM(outcome IS 'success'), 0), COALESCE(SUM(outcome IS 'failure'), 0),
                COALESCE(SUM(outcome IS 'exclude'), 0), COALESCE(SUM(state = 'unlabelled'), 0),
                COALESCE(SUM(leased_by IS NOT NULL AND lease_expires > :now), 0),
                COALESCE(SUM(state = 'disputed'), 0),
                COALESCE(SUM(state = 'single' AND draw < :double_share), 0),
                (SELECT COUNT(*) FROM standing_labels AS e JOIN episodes AS o ON o.id = e.episode_id
                 WHERE e.created_at > :since AND (:task IS NULL OR o.task = :task))
            FROM episodes WHERE :task IS NULL OR task = :task
            """,
            {
                "now": now,
                "task": task,
                "double_share": self.rules.double_share,
                "since": timestamp(max(0.0, now - _HOUR_S)),
            },
        )
        return Progress(*row)

    def left(self, annotator: str, wanted: QueueFilter, skipped: Collection[str] = ()) -> Left:
        """How far this annotator is with the queue that they ``wanted``, ``skipped`` episodes aside.

        Every answer of theirs moves both numbers by one, of whatever kind the episode was.
        """
        with self.moment():
            values = {"annotator": annotator, "now": self._clock(), "skipped": json.dumps(list(skipped))}
            values |= {"task": wanted.task, "driver": wanted.driver, "helpful": wanted.order == "helpful"}
            values |= {"double_share": self.rules.double_share}
            ((given, said, ordinary, gold),) = self._read(LEFT, values)
        return Left(said, answers_to_come(annotator, given, ordinary, gold, self.rules.gold_share))

    def _histories(self, condition: str) -> dict[str, list[LabelEvent]]:
        """All events of the episodes of which at least one event meets ``condition`` (SQL, not a value)."""
        rows = self._read(
            "SELECT * FROM label_events WHERE episode_id IN"
            f" (SELECT episode_id FROM label_events WHERE {condition}) ORDER BY event_id"
        )
        found: dict[str, list[LabelEvent]] = defaultdict(list)
        for row in rows:
            found[row["episode_id"]].append(event_of(row))
        return found


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as events have it: ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

"""One look at the clock: notes what is due, runs what may run, and tells of what has ended.

Meant to be called every minute, by anything; to be killed at any moment; and to be called twice at once. All
that is decided is decided under a lock and noted before anything is done about it; the lock is free while a
run works, so that other ticks can refuse what comes due meanwhile. At most one run is begun and not ended in
a workspace; one whose process is gone is continued before anything else, until it was begun
:data:`MOST_ATTEMPTS` times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.errors import Failure, InputError
from pipeline.file_lock import locked
from pipeline.workspace import Workspace
from workflows.schedule import Kind, Missed, Run, Schedule
from workflows.schedule_child import INTERRUPTED, SUPERSEDED
from workflows.schedule_decisions import due_now, judge
from workflows.schedule_due import CLOCK_SLACK
from workflows.schedule_outside import Outside
from workflows.schedule_state import mark_tick
from workflows.schedule_store import NewRun, ScheduleStore
from workflows.schedule_summary import failure, refusal
from workflows.time_words import minute

MOST_ATTEMPTS = 5
LOGS = "schedules"
_LOCK = ".schedules.lock"


@dataclass
class TickReport:
    """What a tick did, in lines for people.

    ``failed`` names the schedules whose run failed in it, ``interrupted`` those whose run was stopped.
    """

    lines: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)


class Tick:
    """One tick in one workspace; use it once."""

    def __init__(self, workspace: Workspace, outside: Outside | None = None) -> None:
        """Touches nothing."""
        self._workspace = workspace
        self._outside = outside or Outside()
        self._store = ScheduleStore(workspace.root)
        self._tried: set[int] = set()
        self._report = TickReport()

    def do(self) -> TickReport:
        """Does everything that is due; returns when there is nothing left to begin."""
        if not self._store.path.exists():
            return self._report
        wait = False
        while True:
            mark_tick(self._workspace.root, self._outside.now())
            try:
                with locked(self._workspace.root / _LOCK, wait=wait):
                    self._tell_all()
                    self._note_due()
                    begun = self._begin_next()
                    if begun is None:
                        self._tell_all()
            except BlockingIOError:
                self._say("another tick is at work")
                return self._report
            if begun is None:
                return self._report
            self._attend(*begun)
            wait = True

    def run_now(self, name: str) -> TickReport:
        """Runs a schedule at once, whatever the time and the condition.

        Raises ``InputError`` where there is no such schedule, ``Failure`` where something is at work.
        """
        schedule = self._schedule(name)
        with locked(self._workspace.root / _LOCK):
            begun = next((run for run in self._store.open_runs() if run.attempts), None)
            if begun is not None:
                raise Failure(
                    f"the run of {begun.schedule} of {_minute(begun)} has not ended: "
                    "see 'recap schedule history'"
                )
            holder = self._outside.holder(self._workspace.root)
            if holder is not None:
                raise Failure(
                    f"{holder} is working in {self._workspace.root}: wait for it to end, or stop it"
                )
            now = self._outside.now()
            [run_id] = self._store.insert(name, [NewRun(now, by_hand=True)], now)
            claimed = self._claim(self._store.run(run_id), schedule, {}, 0, now)
        if claimed is not None:
            self._attend(*claimed)
            with locked(self._workspace.root / _LOCK):
                self._tell_all()
        return self._report

    def _schedule(self, name: str) -> Schedule:
        schedules = self._store.schedules()
        if name not in schedules:
            raise InputError(f"there is no schedule {name!r}: see 'recap schedule list'")
        return schedules[name]

    def _note_due(self) -> None:
        now = self._outside.now()
        for due in due_now(self._workspace, self._store, now):
            if not due.runs:
                continue
            name = due.schedule.name
            self._store.insert(name, due.runs, now)
            if due.ahead:
                self._say(f"{name}: {due.ahead}")
            for run in due.runs:
                if run.final is not None:
                    self._say(f"{name}: {run.final}, {run.reason}")

    def _begin_next(self) -> tuple[Run, int] | None:
        """Claims the next attempt of one run; ``None`` where nothing is to be begun now."""
        now = self._outside.now()
        waiting = self._store.open_runs()
        definitions = self._store.definitions()
        schedules = {name: found[-1].schedule for name, found in definitions.items()}
        for run in [run for run in waiting if run.attempts]:
            if run.id in self._tried or self._outside.is_at_work(run, self._workspace.root, now):
                return None
            if run.schedule not in schedules:
                self._end(run, Kind.DROPPED, {"reason": "its schedule was removed"})
            elif run.attempts >= MOST_ATTEMPTS:
                self._fail(run, f"its process was gone {run.attempts} times before it had ended", now)
            elif self._outside.holder(self._workspace.root) is not None:
                return None
            else:
                as_begun = Schedule.from_json(run.as_started["schedule"])
                return self._claim(run, as_begun, run.as_started["measured"], run.as_started["missed"], now)
        unbegun = []
        for run in [run for run in waiting if not run.attempts]:
            # A name may have been given to another schedule since.
            if run.schedule in schedules and definitions[run.schedule][0].at < run.logical_time:
                unbegun.append(run)
            else:
                self._end(run, Kind.DROPPED, {"reason": "its schedule was removed"})
        for run, missed in self._merged(unbegun, schedules):
            claimed = self._begin(run, schedules[run.schedule], missed, now)
            if claimed is not None:
                return claimed
        return None

    def _merged(self, runs: Iterable[Run], schedules: Mapping[str, Schedule]) -> list[tuple[Run, int]]:
        """The runs that are left, and how many times each makes up for."""
        left: dict[object, tuple[Run, int]] = {}
        for run in runs:
            single = schedules[run.schedule].missed == Missed.ALL or run.by_hand
            key: object = run.id if single else run.schedule
            missed = run.missed + self._store.made_up_for(run.id)
            if key in left:
                older, already = left.pop(key)
                document = {
                    "reason": f"the run of {_minute(run)} makes up for it",
                    "into": run.id,
                    "missed": already + 1,
                }
                self._end(older, Kind.MERGED, document)
                missed += already + 1
            left[key] = (run, missed)
        return list(left.values())

    def _begin(self, run: Run, schedule: Schedule, missed: int, now: datetime) -> tuple[Run, int] | None:
        holder = self._outside.holder(self._workspace.root)
        if holder is not None:
            self._wait(run, schedule, holder, now)
            return None
        if run.by_hand:
            return self._claim(run, schedule, {}, missed, now)
        verdict = judge(self._workspace, schedule, now, self._outside.measure)
        if verdict.error:
            self._fail(run, f"the condition cannot be computed: {verdict.error}", now, schedule)
            return None
        if not verdict.holds:
            reason = f"{verdict.said}; wanted: {schedule.when}"
            self._end(run, Kind.NOT_MET, {"reason": reason, "measured": verdict.facts})
            return None
        return self._claim(run, schedule, verdict.facts, missed, now)

    def _wait(self, run: Run, schedule: Schedule, holder: str, now: datetime) -> None:
        """Leaves a run for the next tick while another command works, until the schedule's patience ends."""
        waiting = run.last(Kind.WAITING)
        if waiting is not None and waiting.at > now + CLOCK_SLACK:
            waiting = None  # the clock was wrong then
        if waiting is None:
            self._store.note(run.id, Kind.WAITING, now, {"reason": f"{holder} works in the workspace"})
            waited = timedelta()
        else:
            waited = now - waiting.at
        if waited >= timedelta(minutes=schedule.grace_minutes):
            reason = f"{holder} has been working in the workspace for {schedule.grace_minutes:g} minutes"
            document = refusal(self._workspace, run, reason, now)
            self._end(run, Kind.REFUSED, document, tell=schedule.target.is_set)
        elif waiting is None:
            self._say(f"{run.schedule}: waits for {holder}")

    def _claim(
        self, run: Run, schedule: Schedule, facts: Mapping[str, Any], missed: int, now: datetime
    ) -> tuple[Run, int] | None:
        time = run.logical_time.astimezone(UTC)
        document = {
            "process": asdict(self._outside.me()),
            "schedule": schedule.to_json(),
            "log": f"{LOGS}/{run.schedule}-{time:%Y%m%dT%H%M%SZ}.log",
            "measured": dict(facts),
            "missed": missed,
        }
        if not self._store.claim(run, document, now):
            return None
        verb = "continues" if run.attempts else "begins"
        more = f", and for {missed} missed before it" if missed else ""
        self._say(f"{run.schedule}: {verb} the run of {_minute(run)}{more}")
        return self._store.run(run.id), run.attempts + 1

    def _attend(self, run: Run, attempt: int) -> None:
        """Waits for an attempt's process, and notes what it could not note itself."""
        self._tried.add(run.id)
        log = self._workspace.root / run.as_started["log"]
        try:
            status = self._outside.run(self._workspace.root, run, attempt, log)
        except OSError as error:  # no process to be had, or no log: the next tick tries again
            status = -1
            self._say(f"{run.schedule}: could not be begun: {error}")
        now = self._outside.now()
        if status < 0 or status in INTERRUPTED:
            document = {"attempt": attempt, "status": status}
            self._store.note(run.id, Kind.INTERRUPTED, now, document, attempt=attempt)
        elif status != SUPERSEDED and self._store.run(run.id).final is None:
            problem = f"its process ended with status {status} before it could say why"
            document = failure(self._workspace, run, problem, now, status)
            tell = Schedule.from_json(run.as_started["schedule"]).target.is_set
            self._store.note(run.id, Kind.ENDED, now, document, attempt=attempt, notify=tell)
        final = self._store.run(run.id).final
        if final is None:
            self._say(f"{run.schedule}: was interrupted; the next tick continues it")
            self._report.interrupted.append(run.schedule)
            return
        self._say(f"{run.schedule}: {final.document['outcome']}, {final.document['reason']}")
        if final.document["outcome"] == "failed":
            self._report.failed.append(f"{run.schedule} (see {log})")

    def _tell_all(self) -> None:
        for run in self._store.unnotified():
            final = run.final
            assert final is not None  # that is what the store looks for
            schedule = self._told_as(run)
            said = (
                dict(self._outside.tell_safely(schedule.target, final.document, self._store.path))
                if schedule is not None
                else {}
            )
            self._store.note(run.id, Kind.NOTIFIED, self._outside.now(), said)
            for whom, answer in said.items():
                if answer != "ok":
                    self._say(f"{run.schedule}: the notification by {whom} did not work: {answer}")

    def _told_as(self, run: Run) -> Schedule | None:
        if run.attempts:
            return Schedule.from_json(run.as_started["schedule"])
        return self._store.schedules().get(run.schedule)

    def _fail(self, run: Run, reason: str, now: datetime, schedule: Schedule | None = None) -> None:
        told = schedule or Schedule.from_json(run.as_started["schedule"])
        document = failure(self._workspace, run, reason, now)
        self._end(run, Kind.ENDED, document, tell=told.target.is_set)
        self._report.failed.append(run.schedule)

    def _end(self, run: Run, kind: Kind, document: Mapping[str, Any], *, tell: bool = False) -> None:
        full = {"outcome": str(kind), **document}
        if self._store.note(run.id, kind, self._outside.now(), full, notify=tell):
            self._say(f"{run.schedule}: {full['outcome']}, {full['reason']}")

    def _say(self, line: str) -> None:
        self._report.lines.append(line)


def _minute(run: Run) -> str:
    return minute(run.logical_time)

"""The whole store against a simple model: three annotators and a reviewer at two episodes, in any order."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.errors import InputError
from pipeline.label_rows import events_of
from pipeline.label_state import resolve
from pipeline.labels import LabelStore, Lease, StaleLease
from pipeline.site_config import LabelsSection

EPISODES = ("e0", "e1")
PEOPLE = ("ana", "bo", "cy")
REVIEWER = "rita"
OUTCOME = st.sampled_from(["success", "failure", "exclude"])
LEASE_S = 100.0


class Said:
    """One event of the model: who said what in which role, and whether it still stands."""

    def __init__(self, episode: str, who: str, outcome: str, role: str) -> None:
        self.episode = episode
        self.who = who
        self.outcome = outcome
        self.role = role
        self.stands = True


class LabelsMachine(RuleBasedStateMachine):
    """The model keeps a list of what was said and works everything out anew from the words of the docs."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        rules = LabelsSection(double_share=1.0, gold_share=0.3, reviewers=(REVIEWER,))
        self.store = LabelStore(Path(":memory:"), lambda: self.now, rules=rules)
        self.store.sync([(episode, "task") for episode in EPISODES])
        self.said: list[Said] = []
        self.leases: list[Lease] = []
        self.living: dict[str, Lease] = {}  # the newest lease of each episode, until it is used

    def opinions(self, episode: str) -> dict[str, str]:
        """Who thinks what in the episode's round."""
        found: dict[str, str] = {}
        for one in self.said:
            if one.episode == episode and one.stands and one.role in {"label", "second"}:
                if one.role == "label":
                    found.clear()
                found[one.who] = one.outcome
        return found

    def verdict(self, episode: str) -> Said | None:
        """The reviewer's word, if it came after the round began."""
        found = None
        for one in self.said:
            if one.episode == episode and one.stands:
                if one.role in {"adjudication", "gold"}:
                    found = one
                elif one.role == "label":
                    found = None
        return found

    def holds(self, episode: str) -> str | None:
        """The outcome that holds."""
        verdict = self.verdict(episode)
        if verdict is not None:
            return verdict.outcome
        outcomes = set(self.opinions(episode).values())
        return outcomes.pop() if len(outcomes) == 1 else None

    def free(self, episode: str) -> bool:
        """Whether nobody holds the episode."""
        lease = self.living.get(episode)
        return lease is None or lease.expires <= self.now

    def may_be_asked(self, episode: str, who: str) -> bool:
        """Whether the queue may give the episode to this annotator."""
        verdict = self.verdict(episode)
        if verdict is not None:
            known = any(one.episode == episode and one.who == who for one in self.said)
            return verdict.role == "gold" and not known
        opinions = self.opinions(episode)
        return len(opinions) == 0 or (len(opinions) == 1 and who not in opinions)

    @rule(who=st.sampled_from(PEOPLE))
    def claim(self, who: str) -> None:
        """The queue gives what may be asked and is free; never nothing as long as there is a plain one."""
        wanted = [e for e in EPISODES if self.free(e) and self.may_be_asked(e, who)]
        plain = [e for e in wanted if self.verdict(e) is None]
        lease = self.store.claim(who, LEASE_S)
        if lease is None:
            assert not plain
            return
        assert lease.episode_id in wanted
        if self.verdict(lease.episode_id) is None:
            assert lease.episode_id == plain[0]
        self.leases.append(lease)
        self.living[lease.episode_id] = lease

    @rule(who=st.sampled_from(PEOPLE), episode=st.sampled_from(EPISODES))
    def claim_one(self, who: str, episode: str) -> None:
        """By name: not what others hold, nor what only a reviewer may decide."""
        held = self.living.get(episode)
        others = held is not None and held.annotator != who and held.expires > self.now
        verdict, opinions = self.verdict(episode), self.opinions(episode)
        closed = verdict is not None and verdict.role == "adjudication"
        if verdict is None and len(set(opinions.values())) > 1:
            closed = not any(o.stands and o.who == who and o.episode == episode for o in self.said)
        lease = self.store.claim_episode(episode, who, LEASE_S)
        assert (lease is None) == (others or closed)
        if lease is not None:
            self.leases.append(lease)
            self.living[episode] = lease

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 1000), outcome=OUTCOME)
    def record_late(self, which: int, outcome: str) -> None:
        """A lease that was used, released or lost serves no more."""
        lease = self.leases[which % len(self.leases)]
        if self.living.get(lease.episode_id) is lease:
            return
        try:
            self.store.record(lease, outcome)
        except StaleLease:
            return
        raise AssertionError("a stale lease was taken")

    @precondition(lambda self: self.living)
    @rule(which=st.integers(0, 2), outcome=OUTCOME)
    def record(self, which: int, outcome: str) -> None:
        """An episode's newest lease serves, also when it has run out."""
        lease = list(self.living.values())[which % len(self.living)]
        episode, who = lease.episode_id, lease.annotator
        opinions, verdict = self.opinions(episode), self.verdict(episode)
        event = self.store.record(lease, outcome)
        if verdict is not None:
            role = "answer"
        elif set(opinions) - {who} and (who in opinions or len(opinions) == 1):
            role = "second"
        else:
            role = "label"
        assert event.role == role
        self.add(Said(episode, who, outcome, role))

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 1000))
    def release(self, which: int) -> None:
        """Gives back; a stale lease is ignored."""
        lease = self.leases[which % len(self.leases)]
        self.store.release(lease)
        if self.living.get(lease.episode_id) is lease:
            del self.living[lease.episode_id]

    @rule()
    def wait(self) -> None:
        """Leases run out."""
        self.now += LEASE_S

    @rule(who=st.sampled_from(PEOPLE), episode=st.sampled_from(EPISODES), outcome=OUTCOME)
    def set_openly(self, who: str, episode: str, outcome: str) -> None:
        """From the shell: replaces, except where only a reviewer may speak."""
        disputed = len(set(self.opinions(episode).values())) > 1
        try:
            self.store.set(episode, outcome, who)
        except InputError:
            assert disputed or self.verdict(episode) is not None
            return
        assert not disputed and self.verdict(episode) is None
        self.add(Said(episode, who, outcome, "label"))

    @rule(episode=st.sampled_from(EPISODES), outcome=OUTCOME)
    def adjudicate(self, episode: str, outcome: str) -> None:
        """Where annotators differ, or the reviewer has spoken before."""
        allowed = self.verdict(episode) is not None or len(set(self.opinions(episode).values())) > 1
        try:
            self.store.adjudicate(episode, outcome, REVIEWER)
        except InputError:
            assert not allowed
            return
        assert allowed
        self.add(Said(episode, REVIEWER, outcome, "adjudication"))

    @rule(episode=st.sampled_from(EPISODES), outcome=OUTCOME)
    def make_gold(self, episode: str, outcome: str) -> None:
        """Any episode may become gold."""
        self.store.set_gold(episode, outcome, REVIEWER)
        self.add(Said(episode, REVIEWER, outcome, "gold"))

    @rule(who=st.sampled_from((*PEOPLE, REVIEWER)))
    def undo(self, who: str) -> None:
        """One's newest word, unless somebody has replaced it."""
        mine = [one for one in self.said if one.stands and one.who == who]
        if not mine:
            assert self.store.undo(who) is None
            return
        last = mine[-1]
        later = self.said[self.said.index(last) + 1 :]
        replaced = any(
            o.stands and o.episode == last.episode and o.role in {"label", "adjudication", "gold"}
            for o in later
        )
        try:
            event = self.store.undo(who)
        except InputError:
            assert replaced
            return
        assert not replaced and event is not None
        last.stands = False
        self.living.pop(last.episode, None)
        assert (event.episode_id, event.role, event.outcome) == (
            last.episode,
            last.role,
            self.holds(last.episode),
        )

    def add(self, one: Said) -> None:
        """Something was said, which ends any lease."""
        self.said.append(one)
        self.living.pop(one.episode, None)

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        """What holds, the opinions, the disputes, gold, the counts; and rows agree with their events."""
        held = {e: outcome for e in EPISODES if (outcome := self.holds(e)) is not None}
        assert {e: label.outcome for e, label in self.store.current().items()} == held
        disputed = set()
        for episode in EPISODES:
            opinions = self.opinions(episode)
            assert {o.annotator: o.outcome for o in self.store.opinions(episode)} == opinions
            if self.verdict(episode) is None and len(set(opinions.values())) > 1:
                disputed.add(episode)
            state = resolve(events_of(self.store._opened(), episode))
            assert (state.name, state.outcome) == (self.store.state(episode), held.get(episode))
        assert {d.episode_id for d in self.store.disputed()} == disputed
        progress = self.store.progress()
        assert progress.disputed == len(disputed)
        assert progress.unlabelled == len(EPISODES) - len(held) - len(disputed)
        assert progress.leased == sum(not self.free(e) for e in EPISODES)
        verdicts = {e: verdict for e in EPISODES if (verdict := self.verdict(e)) is not None}
        assert self.store.gold() == {e: v.outcome for e, v in verdicts.items() if v.role == "gold"}

    def teardown(self) -> None:
        """Closes the store."""
        self.store.close()


TestLabels = LabelsMachine.TestCase
TestLabels.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

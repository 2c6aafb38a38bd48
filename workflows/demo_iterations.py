"""The demo over several iterations: each next one rolls out the champion, labels that and improves again.

What a lab does week after week, by scripted people: a supervisor corrects the champion on new scenes, the
annotator labels what was recorded, and a turn of the loop is run over everything that there is.
"""

from __future__ import annotations

from collections.abc import Callable

from workflows.improvement import Loop, TurnResult, improve, known_base, record, run_demo
from workflows.ledger import Champion, Ledger
from workflows.step_recipe import Step
from workflows.step_result import StepResult
from workflows.turn_labels import label_simulated


def run_iterations(
    loop: Loop, iterations: int, finished: Callable[[TurnResult], None] = lambda result: None
) -> TurnResult:
    """The demo and ``iterations`` - 1 turns after it; calls ``finished`` after each turn, gives the last.

    Everything follows from the settings and from what the turns before decided, so that a run that was
    killed goes on where it was. Raises ``GateClosed`` where the values of a turn do not pass the gate.
    """
    result = run_demo(loop)
    finished(result)
    if iterations == 1:
        return result
    base = known_base(loop.runner.store, loop.ledger)
    assert base is not None, "the demo has trained one"
    episodes = _demo_episodes(loop, base)
    for number in range(2, iterations + 1):
        champion = standing_after(loop.ledger, result.iteration)
        recorded = record(loop, champion_rollouts(loop, champion, number))
        label_simulated(loop.workspace, recorded)
        episodes += recorded
        result = improve(loop, episodes, base)
        finished(result)
    return result


def standing_after(ledger: Ledger, iteration: int) -> Champion:
    """Who was champion when ``iteration`` had ended, whatever came later."""
    return [champion for champion in ledger.champions() if champion.since <= iteration][-1]


def champion_rollouts(loop: Loop, champion: Champion, number: int) -> list[Step]:
    """Rollouts of ``champion`` for iteration ``number``, alone and supervised, on scenes of their own."""
    recording = loop.settings.recording
    counts = {"observer": recording.autonomous_rollouts, "supervisor": recording.supervised_rollouts}
    # A base policy was never trained on prompts with an advantage.
    indicator = "positive" if champion.iteration > 0 else None
    return [
        step
        for person, episodes in counts.items()
        for step in loop.graph.rollouts(person, episodes, champion, turn=number, indicator=indicator)
    ]


def _demo_episodes(loop: Loop, base: StepResult) -> list[str]:
    """What :func:`run_demo` recorded: its steps are finished."""
    graph, recording = loop.graph, loop.settings.recording
    return record(
        loop,
        graph.demonstrations("skilled", recording.skilled_demonstrations)
        + graph.demonstrations("sloppy", recording.sloppy_demonstrations)
        + graph.rollouts("observer", recording.autonomous_rollouts, base)
        + graph.rollouts("supervisor", recording.supervised_rollouts, base),
    )

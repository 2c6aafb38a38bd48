"""How a session's state looks: words, colours and their order on the operator's screen."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from collectors.operator_keys import KEYS, OperatorKey
from collectors.telemetry import Phase, Snapshot
from pipeline.counted_words import counted
from pipeline.episode import Source

LOW_DISK_BYTES = 20 * 10**9  # some hours of two cameras
VERY_LOW_DISK_BYTES = 5 * 10**9

_BANNERS: dict[Phase, tuple[str, str, str]] = {
    Phase.WAITING: (
        "READY",
        "bold black on grey82",
        "nothing is recorded · the arm follows you · ENTER starts",
    ),
    Phase.RUNNING: ("● RECORDING", "bold white on dark_green", ""),
    Phase.PAUSED: (
        "PAUSED",
        "bold black on rgb(230,180,0)",
        "nothing is recorded · the arm holds still · P goes on",
    ),
    Phase.STOPPED: (
        "ARM STOPPED",
        "bold white on rgb(190,0,0)",
        "it takes no commands until you clear the fault: C",
    ),
    Phase.ENDED: ("ENDED", "bold white on grey37", "the session is over"),
}
ALONE = "NOBODY CAN TAKE OVER (SPACE stops the arm)"
_DRIVER_STYLES: dict[Source | None, str] = {
    Source.POLICY: "bold white on rgb(0,95,135)",
    Source.INTERVENTION: "bold white on dark_magenta",
}
_WITHIN_EPISODE = (Phase.RUNNING, Phase.PAUSED)
_USEFUL_KEYS: dict[Phase, tuple[OperatorKey, ...]] = {
    Phase.WAITING: (OperatorKey.START, OperatorKey.STOP, OperatorKey.EMERGENCY_STOP),
    Phase.RUNNING: (
        OperatorKey.SUCCESS,
        OperatorKey.FAILURE,
        OperatorKey.DISCARD,
        OperatorKey.PAUSE,
        OperatorKey.STOP,
        OperatorKey.EMERGENCY_STOP,
    ),
    Phase.PAUSED: (
        OperatorKey.PAUSE,
        OperatorKey.SUCCESS,
        OperatorKey.FAILURE,
        OperatorKey.DISCARD,
        OperatorKey.STOP,
        OperatorKey.EMERGENCY_STOP,
    ),
    Phase.STOPPED: (OperatorKey.CLEAR_FAULTS, OperatorKey.STOP, OperatorKey.EMERGENCY_STOP),
    Phase.ENDED: (),
}


def panel(snapshot: Snapshot, key_help: str) -> RenderableType:
    """The whole view; about ten lines, as wide as the terminal."""
    rows = [
        _banner(snapshot),
        Padding(_Figures(snapshot), (1, 1, 0, 1)),
        Padding(_condition(snapshot), (1, 1)),
    ]
    if snapshot.phase is not Phase.ENDED:
        rows += [Rule(style="grey37"), Padding(_keys(snapshot, key_help), (0, 1))]
    return Panel(
        Group(*rows), title=Text(f" {snapshot.task} ", style="bold default"), padding=0, border_style="grey50"
    )


def driver_words(snapshot: Snapshot) -> str:
    """Who chose the latest action."""
    match snapshot.driver:
        case Source.TELEOP:
            return "you drive"
        case Source.POLICY:
            return "the policy drives" + (f": {snapshot.subtask}" if snapshot.subtask else "")
        case Source.INTERVENTION:
            return "YOU have taken over"
    return "the arm holds still"


def progress_words(snapshot: Snapshot) -> str:
    """Time and figures of the episode in one line."""
    words = [
        f"episode {snapshot.episode}",
        _clock(snapshot.seconds),
        counted(snapshot.frames, "frame"),
        f"{snapshot.rate_hz:.1f} of {snapshot.wanted_rate_hz:g} Hz",
        f"{snapshot.overruns} late",
        f"{snapshot.dropped} dropped",
    ]
    if snapshot.starved:
        words.append(f"{snapshot.starved} without a plan")
    return " · ".join(words)


def free_disk(snapshot: Snapshot) -> str:
    """The room on the disk, in GB as disks are sold."""
    return f"{snapshot.disk_free_bytes / 1e9:.0f} GB free"


def problems(snapshot: Snapshot) -> list[str]:
    """What is not as it should be, in words, the worst first; empty when all is well."""
    found = [snapshot.stopped] if snapshot.stopped is not None else []
    found += [f"camera {name}: {why}" for name, why in sorted(snapshot.lost_cameras.items())]
    if snapshot.lost_device is not None:
        found.append(f"input device: {snapshot.lost_device}")
    if snapshot.dropped and snapshot.phase in _WITHIN_EPISODE:  # later it is a note, said once
        found.append("frames are being lost: the disk is too slow for the cameras")
    if 0 < snapshot.disk_free_bytes < LOW_DISK_BYTES:
        found.append(f"the disk is nearly full: {free_disk(snapshot)}")
    if snapshot.phase is not Phase.ENDED:  # the arm was told to stand still
        found += snapshot.limits
    return found


def _banner(snapshot: Snapshot) -> RenderableType:
    word, style, hint = _BANNERS[snapshot.phase]
    if snapshot.phase is Phase.RUNNING:
        style = _DRIVER_STYLES.get(snapshot.driver, style)
        hint = driver_words(snapshot) + ("" if snapshot.can_take_over else f" · {ALONE}")
        word = f"{word}  episode {snapshot.episode}  {_clock(snapshot.seconds)}"
    if snapshot.phase is Phase.WAITING and not snapshot.can_take_over:
        hint = f"{ALONE} · ENTER starts"
    row = Table.grid(expand=True, padding=(0, 2))
    row.add_column(no_wrap=True)
    row.add_column(justify="right")
    row.add_row(Text(word), Text(hint))
    return Padding(row, (0, 1), style=style)


@dataclass(frozen=True)
class _Cell:
    """A figure under its heading; ``short`` is the heading of a narrow terminal."""

    heading: str
    short: str
    value: str
    style: str


class _Figures:
    """Small headings over their figures, none of them cut; those of the arm's loop are the latest episode's.

    What does not fit goes, the right-hand ones first, since problems are said in words below.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._cells = _cells(snapshot)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid = _grid(self._cells, short=False)
        for shown in range(len(self._cells), 0, -1):
            if Measurement.get(console, options.update(max_width=1000), grid).maximum <= options.max_width:
                break
            grid = _grid(self._cells[:shown], short=True)
        yield grid


def _grid(cells: list[_Cell], short: bool) -> Table:
    grid = Table.grid(padding=(0, 2 if short else 3))
    for _ in cells:
        grid.add_column(no_wrap=True)
    grid.add_row(*(Text(cell.short if short else cell.heading, style="grey62") for cell in cells))
    grid.add_row(*(Text(cell.value, style=cell.style) for cell in cells))
    return grid


def _cells(snapshot: Snapshot) -> list[_Cell]:
    of_wanted = "" if snapshot.wanted is None else f" of {snapshot.wanted}"
    disk = snapshot.disk_free_bytes
    disk_style = (
        "green" if disk >= LOW_DISK_BYTES else "yellow" if disk >= VERY_LOW_DISK_BYTES else "bold red"
    )
    rate = f"{snapshot.rate_hz:.1f} of {snapshot.wanted_rate_hz:g} Hz"
    cells = [
        _Cell("episodes kept", "kept", f"{snapshot.done}{of_wanted}", "bold"),
        _Cell("rate", "rate", rate, _rate_style(snapshot)),
        _Cell("late steps", "late", str(snapshot.overruns), "yellow" if snapshot.overruns else "green"),
        _Cell(
            "dropped frames", "dropped", str(snapshot.dropped), "bold red" if snapshot.dropped else "green"
        ),
        _Cell("disk", "disk", free_disk(snapshot), disk_style),
    ]
    if not snapshot.frames and snapshot.phase is not Phase.RUNNING:  # nothing was measured yet
        cells = [cells[0], cells[-1]]
    return cells


def _rate_style(snapshot: Snapshot) -> str:
    if snapshot.phase is not Phase.RUNNING or not snapshot.wanted_rate_hz:
        return "default"
    share = snapshot.rate_hz / snapshot.wanted_rate_hz
    return "green" if share > 0.97 else "yellow" if share > 0.9 else "bold red"


def _condition(snapshot: Snapshot) -> RenderableType:
    known = problems(snapshot)
    lines = [Text(f"▲ {problem}", style="bold yellow") for problem in known]
    if snapshot.stopped is not None:
        lines[0] = Text(f"■ {snapshot.stopped}", style="bold red")
    if not lines and snapshot.phase is not Phase.ENDED:
        lines = [Text("✓ arm and cameras are well", style="green")]
    if snapshot.starved and snapshot.phase in _WITHIN_EPISODE:
        steps = counted(snapshot.starved, "step")
        lines.append(Text(f"the policy was too slow for {steps}: the arm held still", "yellow"))
    lines += [Text(line) for line in snapshot.message.splitlines() if line not in known]
    return Group(*lines)


def _keys(snapshot: Snapshot, key_help: str) -> Text:
    """The key help, line by line."""
    help_ = Text("\n").join(_line_of_keys(snapshot.phase, line) for line in key_help.splitlines())
    if snapshot.can_correct:
        help_.append(" · ", style="grey37").append("s f d", style="bold cyan").append(" correct the last")
    return help_


def _line_of_keys(phase: Phase, key_help: str) -> Text:
    """The part of the key help that does something now; an entry ends with what the key is called."""
    line = Text()
    by_length = sorted(OperatorKey, key=lambda key: -len(key.value))  # "emergency stop" before "stop"
    for entry in key_help.split(" · "):
        key = next((key for key in by_length if entry.endswith(f" {key.value}")), None)
        if (key or KEYS.get(entry.partition(" ")[0], key)) not in (None, *_USEFUL_KEYS[phase]):
            continue
        line.append(" · " if line else "", style="grey37")
        if key is None:  # a key of the operator's device
            name, _, meaning = entry.rpartition(" ")
            line.append(f"{name} ", style="bold cyan").append(meaning)
        else:
            style = "bold red" if key is OperatorKey.EMERGENCY_STOP else "bold cyan"
            line.append(entry[: -len(key.value)], style=style).append(key.value)
    return line


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

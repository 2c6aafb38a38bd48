"""The rows of the design-space benchmark: each is one change from the row that it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SUBTASKS = ["reach the cube", "lift the cube"]


@dataclass(frozen=True)
class Row:
    """One policy of the table.

    ``options`` are fields of ``Gen3VLAConfig``; ``change`` says what differs from the row ``beside``;
    ``guidance`` is that at inference. ``backbone_of`` names the row whose backbone it begins with: half of
    the budget goes there. ``subtasks``: whether the prompts of training say the sub-task.
    """

    name: str
    change: str
    beside: str = "default"
    options: dict[str, Any] = field(default_factory=dict)
    guidance: float = 1.0
    backbone_of: str | None = None
    subtasks: bool = False


_TOKENS: dict[str, Any] = {"backbone": "transformer"}
_ALL: dict[str, Any] = {**_TOKENS, "conditioning": "cross_attention", "bridge": "full_sequence"}
_HISTORY: dict[str, Any] = {"n_obs_steps": 3}

ROWS = (
    Row("default", "convolutions, one vector, adaLN, flow", "-"),
    Row("regression", "action head: MSE and BCE", options={"action_head": "regression"}),
    Row("clean-actions", "the flow's output: actions", options={"prediction": "actions"}),
    Row("guidance", "guidance 2 at inference", guidance=2.0),
    Row("indicator-text", "the indicator as words", options={"indicator_input": "text"}),
    Row(
        "policy-head",
        "policy head over 3 observations",
        options={"history": "policy_head", **_HISTORY},
    ),
    Row("transformer", "a small transformer reads tokens", options=_TOKENS),
    Row("bins", "action head: 256 bins", "transformer", {**_TOKENS, "action_head": "bins"}),
    Row("fast", "action head: FAST", "transformer", {**_TOKENS, "action_head": "fast"}),
    Row("state-tokens", "state as special tokens", "transformer", {**_TOKENS, "state_input": "tokens"}),
    Row("state-text", "state as text", "transformer", {**_TOKENS, "state_input": "text"}),
    Row("special-token", "bridge: special token", "transformer", {**_TOKENS, "bridge": "special_token"}),
    Row(
        "interleaved",
        "3 observations in one sequence",
        "transformer",
        {**_TOKENS, "history": "interleaved", **_HISTORY},
    ),
    Row("cross-attention", "expert attends to keys and values of all tokens", "transformer", _ALL),
    Row(
        "in-context",
        "all tokens stand in the expert's sequence",
        "transformer",
        {**_TOKENS, "conditioning": "in_context", "bridge": "full_sequence"},
    ),
    Row("joint-tokens", "FAST tokens beside, joint", "cross-attention", {**_ALL, "backbone_tokens": "fast"}),
    Row(
        "insulated",
        "FAST tokens beside, insulated",
        "joint-tokens",
        {**_ALL, "backbone_tokens": "fast", "training": "insulated"},
    ),
    Row(
        "frozen",
        "backbone of 'insulated', frozen",
        "cross-attention",
        {**_ALL, "training": "frozen"},
        backbone_of="insulated",
    ),
    Row(
        "sub-tasks",
        "predicts the sub-task, then acts",
        "cross-attention",
        {**_ALL, "subtasks": SUBTASKS},
        subtasks=True,
    ),
)
QUICK = ("default", "cross-attention", "insulated")


def row_named(name: str) -> Row:
    """The row of that name; raises ``SystemExit`` with the names that there are."""
    for row in ROWS:
        if row.name == name:
            return row
    raise SystemExit(f"there is no row {name!r}; there are {', '.join(r.name for r in ROWS)}")

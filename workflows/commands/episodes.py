"""``recap episodes``: looks at what has been recorded, checks and repairs it, takes it in and out."""

from __future__ import annotations

from workflows.commands.episodes_check import check
from workflows.commands.episodes_export import export_episodes, show_statistics
from workflows.commands.episodes_import import import_episodes
from workflows.commands.episodes_list import current_outcomes, list_episodes, outcome_of
from workflows.commands.episodes_show import show
from workflows.commands.options import command_group

__all__ = ["app", "current_outcomes", "outcome_of"]

app = command_group("List, show and check what has been recorded. Reads episodes/ and labels.sqlite.")
app.command("list")(list_episodes)
app.command("show")(show)
app.command("check")(check)
app.command("export")(export_episodes)
app.command("statistics")(show_statistics)
app.command("import")(import_episodes)

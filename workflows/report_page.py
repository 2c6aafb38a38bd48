"""How a page is made from its template: one file of HTML, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from pipeline.durable_files import write_file


def write_page(template: str, context: Mapping[str, Any], out: Path) -> Path:
    """Renders a template of this folder, every value escaped, to ``out``; returns it."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_file(out, environment.get_template(template).render(context).encode())
    return out


def _template(name: str) -> str:
    return resources.files("workflows").joinpath(name).read_text(encoding="utf-8")

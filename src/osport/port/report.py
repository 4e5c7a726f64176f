"""Write ``report.json``, ``report.md`` and ``report.html`` (self-contained, no network)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cattrs

from osport.errors import StorageError
from osport.evals.golden import GoldenSet
from osport.evals.optional import optional
from osport.port.picture import accuracy_against_latency
from osport.port.plan import Plan, digest
from osport.port.result import PortResult
from osport.port.view import view_of

__all__ = ["write_report"]


def write_report(result: PortResult, plan: Plan, golden: GoldenSet, out: Path) -> None:
    """Write the three files into ``out``, each whole or not at all.

    In the JSON an infinite latency is the string ``"Infinity"`` and an unknown value null.
    Raises :class:`~osport.errors.StorageError` when they cannot be written.
    """
    view = view_of(result, plan, golden)
    view["picture"], view["picture_note"] = accuracy_against_latency(
        result.arms,
        candidate=plan.candidate,
        incumbent=plan.incumbent,
        best_constant=result.best_constant,
        p95_limit=plan.limits.p95_seconds,
    )
    jinja2 = optional("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("osport.port", ""),
        autoescape=lambda name: str(name).endswith(".html.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = markdown_cell
    data = {
        "name": plan.name,
        "rule": {**plan.rule(golden.sha256), "sha256": digest(plan.rule(golden.sha256))},
        "port_file_sha256": plan.sha256,
        "environment": dict(view["environment"]),
        **cattrs.unstructure(result),
    }
    data.pop("report")
    replace(out / "report.json", json.dumps(finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    for name in ("report.md", "report.html"):
        replace(out / name, environment.get_template(f"{name}.jinja").render(view))


def finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and math.isinf(value):
        return "Infinity"
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def markdown_cell(value: object) -> str:
    """Text that cannot break out of a Markdown table."""
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"report {path} cannot be written: {error.strerror}") from error

"""One model: is it there, what is it, does its server treat it as it should, does it enforce forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from osport.core.secrets import shown_url
from osport.doctor.finding import Finding
from osport.doctor.server import server_findings
from osport.errors import OsportError
from osport.model import Model
from osport.probing import recalled_probe

__all__ = ["reference_findings"]

URL = re.compile(r"https?://.+", re.DOTALL)


def reference_findings(reference: str) -> Iterator[Finding]:
    """Nothing is loaded: the file's header is read, or the server asked."""
    url = URL.search(reference)
    # One with a password in it is for nobody's eyes; the backend says what is wrong with it.
    if url is not None and shown_url(url.group()) == url.group():
        name = reference.partition(":")[2].partition("@")[0]
        yield from server_findings(url.group(), model="" if name.startswith("//") or "://" in name else name)
    try:
        with Model(reference) as model:
            yield from _model_findings(reference, model)
    except OsportError as error:
        yield Finding("problem", "model", shown_url(reference), f"{type(error).__name__}: {error}")


def _model_findings(reference: str, model: Model) -> Iterator[Finding]:
    facts = model.facts
    known = [f"{name} {facts[name]}" for name in ("name", "architecture", "quantization", "engine") if name in facts]
    yield Finding("ok", "model", reference, ", ".join(known) or "the engine tells nothing about it")
    path = facts.get("path")
    if path and Path(path).suffix == ".gguf" and "chat_template" not in facts:
        yield Finding(
            "note", "template", path, "the file holds no chat template: it is a base model, or an old conversion",
            "send raw prompts, or give Model(..., template=ChatTemplate.from_text(...)) the official one",
        )  # fmt: skip
    yield from _probe_findings(reference, model)


def _probe_findings(reference: str, model: Model) -> Iterator[Finding]:
    if not model.capabilities.constraints:
        yield Finding("ok", "probe", reference, "the backend enforces no forms, and says so")
        return
    found = recalled_probe(model)
    if found is None:
        what = "nobody has tried whether its forms are really enforced"
        yield Finding("note", "probe", reference, what, f"osport probe {reference}")
        return
    for kind in found.kinds:
        level = "problem" if kind.result == "dropped" else "ok"
        remedy = f"do not constrain by {kind.kind} here: the answers are free" if level == "problem" else ""
        what = f"{kind.result} ({found.date[:10]}{', ' * bool(kind.detail)}{kind.detail})"
        yield Finding(level, "probe", f"{reference}, {kind.kind}", what, remedy)  # type: ignore[arg-type]

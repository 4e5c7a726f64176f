"""Which template an Ollama server really uses for a model: it may swap the one in the file for one of its own.

Ollama's templates are written in Go's template language, so texts cannot be compared. What can: the control
tokens, and whether the parts of a request (system, tools, thinking) have a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from osport.chat_template.control_tokens import find_tokens, own_tokens
from osport.chat_template.report import Finding
from osport.errors import MissingDependency, TemplateError, Unreachable

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["against_show", "show"]

PLACES = {
    "system": (".System", ".Messages"),
    "tools": (".Tools",),
    "thinking": (".Think", ".Thinking"),
}


def show(url: str, model: str, timeout: float) -> Mapping[str, Any]:
    """What ``/api/show`` says of a model. Raises Unreachable without a server, TemplateError without the model."""
    try:
        import httpx
    except ImportError:
        raise MissingDependency("httpx", "ollama") from None
    base = url.rstrip("/")
    try:
        answer = httpx.post(f"{base}/api/show", json={"model": model}, timeout=timeout)
        told = answer.raise_for_status().json()
    except httpx.HTTPStatusError as error:
        raise TemplateError(
            f"{base} does not show {model!r} (HTTP {error.response.status_code}); `ollama list` tells its models"
        ) from error
    except (httpx.HTTPError, ValueError) as error:
        raise Unreachable(f"{base} does not answer as an Ollama server: {error}") from error
    if not isinstance(told, Mapping):
        raise Unreachable(f"{base} does not answer as an Ollama server: /api/show gave {type(told).__name__}")
    return told


def against_show(template: ChatTemplate, told: Mapping[str, Any]) -> Iterator[Finding]:
    """How the template that Ollama uses differs from the model's own."""
    used = str(told.get("template") or "")
    if renderer := told.get("renderer"):
        yield _finding("warning", f"Ollama renders with its own code, {renderer}, and not with a template")
        return
    if not used or re.fullmatch(r"\s*\{\{-?\s*\.Prompt\s*-?\}\}\s*", used):
        yield _finding("error", "Ollama has no template for this model and sends the text as it is")
        return
    theirs = {token for _, token in find_tokens(re.sub(r"\{\{.*?\}\}", " ", used, flags=re.DOTALL))}
    strange = sorted(theirs - own_tokens(template) - {token for token in theirs if token in template.text})
    if strange:
        yield _finding("error", f"Ollama's template is another family's: it writes {', '.join(strange)}")
    capabilities = template.capabilities
    kept = {
        "system": capabilities.system == "kept",
        "tools": capabilities.tools == "kept",
        "thinking": capabilities.thinking.kind in ("variable", "level"),
    }
    for part, places in PLACES.items():
        if kept[part] and not any(place in used for place in places):
            yield _finding("error", f"Ollama's template has no place for {part}; the model's own has")


def _finding(severity: Any, message: str) -> Finding:
    fix = "create the model again with a TEMPLATE of its family, or send raw prompts that osport renders"
    return Finding(severity, "ollama-template", "template", message, fix)

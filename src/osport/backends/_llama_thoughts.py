"""What the model of the embedded llama.cpp server thinks before a constrained answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osport.backends._gguf_model import GgufModel
from osport.chat_template.families import families
from osport.core.capabilities import THINKING_FIRST
from osport.core.thought import Thought
from osport.core.types import Request
from osport.errors import UnsupportedFeature

if TYPE_CHECKING:
    from osport.chat_template import ChatTemplate

__all__ = ["chat_template", "thinks_first", "thought_of"]


def chat_template(text: str) -> ChatTemplate:
    """A template of a server, for what it tells about the model."""
    from osport.chat_template import ChatTemplate

    return ChatTemplate.from_text(text)


def thinks_first(gguf: GgufModel | None, request: Request) -> bool:
    """Whether the model reasons before a constrained answer to messages: when asked to, or where its template opens
    the reasoning."""
    if request.constraint is None or not request.messages or gguf is None or gguf.chat_template is None:
        return False
    if request.thinking in (None, False) and not could_open(gguf.chat_template):
        return False
    template = chat_template(gguf.chat_template)
    return template.thought(template.capabilities.opening, request.thinking) is not None


def could_open(template: str) -> bool:
    """Whether a prompt may end inside the reasoning, told without rendering: the renderer is another extra."""
    marks = {family.reasoning[0].strip() for family in families() if family.reasoning}
    return any(mark in template for mark in (*marks, "</", "[/"))


def thought_of(gguf: GgufModel | None, request: Request, prompt: str | None) -> Thought | None:
    """What comes before the form: whoever rendered the prompt said so, or the model's own template tells.

    Raises :class:`~osport.errors.UnsupportedFeature` for marks that are control tokens.
    """
    thought = request.thought
    if prompt is not None and thinks_first(gguf, request) and gguf is not None:
        thought = chat_template(gguf.chat_template or "").thought(prompt, request.thinking)
    if request.constraint is None or thought is None or gguf is None:
        return None
    if hidden := gguf.controls.keys() & {thought.opening, thought.closing}:
        why = f"the server does not show the control token {min(hidden)}, by which the thought is told from the form"
        raise UnsupportedFeature(THINKING_FIRST, "llama_server", reason=why, alternatives=("llama_cpp",))
    return thought

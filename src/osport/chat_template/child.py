"""What a stranger's template or pattern asks for, in a process of its own under limits of the operating system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from osport.chat_template.deadline import MEMORY_BYTES, SECONDS
from osport.confined import Confined, Unanswered, serve
from osport.errors import TemplateError

__all__ = ["parse_in_child", "render_in_child"]


def render_in_child(
    source: str,
    now: datetime,
    reason: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final: bool | str = False,
    plain: bool = False,
    **variables: Any,
) -> str:
    """Render as ``renderer.in_process`` does, elsewhere; ``reason`` says why, and stands in the error.

    ``plain`` makes no difference: what comes through a pipe is plain.
    """
    question = {
        "source": source,
        "now": now.isoformat(),
        "messages": messages,
        "options": {
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            "continue_final": continue_final,
            **variables,
        },
    }
    return str(_ask(question, f"its form does not bound its cost ({reason})")["text"])


def parse_in_child(
    text: str, response: Mapping[str, Any], prompt: str, tools: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any]:
    """The message that transformers' ``parse_response`` makes of an answer.

    Raises :class:`~osport.errors.TemplateError` for a response template or an answer that it does not take.
    """
    question = {"response": response, "text": text, "prefix": prompt, "tools": tools}
    message: dict[str, Any] = _ask(question, "its patterns are the model's own")["message"]
    return message


_child = Confined(__name__, seconds=SECONDS, memory=MEMORY_BYTES)


def _ask(question: Mapping[str, Any], reason: str) -> dict[str, Any]:
    try:
        answer = _child.ask(question)
    except Unanswered as error:
        raise TemplateError(f"the chat template was stopped: {error}, and {reason}") from None
    if "error" in answer:
        raise TemplateError(answer["error"])
    return answer


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from osport.chat_template import renderer

    try:
        if "source" in question:
            render = renderer.in_process(question["source"], datetime.fromisoformat(question["now"]))
            return {"text": render(question["messages"], **question["options"])}
        return {"message": _parsed(question)}
    except TemplateError as error:
        return {"error": str(error)}


def _parsed(question: dict[str, Any]) -> dict[str, Any]:
    try:
        from transformers.utils.chat_parsing import parse_response
    except ImportError:
        from transformers import __version__

        raise TemplateError(
            f"transformers {__version__} reads no response templates; from 5.13 on it does: pip install -U transformers"
        ) from None
    try:
        message: dict[str, Any] = parse_response(
            question["text"], question["response"], prefix=question["prefix"], tools=question["tools"]
        )
    except MemoryError:
        raise
    except Exception as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error
    return message


def main() -> None:
    """The child."""
    from osport.chat_template import renderer

    def prepare() -> Any:
        renderer.in_process("", datetime(2000, 1, 1))  # everything that renders is loaded before the limits
        return _answer

    serve(prepare, seconds=SECONDS, memory=MEMORY_BYTES)

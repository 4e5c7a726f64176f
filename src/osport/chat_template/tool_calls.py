"""Tool calls out of raw text, in the form in which each family writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from osport.chat_template.tool_call_forms import CALL, FORMS, BareText, Form, Malformed
from osport.core.types import Tool, ToolCall
from osport.errors import OutputError, UsageError
from osport.formats.strict_json import STRICT

__all__ = ["parse_tool_calls"]


def parse_tool_calls(text: str, form: str, tools: Sequence[Tool] = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """The text without its calls, and the calls. ``form`` is ``Family.calls``.

    What stands behind the calls stays in the text, on a line of its own. ``tools`` are those that were offered:
    they tell the types of arguments for forms that write all values as text. Calls without an id are numbered
    ``call_0``, ``call_1``, ...

    Raises :class:`~osport.errors.OutputError` with the text for a call that is begun and not well formed, or of a
    tool that was not offered; :class:`~osport.errors.UsageError` for a form that osport does not know.
    """
    if form not in FORMS:
        raise UsageError(f"no form of tool calls is named {form!r}; known: {', '.join(sorted(FORMS))}")
    written = FORMS[form]
    match = re.search(written.begins, text, re.DOTALL)
    if match is None:
        return text, ()
    if written.begins_as_text and tools and _is_an_answer(text, tools):
        return text, ()
    try:
        calls, rest = _read(written, text[match.start() :], tools)
    except (Malformed, ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise OutputError(f"a tool call in the form {form} cannot be read: {error}; the text: {text!r}") from error
    return "\n".join(part for part in (text[: match.start()].rstrip(), rest) if part), calls


def _read(form: Form, text: str, tools: Sequence[Tool]) -> tuple[tuple[ToolCall, ...], str]:
    """The calls, and what stands behind them."""
    found, rest = form.read(text)
    rest = re.sub(form.around, "", rest, flags=re.DOTALL).replace(CALL, "").strip()
    if not found or re.search(form.opens or form.begins, rest, re.DOTALL):
        raise Malformed(f"it begins, and is not written out: {rest[:80]!r}")
    offered = {tool.name for tool in tools}
    calls = []
    for index, (name, arguments, call_id) in enumerate(found):
        if offered and name not in offered:
            raise Malformed(f"no tool named {name!r} was offered")
        calls.append(ToolCall(call_id or f"call_{index}", name, _arguments(name, arguments, tools)))
    return tuple(calls), rest


def _is_an_answer(text: str, tools: Sequence[Tool]) -> bool:
    """Whether the text is JSON of its own, which names none of the tools."""
    try:
        value = STRICT.decode(text.strip())
    except (ValueError, RecursionError):
        return False
    entries = value if isinstance(value, list) else [value]
    names = {str(entry.get("name")) for entry in entries if isinstance(entry, Mapping) and "function" not in entry}
    return len(names) > 0 and not names & {tool.name for tool in tools}


def _arguments(name: str, arguments: Any, tools: Sequence[Tool]) -> Mapping[str, Any]:
    if isinstance(arguments, str):
        arguments = STRICT.decode(arguments)
    if not isinstance(arguments, Mapping):
        raise Malformed(f"the arguments of {name} are no object")
    schema = next((tool.parameters for tool in tools if tool.name == name), {})
    properties = schema.get("properties", {})
    return {
        key: value.resolve(properties.get(key, {})) if isinstance(value, BareText) else value
        for key, value in arguments.items()
    }

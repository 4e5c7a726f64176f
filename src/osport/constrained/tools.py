"""Tool calls as a form: the grammar that allows nothing but calls of known tools, and the verification of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import attrs

from osport.constrained.dialects import HEADER, lark_of_schema, refusal_of, taken
from osport.constrained.schema import checked
from osport.constrained.verify import in_schema
from osport.core.call_form import CallForm
from osport.core.types import Constraint, Tool, ToolCall
from osport.errors import ConstraintViolated, UnsupportedFeature, UsageError
from osport.formats.strict_json import STRICT

__all__ = ["Mode", "calls_in", "lark_of_tools", "tools_constraint", "verified_calls"]

Mode = Literal["required", "auto", "one"]
MOST_CALLS = 16


def tools_constraint(tools: Sequence[Tool], mode: Mode, form: CallForm, *, parallel: bool) -> Constraint:
    """The constraint of an answer that calls tools. Its value is JSON, so that any process can compile it.

    Raises :class:`~osport.errors.UsageError` for no tool, two of one name, parameters that are no object's schema.
    """
    given = list(tools)
    if not given or not all(isinstance(tool, Tool) for tool in given):
        raise UsageError(f"tools={tools!r}: a list of at least one osport.Tool")
    names = [tool.name for tool in given]
    if len(set(names)) < len(names):
        raise UsageError(f"tools: a name stands there twice: {', '.join(names)}")
    if mode not in get_args(Mode):
        raise UsageError(f"mode={mode!r}: one of {', '.join(get_args(Mode))}")
    described = [{"name": tool.name, "parameters": parameters_of(tool)} for tool in given]
    most = MOST_CALLS if parallel and mode != "one" else 1
    return Constraint("tools", {"tools": described, "auto": mode == "auto", "most": most, "form": attrs.asdict(form)})


def parameters_of(tool: Tool) -> Any:
    """A tool's schema, checked, which always says that the arguments are an object."""
    schema = {"type": "object", **tool.parameters}
    if schema["type"] != "object":
        raise UsageError(f"tool {tool.name!r}: its parameters must be of type object, not {schema['type']!r}")
    try:
        return checked(schema).schema
    except UsageError as error:
        raise UsageError(f"tool {tool.name!r}: {error}") from error


def lark_of_tools(value: Mapping[str, Any]) -> str:
    """llguidance's text for the calls, compiled once.

    Raises :class:`~osport.errors.UnsupportedFeature` with tool, keyword and path for what could not be enforced.
    """
    form = CallForm(**value["form"])
    names = [json.dumps(tool["name"])[1:-1] for tool in value["tools"]]
    calls, firsts = [], []
    lines = []
    for at, (name, tool) in enumerate(zip(names, value["tools"], strict=True)):
        before, after = form.before(name), form.after()
        lines.append(f"args_{at}: {json_of(tool)}")
        calls.append(f"{json.dumps(before)} args_{at} {json.dumps(after)}")
        rest = (form.opening + before).lstrip().removeprefix(form.mark or f'{{"{form.name}":')
        firsts.append(f"{quoted(rest)} args_{at} {json.dumps(after)}")
    lines.append("call: " + " | ".join(calls))
    more = f"({quoted(form.between)} call){{0,{value['most'] - 1}}}" if value["most"] > 1 else ""
    closing = quoted(form.closing)
    if value["auto"]:
        mark = mark_of(form)
        lines += [
            f"start: TEXT | head first {more} {closing}",
            "first: " + " | ".join(firsts),
            # Lazy, so that the mark ends the text at once and nothing but a call can follow.
            f"head[lazy]: /(.|\\n)*{mark}/",
            f"TEXT: /(.|\\n)*/ & ~/(.|\\n)*{mark}(.|\\n)*/",
        ]
    else:
        lines.append(f"start: {quoted(form.opening)} call {more} {closing}")
    text = HEADER + "\n".join(lines) + "\n"
    if refusal := refusal_of(text):
        raise UnsupportedFeature("these tools", "llguidance", reason=refusal)
    return text


def json_of(tool: Mapping[str, Any]) -> str:
    """The rule of one tool's arguments."""
    try:
        form = taken(json.dumps(tool["parameters"]))
    except UnsupportedFeature as error:
        error.feature = f"tool {tool['name']!r}: {error.feature}"
        raise
    return lark_of_schema(form.schema).removeprefix(f"{HEADER}start: ")


def quoted(text: str) -> str:
    """A literal, or nothing for an empty one."""
    return json.dumps(text) if text else ""


def mark_of(form: CallForm) -> str:
    """The pattern that tells the first call from free text, the same for the grammar and for the verification."""
    return regex_of(form.mark) if form.mark else rf'\{{\s*"{regex_of(form.name)}"\s*:'


def regex_of(text: str) -> str:
    """A literal as a pattern that may stand inside Lark's ``/.../``."""
    return "".join({"\n": r"\n", "/": r"\/"}.get(sign) or re.escape(sign) for sign in text)


def calls_in(text: str, value: Mapping[str, Any]) -> tuple[str, tuple[ToolCall, ...]]:
    """The free text before the calls, and the calls, numbered ``call_0``, ``call_1``, ...; white space counts nowhere.

    Raises :class:`~osport.errors.ConstraintViolated`: no call where one is due, too many, an unknown tool, arguments
    that break the tool's schema, a call that is not written in the form, text behind the calls.
    """
    form = CallForm(**value["form"])
    start = where_calls_begin(text, form)
    if start is None:
        if value["auto"]:
            return text, ()
        raise ConstraintViolated("no tool is called", keyword="tools")
    free = text[:start].strip()
    if free and not value["auto"]:
        raise ConstraintViolated(f"text before the first call: {free[:80]!r}", keyword="tools")
    found = read_calls(text[start:], form, [tool["name"] for tool in value["tools"]])
    calls = [ToolCall(f"call_{at}", name, arguments) for at, (name, arguments) in enumerate(found)]
    return free, verified_calls(calls, value)


def verified_calls(calls: Sequence[ToolCall], value: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls, when there are not too many and each is one that :func:`verified_call` lets through."""
    if len(calls) > value["most"]:
        raise ConstraintViolated(f"{len(calls)} calls, at most {value['most']} allowed", keyword="tools")
    return tuple(verified_call(call, value, at) for at, call in enumerate(calls))


def where_calls_begin(text: str, form: CallForm) -> int | None:
    """The place of the first mark, or of the first object that begins as a call does; None where there is none."""
    found = re.search(mark_of(form), text)
    return found.start() if found else None


def verified_call(call: ToolCall, value: Mapping[str, Any], at: int) -> ToolCall:
    """A call, when there is such a tool and its schema allows the arguments."""
    parameters = next((tool["parameters"] for tool in value["tools"] if tool["name"] == call.name), None)
    if parameters is None:
        raise ConstraintViolated(f"call {at}: no tool is named {call.name!r}", path=f"$[{at}].name", keyword="tools")
    try:
        in_schema(json.dumps(call.arguments), checked(parameters).validator())
    except ConstraintViolated as error:
        path = f"$[{at}].arguments{error.path.removeprefix('$')}"
        message = f"call {at} of {call.name!r}: {error}"
        raise ConstraintViolated(message, path=path, keyword=error.keyword) from error
    return call


def read_calls(text: str, form: CallForm, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Name and arguments of each call, to the end of the text."""
    rest = after_mark(text, form.opening)
    first = True
    while first or (rest.strip() and rest.strip() != form.closing.strip()):
        if not first:
            rest = after_mark(rest, form.between)
        first = False
        if form.named_in_begin:
            # The longest first: a name may begin another one.
            ways = sorted(names, key=len, reverse=True)
            name = next((way for way in ways if rest.lstrip().startswith(form.before(way).strip())), None)
            if name is None:
                raise ConstraintViolated(f"no call of a known tool: {rest.strip()[:80]!r}", keyword="tools")
            arguments, rest = json_at(after_mark(rest, form.before(name)))
        else:
            entry, rest = json_at(after_mark(rest, form.begin))
            if not isinstance(entry, dict) or set(entry) != {form.name, form.arguments}:
                raise ConstraintViolated(
                    f"a call is an object with {form.name!r} and {form.arguments!r}: {str(entry)[:80]}", keyword="tools"
                )
            name, arguments = entry[form.name], entry[form.arguments]
        rest = after_mark(rest, form.end)
        yield name, arguments
    after_mark(rest, form.closing)


def after_mark(text: str, mark: str) -> str:
    """What stands behind a mark, white space before both left out."""
    wanted, rest = mark.strip(), text.lstrip()
    if not rest.startswith(wanted):
        raise ConstraintViolated(f"{wanted!r} is missing before {rest[:80]!r}", keyword="tools")
    return rest[len(wanted) :]


def json_at(text: str) -> tuple[Any, str]:
    """The JSON value that a text begins with, and what stands behind it."""
    text = text.lstrip()
    try:
        value, end = STRICT.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise ConstraintViolated(f"not JSON: {error}: {text[:80]!r}", keyword="json") from error
    return value, text[end:]

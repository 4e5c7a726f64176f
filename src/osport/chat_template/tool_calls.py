"""Tool calls out of raw text, in the form in which each family writes them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from osport.core.types import Tool, ToolCall
from osport.errors import OutputError, UsageError

__all__ = ["FORMS", "entries", "parse_tool_calls"]

Found = tuple[str, Any, str]
"""Name, arguments, and the id when the text holds one."""


class Malformed(Exception):
    """The text begins a call and does not write it as its family does."""


def parse_tool_calls(text: str, form: str, tools: Sequence[Tool] = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """The text without its calls, and the calls. ``form`` is ``Family.calls``.

    ``tools`` tells the types of arguments for forms that write all values as text. Calls without an id are
    numbered ``call_0``, ``call_1``, ...

    Raises :class:`~osport.errors.OutputError` with the text for a call that is begun and not well formed,
    :class:`~osport.errors.UsageError` for a form that osport does not know.
    """
    if form not in FORMS:
        raise UsageError(f"no form of tool calls is named {form!r}; known: {', '.join(sorted(FORMS))}")
    begins, read = FORMS[form]
    match = re.search(begins, text, re.DOTALL)
    if match is None:
        return text, ()
    try:
        found = list(read(text[match.start() :]))
        calls = tuple(
            ToolCall(call_id or f"call_{index}", name, _arguments(name, arguments, tools))
            for index, (name, arguments, call_id) in enumerate(found)
        )
    except (Malformed, ValueError, SyntaxError, KeyError, TypeError) as error:
        raise OutputError(f"a tool call in the form {form} cannot be read: {error}; the text: {text!r}") from error
    if not calls:
        raise OutputError(f"a tool call in the form {form} begins, but none follows; the text: {text!r}")
    return text[: match.start()].rstrip(), calls


def _arguments(name: str, arguments: Any, tools: Sequence[Tool]) -> Mapping[str, Any]:
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, Mapping):
        raise Malformed(f"the arguments of {name} are no object")
    schema = next((tool.parameters for tool in tools if tool.name == name), {})
    properties = schema.get("properties", {})
    return {
        key: value.resolve(properties.get(key, {})) if isinstance(value, _Text) else value
        for key, value in arguments.items()
    }


class _Text(str):
    """A value that its form writes as bare text; only the schema tells whether it is a string."""

    def resolve(self, schema: Mapping[str, Any]) -> Any:
        kind = schema.get("type")
        if kind == "string":
            return str(self)
        try:
            value = json.loads(self)
        except ValueError:
            return str(self)
        return str(self) if kind is None and isinstance(value, str) else value


def entries(value: Any) -> Iterator[Found]:
    """Calls from parsed JSON: one object or a list, under the names that families use."""
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, Mapping):
            raise Malformed("a call is no object")
        wrapped = entry.get("function")
        inner: Mapping[str, Any] = wrapped if isinstance(wrapped, Mapping) else entry
        name = inner.get("name") or inner.get("tool_name")
        if not isinstance(name, str):
            raise Malformed("a call has no name")
        arguments: Any = next((inner[key] for key in ("arguments", "parameters") if key in inner), {})
        yield name, arguments, str(entry.get("id") or entry.get("tool_call_id") or "")


def _json_values(text: str) -> Iterator[Any]:
    """JSON values one behind the other, apart by space, commas or semicolons."""
    decoder = json.JSONDecoder()
    at = 0
    while match := re.compile(r"[\s;,]*").match(text, at):
        at = match.end()
        if at >= len(text) or text[at] not in "{[":
            return
        value, at = decoder.raw_decode(text, at)
        yield value


def _blocks(opening: str, closing: str) -> Callable[[str], Iterator[Found]]:
    """JSON between two marks; the last mark may be missing where the engine stopped at it."""

    def read(text: str) -> Iterator[Found]:
        for piece in re.split(opening, text)[1:]:
            inside = re.split(closing, piece)[0] if closing else piece
            values = list(_json_values(inside.strip()))
            if not values:
                raise Malformed("no JSON behind the opening mark")
            for value in values:
                yield from entries(value)

    return read


def _each(pattern: str) -> Callable[[str], Iterator[Found]]:
    """One match a call, with groups ``name``, ``args`` and perhaps ``id``."""

    def read(text: str) -> Iterator[Found]:
        for match in re.finditer(pattern, text, re.DOTALL):
            groups = match.groupdict()
            yield groups["name"].strip(), groups["args"], groups.get("id") or ""

    return read


def _mistral(text: str) -> Iterator[Found]:
    for piece in text.split("[TOOL_CALLS]")[1:]:
        if piece.lstrip().startswith(("[", "{")):
            for value in _json_values(piece):
                yield from entries(value)
        else:
            match = re.match(
                r"\s*(?P<name>[^\[{]+)(?:\[CALL_ID\](?P<id>[^\[]+))?(?:\[ARGS\])?(?P<args>\{.*)", piece, re.DOTALL
            )
            if match is None:
                raise Malformed("neither a list nor a name with arguments behind [TOOL_CALLS]")
            arguments = next(_json_values(match["args"]))
            yield match["name"].strip(), arguments, (match["id"] or "").strip()


def _kimi(text: str) -> Iterator[Found]:
    pattern = r"<\|tool_call_begin\|>(?P<id>.*?)<\|tool_call_argument_begin\|>(?P<args>.*?)(?:<\|tool_call_end\|>|$)"
    for match in re.finditer(pattern, text, re.DOTALL):
        call_id = match["id"].strip()
        yield call_id.removeprefix("functions.").rpartition(":")[0] or call_id, match["args"], call_id


def _tagged(function: str, parameter: str, *, typed: bool = False) -> Callable[[str], Iterator[Found]]:
    """XML-like calls: a tag for the function (groups name, body), and one for each parameter (key, value)."""

    def read(text: str) -> Iterator[Found]:
        for match in re.finditer(function, text, re.DOTALL):
            arguments: dict[str, Any] = {}
            for found in re.finditer(parameter, match["body"], re.DOTALL):
                value = found["value"].removeprefix("\n").removesuffix("\n")
                if typed:
                    arguments[found["key"]] = value if found["kind"] == "true" else json.loads(value)
                else:
                    arguments[found["key"]] = _Text(value)
            leftover = re.sub(parameter, "", match["body"], flags=re.DOTALL).strip()
            if leftover:
                raise Malformed(f"{leftover[:60]!r} stands between the parameters")
            yield match["name"].strip(), arguments, ""

    return read


def _pythonic(text: str) -> Iterator[Found]:
    body = re.sub(
        r"<\|(?:tool_call_start|tool_call_end|python_start|python_end|python_tag|im_end|eot|eom)\|>", "", text
    ).strip()
    tree = ast.parse(body, mode="eval").body
    for call in tree.elts if isinstance(tree, ast.List) else [tree]:
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name | ast.Attribute):
            raise Malformed("not a list of calls with named arguments")
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        yield ast.unparse(call.func), arguments, ""


def _llama(text: str) -> Iterator[Found]:
    """JSON, a list of Python calls, or one call of a built-in tool: ``brave_search.call(query="...")``."""
    body = re.split(r"<\|e[a-z_]*\|>", re.sub(r"<\|python_(?:tag|start|end)\|>", "", text))[0].strip()
    if re.match(r"\[?\s*\{", body):
        for value in _json_values(body):
            yield from entries(value)
        return
    for name, arguments, call_id in _pythonic(body):
        yield name.removesuffix(".call"), arguments, call_id


def _gemma(opening: str, quote: str, closing: str) -> Callable[[str], Iterator[Found]]:
    """``call:name{key:value}``, strings between marks of their own."""

    def read(text: str) -> Iterator[Found]:
        for piece in text.split(opening)[1:]:
            match = re.match(r"call:(?P<name>[\w.-]+)(?P<args>\{.*\})", piece.split(closing)[0], re.DOTALL)
            if match is None:
                raise Malformed("no call:name{...} behind the opening mark")
            parts = match["args"].split(quote)
            if len(parts) % 2 == 0:
                raise Malformed("a string is not closed")
            # Odd pieces are strings; in the even ones, what stands before a colon is a key.
            written = "".join(
                json.dumps(part) if at % 2 else re.sub(r"([{,]\s*)([\w.-]+)\s*:", r'\1"\2":', part)
                for at, part in enumerate(parts)
            )
            yield match["name"], written, ""

    return read


def _lines(opening: str, closing: str) -> Callable[[str], Iterator[Found]]:
    """Python calls between two marks, one a line."""

    def read(text: str) -> Iterator[Found]:
        for piece in re.split(opening, text)[1:]:
            body, closed, _ = piece.partition(closing)
            if not closed:
                raise Malformed(f"{closing} is missing")
            yield from _pythonic("[" + ",".join(line for line in body.splitlines() if line.strip()) + "]")

    return read


MARK = r"<\|?\w*(?:tool|function)_?calls?\w*\|?>"

FORMS: dict[str, tuple[str, Callable[[str], Iterator[Found]]]] = {
    "hermes": (r"<tool_call>", _blocks(r"<tool_call>", r"</tool_call>")),
    "granite": (r"<\|tool_call\|>|<tool_call>", _blocks(r"<\|tool_call\|>|<tool_call>", r"</tool_call>")),
    "phi4_mini": (r"<\|tool_call\|>|functools", _blocks(r"<\|tool_call\|>|functools", r"<\|/tool_call\|>")),
    "nemotron": (r"<TOOLCALL>", _blocks(r"<TOOLCALL>", r"</TOOLCALL>")),
    "hunyuan": (r"<tool_calls>", _blocks(r"<tool_calls>", r"</tool_calls>")),
    "cohere": (r"<\|START_ACTION\|>", _blocks(r"<\|START_ACTION\|>", r"<\|END_ACTION\|>")),
    "command_r": (r"Action:\s*```json", _blocks(r"Action:\s*```json", r"```")),
    "llama_json": (
        r"^\s*(?:<\|python_(?:tag|start)\|>\s*(?:\[?\w|\{)|\[?\s*\{\s*\"(?:name|type|function|parameters)\"|\[\w[\w.]*\()",
        _llama,
    ),
    "mistral": (r"\[TOOL_CALLS\]", _mistral),
    "kimi": (r"<\|tool_calls_section_begin\|>|<\|tool_call_begin\|>", _kimi),
    "deepseek_v3": (
        r"<｜tool▁calls▁begin｜>|<｜tool▁call▁begin｜>",
        _each(r"<｜tool▁call▁begin｜>\w*<｜tool▁sep｜>(?P<name>[^\n]+)\n```json\n(?P<args>.*?)\n```"),
    ),
    "deepseek_v31": (
        r"<｜tool▁calls▁begin｜>|<｜tool▁call▁begin｜>",
        _each(r"<｜tool▁call▁begin｜>(?P<name>.*?)<｜tool▁sep｜>(?P<args>.*?)(?:<｜tool▁call▁end｜>|$)"),
    ),
    "harmony": (
        r"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? ?to=functions\.",
        _each(r"to=functions\.(?P<name>[\w.-]+)[^{]*?<\|message\|>(?P<args>.*?)(?:<\|call\|>|<\|end\|>|$)"),
    ),
    "functionary": (r"<function=", _each(r"<function=(?P<name>[^>]+)>(?P<args>\{.*?\})\s*(?:</function>|$)")),
    "qwen_xml": (
        r"<tool_call>|<function=",
        _tagged(
            r"<function=(?P<name>[^>\n]+)>(?P<body>.*?)</function>",
            r"<parameter=(?P<key>[^>\n]+)>(?P<value>.*?)</parameter>",
        ),
    ),
    "seed": (
        r"<seed:tool_call>",
        _tagged(
            r"<function=(?P<name>[^>\n]+)>(?P<body>.*?)</function>",
            r"<parameter=(?P<key>[^>\n]+)>(?P<value>.*?)</parameter>",
        ),
    ),
    "minimax": (
        r"<\w+:(?:tool_call|function_calls)>",
        _tagged(
            r"<(?:\w+:)?invoke name=\"(?P<name>[^\"]+)\">(?P<body>.*?)</(?:\w+:)?invoke>",
            r"<(?:\w+:)?parameter name=\"(?P<key>[^\"]+)\">(?P<value>.*?)</(?:\w+:)?parameter>",
        ),
    ),
    "dsml": (
        r"<｜DSML｜(?:function_calls|tool_calls)>",
        _tagged(
            r"<｜DSML｜invoke name=\"(?P<name>[^\"]+)\">(?P<body>.*?)</｜DSML｜invoke>",
            r"<｜DSML｜parameter name=\"(?P<key>[^\"]+)\" string=\"(?P<kind>true|false)\">"
            r"(?P<value>.*?)</｜DSML｜parameter>",
            typed=True,
        ),
    ),
    "glm": (
        r"<(?:\w+_)?tool_call>",
        _tagged(
            r"<(?:\w+_)?tool_call>(?P<name>[^<\n]+)(?P<body>.*?)</(?:\w+_)?tool_call>",
            r"<(?:\w+_)?arg_key>(?P<key>.*?)</(?:\w+_)?arg_key>\s*"
            r"<(?:\w+_)?arg_value>(?P<value>.*?)</(?:\w+_)?arg_value>",
        ),
    ),
    "pythonic": (r"<\|tool_call_start\|>|<\|python_start\|>|^\s*\[\w[\w.]*\(", _pythonic),
    "gemma4": (r"<\|tool_call>", _gemma("<|tool_call>", '<|"|>', "<tool_call|>")),
    "functiongemma": (r"<start_function_call>", _gemma("<start_function_call>", "<escape>", "<end_function_call>")),
    "gigachat": (
        r"(?:<\|message_sep\|>\s*)?function call<\|role_sep\|>",
        _blocks(r"(?:<\|message_sep\|>\s*)?function call<\|role_sep\|>", r"<\|message_sep\|>"),
    ),
    "internlm": (r"<\|action_start\|>", _blocks(r"<\|action_start\|>\s*<\|plugin\|>", r"<\|action_end\|>")),
    "olmo": (r"<function_calls>", _lines(r"<function_calls>", r"</function_calls>")),
    # JSON behind any mark with the word for it: what no family above writes.
    "marked_json": (MARK, _blocks(MARK, r"<[|/]")),
}

"""The forms in which families write tool calls. A reader accounts for all of the text it is given."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from osport.formats.strict_json import STRICT

__all__ = ["CALL", "FORMS", "BareText", "Form", "Malformed", "entries"]

CALL = "\0"
"""Stands in the rest of a text where a call was taken out of its marks."""
Found = tuple[str, Any, str]
"""Name, arguments, and the id when the text holds one."""
Reader = Callable[[str], tuple[list[Found], str]]
"""The calls of a text that begins with one, and what is left of the text without them."""


class Malformed(Exception):
    """The text begins a call and does not write it as its family does."""


@frozen
class Form:
    """``begins``: where calls begin. ``around``: marks around calls that were taken out. ``opens``: what begins a
    call, where that is not ``begins``: none may be left over. ``begins_as_text``: an answer may begin likewise."""

    begins: str
    read: Reader
    around: str = CALL
    opens: str = ""
    begins_as_text: bool = False


class BareText(str):
    """A value that its form writes as bare text; only the schema tells whether it is a string."""

    def resolve(self, schema: Mapping[str, Any]) -> Any:
        """The value, by the type that the schema names."""
        kind = schema.get("type")
        if kind == "string":
            return str(self)
        try:
            value = STRICT.decode(self)
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
        held = [key for key in ("arguments", "parameters") if key in inner]
        unknown = set(inner) - {"name", "tool_name", "id", "tool_call_id", "type", "index", "function"}
        if not held and unknown:
            raise Malformed(f"a call of {name} has no arguments, but {', '.join(sorted(unknown))}")
        yield name, inner[held[0]] if held else {}, str(entry.get("id") or entry.get("tool_call_id") or "")


def _json_values(text: str, at: int = 0) -> tuple[list[Any], int]:
    """JSON values one behind the other, apart by space, commas or semicolons, and where they end."""
    values: list[Any] = []
    while match := re.compile(r"[\s;,]*(?=[{\[])").match(text, at):
        value, at = STRICT.raw_decode(text, match.end())
        values.append(value)
    return values, at


def _blocks(opening: str, closing: str) -> Reader:
    """JSON between two marks; the last mark may be missing where the engine stopped at it."""

    def read(text: str) -> tuple[list[Found], str]:
        calls: list[Found] = []
        rest, at = "", 0
        while match := re.compile(opening).search(text, at):
            rest += text[at : match.start()]
            values, at = _json_values(text, match.end())
            if not values:
                raise Malformed("no JSON behind the opening mark")
            for value in values:
                calls += entries(value)
            following = re.compile(opening).search(text, at)
            ends = re.compile(closing).search(text, at, following.start() if following else len(text))
            if ends:
                if between := text[at : ends.start()].strip():
                    raise Malformed(f"{between[:60]!r} stands behind the JSON of a call")
                at = ends.end()
        return calls, rest + text[at:]

    return read


def _each(pattern: str) -> Reader:
    """One match a call, with groups ``name``, ``args`` and perhaps ``id``."""

    def read(text: str) -> tuple[list[Found], str]:
        calls: list[Found] = []

        def take(match: re.Match[str]) -> str:
            groups = match.groupdict()
            calls.append((groups["name"].strip(), groups["args"], groups.get("id") or ""))
            return CALL

        return calls, re.sub(pattern, take, text, flags=re.DOTALL)

    return read


def _mistral(text: str) -> tuple[list[Found], str]:
    calls: list[Found] = []
    rest, at = "", 0
    while match := re.compile(r"\[TOOL_CALLS\]\s*").search(text, at):
        rest += text[at : match.start()]
        named = re.compile(r"(?P<name>[^\[{\s][^\[{]*)(?:\[CALL_ID\](?P<id>[^\[]+))?(?:\[ARGS\])?\s*(?=\{)").match(
            text, match.end()
        )
        values, at = _json_values(text, named.end() if named else match.end())
        if not values or (named and len(values) > 1):
            raise Malformed("neither a list nor a name with arguments behind [TOOL_CALLS]")
        for value in values:
            calls += [(named["name"].strip(), value, (named["id"] or "").strip())] if named else entries(value)
    return calls, rest + text[at:]


def _kimi(text: str) -> tuple[list[Found], str]:
    pattern = (
        r"<\|tool_call_begin\|>(?P<name>)(?P<id>[^<]*)<\|tool_call_argument_begin\|>(?P<args>.*?)"
        r"(?:<\|tool_call_end\|>|$)"
    )
    calls, rest = _each(pattern)(text)
    ids = [call_id.strip() for _, _, call_id in calls]
    names = [call_id.removeprefix("functions.").rpartition(":")[0] or call_id for call_id in ids]
    return [(name, call[1], call_id) for name, call, call_id in zip(names, calls, ids, strict=True)], rest


def _tagged(function: str, parameter: str, *, typed: bool = False) -> Reader:
    """XML-like calls: a tag for the function (groups name, body), and one for each parameter (key, value)."""

    def read(text: str) -> tuple[list[Found], str]:
        calls: list[Found] = []

        def take(match: re.Match[str]) -> str:
            arguments: dict[str, Any] = {}
            for found in re.finditer(parameter, match["body"], re.DOTALL):
                value = found["value"].removeprefix("\n").removesuffix("\n")
                if found["key"] in arguments:
                    raise Malformed(f"the parameter {found['key']!r} stands twice in a call")
                if typed:
                    arguments[found["key"]] = value if found["kind"] == "true" else STRICT.decode(value)
                else:
                    arguments[found["key"]] = BareText(value)
            if leftover := re.sub(parameter, "", match["body"], flags=re.DOTALL).strip():
                raise Malformed(f"{leftover[:60]!r} stands between the parameters")
            calls.append((match["name"].strip(), arguments, ""))
            return CALL

        return calls, re.sub(function, take, text, flags=re.DOTALL)

    return read


def _pythonic(text: str) -> tuple[list[Found], str]:
    body = re.sub(
        r"<\|(?:tool_call_start|tool_call_end|python_start|python_end|python_tag|im_end|eot|eom)\|>", "", text
    ).strip()
    tree = ast.parse(body, mode="eval").body
    calls: list[Found] = []
    for call in tree.elts if isinstance(tree, ast.List) else [tree]:
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name | ast.Attribute):
            raise Malformed("not a list of calls with named arguments")
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if None in arguments or len(arguments) < len(call.keywords):
            raise Malformed("an argument has no name, or stands there twice")
        calls.append((ast.unparse(call.func), arguments, ""))
    return calls, ""


def _llama(text: str) -> tuple[list[Found], str]:
    """JSON, a list of Python calls, or one call of a built-in tool: ``brave_search.call(query="...")``."""
    written, *behind = re.split(r"<\|e[a-z_]*\|>", re.sub(r"<\|python_(?:tag|start|end)\|>", "", text))
    body = written.strip()
    if re.match(r"\[?\s*\{", body):
        values, end = _json_values(body)
        return [call for value in values for call in entries(value)], body[end:] + "".join(behind)
    calls, _ = _pythonic(body)
    return [(name.removesuffix(".call"), arguments, call_id) for name, arguments, call_id in calls], "".join(behind)


def _gemma(opening: str, quote: str, closing: str) -> Reader:
    """``call:name{key:value}``, strings between marks of their own."""

    def read(text: str) -> tuple[list[Found], str]:
        calls: list[Found] = []
        rest, *pieces = text.split(opening)
        for piece in pieces:
            written, _, behind = piece.partition(closing)
            match = re.fullmatch(r"call:(?P<name>[\w.-]+)(?P<args>\{.*\})\s*", written, re.DOTALL)
            if match is None:
                raise Malformed("no call:name{...} behind the opening mark")
            parts = match["args"].split(quote)
            if len(parts) % 2 == 0:
                raise Malformed("a string is not closed")
            # Odd pieces are strings; in the even ones, what stands before a colon is a key.
            arguments = "".join(
                json.dumps(part) if at % 2 else re.sub(r"([{,]\s*)([\w.-]+)\s*:", r'\1"\2":', part)
                for at, part in enumerate(parts)
            )
            calls.append((match["name"], arguments, ""))
            rest += behind
        return calls, rest

    return read


def _lines(opening: str, closing: str) -> Reader:
    """Python calls between two marks, one a line."""

    def read(text: str) -> tuple[list[Found], str]:
        calls: list[Found] = []
        rest, *pieces = re.split(opening, text)
        for piece in pieces:
            body, closed, behind = piece.partition(closing)
            if not closed:
                raise Malformed(f"{closing} is missing")
            calls += _pythonic("[" + ",".join(line for line in body.splitlines() if line.strip()) + "]")[0]
            rest += behind
        return calls, rest

    return read


def _between(opening: str, closing: str) -> str:
    """Calls that were taken out, with the marks around them; the last mark may be missing."""
    return rf"(?:{opening})?\s*{CALL}(?:\s*{CALL})*\s*(?:{closing})?"


MARK = r"<\|?\w*(?:tool|function)_?calls?\w*\|?>"
FUNCTION = r"<function=(?P<name>[^>\n]+)>(?P<body>.*?)</function>"
PARAMETER = r"<parameter=(?P<key>[^>\n]+)>(?P<value>.*?)</parameter>"
DEEPSEEK = _between("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")

FORMS: dict[str, Form] = {
    "hermes": Form(r"<tool_call>", _blocks(r"<tool_call>", r"</tool_call>")),
    "granite": Form(r"<\|tool_call\|>|<tool_call>", _blocks(r"<\|tool_call\|>|<tool_call>", r"</tool_call>")),
    "phi4_mini": Form(r"<\|tool_call\|>|functools", _blocks(r"<\|tool_call\|>|functools", r"<\|/tool_call\|>")),
    "nemotron": Form(r"<TOOLCALL>", _blocks(r"<TOOLCALL>", r"</TOOLCALL>")),
    "hunyuan": Form(r"<tool_calls>", _blocks(r"<tool_calls>", r"</tool_calls>")),
    "cohere": Form(r"<\|START_ACTION\|>", _blocks(r"<\|START_ACTION\|>", r"<\|END_ACTION\|>")),
    "command_r": Form(r"Action:\s*```json", _blocks(r"Action:\s*```json", r"```")),
    "llama_json": Form(
        r"^\s*(?:<\|python_(?:tag|start)\|>\s*(?:\[?\w|\{)|\[?\s*\{\s*\"(?:name|type|function|parameters)\"|\[\w[\w.]*\()",
        _llama,
        begins_as_text=True,
    ),
    "mistral": Form(r"\[TOOL_CALLS\]", _mistral),
    "kimi": Form(
        r"<\|tool_calls_section_begin\|>|<\|tool_call_begin\|>",
        _kimi,
        _between(r"<\|tool_calls_section_begin\|>", r"<\|tool_calls_section_end\|>"),
    ),
    "deepseek_v3": Form(
        r"<｜tool▁calls▁begin｜>|<｜tool▁call▁begin｜>",
        _each(
            r"<｜tool▁call▁begin｜>\w*<｜tool▁sep｜>(?P<name>[^\n<]+)\n```json\n(?P<args>.*?)\n```(?:\s*<｜tool▁call▁end｜>)?"
        ),
        DEEPSEEK,
    ),
    "deepseek_v31": Form(
        r"<｜tool▁calls▁begin｜>|<｜tool▁call▁begin｜>",
        _each(r"<｜tool▁call▁begin｜>(?P<name>[^<]*)<｜tool▁sep｜>(?P<args>.*?)(?:<｜tool▁call▁end｜>|$)"),
        DEEPSEEK,
    ),
    "harmony": Form(
        r"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? ?to=functions\.",
        _each(
            r"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? ?to=functions\.(?P<name>[\w.-]+)[^{]*?<\|message\|>"
            r"(?P<args>.*?)(?:<\|call\|>|<\|end\|>|$)"
        ),
    ),
    "functionary": Form(r"<function=", _each(r"<function=(?P<name>[^>]+)>(?P<args>\{.*?\})\s*(?:</function>|$)")),
    "qwen_xml": Form(r"<tool_call>|<function=", _tagged(FUNCTION, PARAMETER), _between("<tool_call>", "</tool_call>")),
    "seed": Form(
        r"<seed:tool_call>",
        _tagged(FUNCTION, PARAMETER),
        _between("<seed:tool_call>", "</seed:tool_call>"),
        r"<seed:tool_call>|<function=",
    ),
    "minimax": Form(
        r"<\w+:(?:tool_call|function_calls)>",
        _tagged(
            r"<(?:\w+:)?invoke name=\"(?P<name>[^\"]+)\">(?P<body>.*?)</(?:\w+:)?invoke>",
            r"<(?:\w+:)?parameter name=\"(?P<key>[^\"]+)\">(?P<value>.*?)</(?:\w+:)?parameter>",
        ),
        _between(r"<\w+:(?:tool_call|function_calls)>", r"</\w+:(?:tool_call|function_calls)>"),
        r"<\w+:(?:tool_call|function_calls)>|<(?:\w+:)?invoke\b",
    ),
    "dsml": Form(
        r"<｜DSML｜(?:function_calls|tool_calls)>",
        _tagged(
            r"<｜DSML｜invoke name=\"(?P<name>[^\"]+)\">(?P<body>.*?)</｜DSML｜invoke>",
            r"<｜DSML｜parameter name=\"(?P<key>[^\"]+)\" string=\"(?P<kind>true|false)\">"
            r"(?P<value>.*?)</｜DSML｜parameter>",
            typed=True,
        ),
        _between(r"<｜DSML｜(?:function_calls|tool_calls)>", r"</｜DSML｜(?:function_calls|tool_calls)>"),
        r"<｜DSML｜(?:function_calls|tool_calls)>|<｜DSML｜invoke",
    ),
    "glm": Form(
        r"<(?:\w+_)?tool_call>",
        _tagged(
            r"<(?:\w+_)?tool_call>(?P<name>[^<\n]+)(?P<body>.*?)</(?:\w+_)?tool_call>",
            r"<(?:\w+_)?arg_key>(?P<key>.*?)</(?:\w+_)?arg_key>\s*"
            r"<(?:\w+_)?arg_value>(?P<value>.*?)</(?:\w+_)?arg_value>",
        ),
    ),
    "pythonic": Form(r"<\|tool_call_start\|>|<\|python_start\|>|^\s*\[\w[\w.]*\(", _pythonic),
    "gemma4": Form(r"<\|tool_call>", _gemma("<|tool_call>", '<|"|>', "<tool_call|>")),
    "functiongemma": Form(r"<start_function_call>", _gemma("<start_function_call>", "<escape>", "<end_function_call>")),
    "gigachat": Form(
        r"(?:<\|message_sep\|>\s*)?function call<\|role_sep\|>",
        _blocks(r"(?:<\|message_sep\|>\s*)?function call<\|role_sep\|>", r"<\|message_sep\|>"),
    ),
    "internlm": Form(r"<\|action_start\|>", _blocks(r"<\|action_start\|>\s*<\|plugin\|>", r"<\|action_end\|>")),
    "olmo": Form(r"<function_calls>", _lines(r"<function_calls>", r"</function_calls>")),
    # JSON behind any mark with the word for it: what no family above writes.
    "marked_json": Form(MARK, _blocks(MARK, r"<[|/][^>]*>")),
}

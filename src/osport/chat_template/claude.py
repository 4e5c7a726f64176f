"""An Anthropic Messages request as a conversation of ours, with a word on everything that is not the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osport.chat_template.claude_blocks import Ledger, plain, system_text, turn_messages
from osport.chat_template.conversation import Conversation
from osport.core.types import Constraint, Message, Request, Sampling, Thinking, Tool
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["conversation_from_anthropic", "request_from_anthropic"]

SAMPLING_FIELDS = {
    "max_tokens": "max_tokens",
    "stop_sequences": "stop",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
}

# About the call, not about the question.
ABOUT_THE_CALL = {
    "model": "names the Claude model; whoever sends the request on names another",
    "stream": "chooses how the answer arrives; use Model.stream",
    "metadata": "never reaches the model",
    "service_tier": "chooses a queue at Anthropic",
    "inference_geo": "chooses a place at Anthropic",
    "betas": "switches features of the Claude API",
    "cache_control": "prompt caching is automatic in open engines",
}

# A caller who sets one of these relies on it; going on without it would be something else.
REFUSED = {
    "container": "code runs in a container at Anthropic",
    "mcp_servers": "the tools run at Anthropic",
    "context_management": "the Claude API edits the conversation by itself",
}

# Properties of a tool that change nothing in what the model is told.
TOOL_EXTRAS = {
    "cache_control": "prompt caching is automatic in open engines",
    "strict": "open engines enforce arguments by a constraint, not by a flag",
    "eager_input_streaming": "is about how the arguments arrive",
    "defer_loading": "the tool is offered from the start",
    "input_examples": "templates have no place for examples",
    "allowed_callers": "only the model calls tools here",
    "type": "",
}

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def request_from_anthropic(payload: Mapping[str, Any]) -> Request:
    """The request of :func:`conversation_from_anthropic`, for callers who have no template to adapt it to.

    Raises :class:`~osport.errors.UnsupportedFeature` and :class:`~osport.errors.UsageError` like that function.
    """
    return conversation_from_anthropic(payload).request()


def conversation_from_anthropic(payload: Mapping[str, Any]) -> Conversation:
    """Translate the body of a Messages call; see :meth:`Conversation.from_anthropic`."""
    payload = plain(payload)
    if not isinstance(payload, Mapping):
        raise UsageError(f"expected the body of a Messages request (a mapping), got {type(payload).__name__}")
    ledger = Ledger()
    known = {"system", "messages", "tools", "tool_choice", "thinking", "output_config", "output_format"}
    for name in payload:
        if name in REFUSED:
            raise UnsupportedFeature(f"the field {name!r} of a Claude request", "an open model", reason=REFUSED[name])
        if name in ABOUT_THE_CALL:
            ledger.note(name, ABOUT_THE_CALL[name], "left to the new call")
        elif name not in known and name not in SAMPLING_FIELDS:
            raise UnsupportedFeature(
                f"the field {name!r} of a Claude request", "an open model", reason="osport does not know this field"
            )
    messages = _messages(payload.get("messages"), ledger)
    if payload.get("system"):
        messages.insert(0, Message.system(system_text(payload["system"], "system", ledger)))
    tools = _tools(payload.get("tools") or (), ledger)
    choice, parallel = _tool_choice(payload.get("tool_choice"), tools)
    output = payload.get("output_config") or {}
    if not isinstance(output, Mapping):
        raise UsageError(f"output_config: expected an object, got {type(output).__name__}")
    return Conversation(
        messages,
        tools=tools,
        tool_choice=choice,
        parallel_tools=parallel,
        thinking=_thinking(payload.get("thinking"), output, ledger),
        sampling=Sampling(
            **{ours: payload[theirs] for theirs, ours in SAMPLING_FIELDS.items() if payload.get(theirs) is not None}
        ),
        constraint=_constraint(output, payload.get("output_format")),
        losses=tuple(ledger.losses),
    )


def _messages(turns: object, ledger: Ledger) -> list[Message]:
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise UsageError("messages: expected a list of at least one turn")
    found: list[Message] = []
    calls: dict[str, str] = {}
    for index, turn in enumerate(turns):
        where = f"messages[{index}]"
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise UsageError(f"{where}: expected an object with role and content")
        if surplus := sorted(set(turn) - {"role", "content", "cache_control"}):
            raise UnsupportedFeature(f"{surplus[0]!r} at {where}", "an open model", reason="osport does not know it")
        if "cache_control" in turn:
            ledger.caching()
        for message in turn_messages(turn["role"], turn["content"], where, ledger, calls):
            if found and _mergeable(found[-1], message):
                ledger.note(where, f"a second {message.role} turn in a row", "merged into one, as the Claude API does")
                found[-1] = _merged(found[-1], message)
            else:
                found.append(message)
    return found


def _mergeable(first: Message, second: Message) -> bool:
    return first.role == second.role and first.role in ("user", "assistant") and not first.tool_calls


def _merged(first: Message, second: Message) -> Message:
    return Message(
        first.role,
        "\n".join(text for text in (first.content, second.content) if text),
        (*first.tool_calls, *second.tool_calls),
        reasoning="\n".join(text for text in (first.reasoning, second.reasoning) if text) or None,
        images=(*first.images, *second.images),
    )


def _tools(tools: object, ledger: Ledger) -> list[Tool]:
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise UsageError("tools: expected a list")
    found = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
            raise UsageError(f"{where}: expected a tool with a name")
        if tool.get("type") not in (None, "custom"):
            raise UnsupportedFeature(
                f"the server tool {tool['type']!r} at {where}",
                "an open model",
                reason="it runs at Anthropic; offer a tool of your own",
            )
        schema = tool.get("input_schema")
        if not isinstance(schema, Mapping):
            raise UsageError(f"{where}: input_schema must be a JSON Schema object")
        for extra in sorted(set(tool) - {"name", "description", "input_schema"}):
            if extra not in TOOL_EXTRAS or (extra == "allowed_callers" and tool[extra] != ["direct"]):
                raise UnsupportedFeature(f"{extra!r} at {where}", "an open model", reason="osport does not know it")
            if extra == "cache_control":
                ledger.caching()
            elif TOOL_EXTRAS[extra]:
                ledger.note(f"{where}.{extra}", TOOL_EXTRAS[extra], "left out")
        found.append(Tool(tool["name"], tool.get("description") or "", schema))
    return found


def _tool_choice(choice: object, tools: Sequence[Tool]) -> tuple[str, bool]:
    if choice is None:
        return "auto", True
    if not isinstance(choice, Mapping) or not isinstance(choice.get("type"), str):
        raise UsageError("tool_choice: expected an object with a type")
    if surplus := sorted(set(choice) - {"type", "name", "disable_parallel_tool_use"}):
        raise UnsupportedFeature(f"{surplus[0]!r} at tool_choice", "an open model")
    parallel = not choice.get("disable_parallel_tool_use", False)
    if choice["type"] == "tool":
        if choice.get("name") not in {tool.name for tool in tools}:
            raise UsageError(f"tool_choice: no tool is named {choice.get('name')!r}")
        if choice["name"] in CHOICES.values():
            raise UsageError(f"tool_choice: {choice['name']!r} is a way to choose tools; give the tool another name")
        return str(choice["name"]), parallel
    if choice["type"] not in CHOICES:
        raise UsageError(f"tool_choice: unknown type {choice['type']!r}; known: auto, any, tool, none")
    return CHOICES[choice["type"]], parallel


def _thinking(thinking: object, output: Mapping[str, Any], ledger: Ledger) -> Thinking:
    effort = output.get("effort")
    if thinking is None:
        if effort is not None:
            ledger.note("output_config.effort", "without thinking it only asks for shorter answers", "left out")
        return None  # Claude does not think unless asked; adapt() switches an open model that does
    if not isinstance(thinking, Mapping) or "type" not in thinking:
        raise UsageError("thinking: expected an object with a type")
    if surplus := sorted(set(thinking) - {"type", "budget_tokens", "display"}):
        raise UnsupportedFeature(f"{surplus[0]!r} at thinking", "an open model")
    if "display" in thinking:
        ledger.note("thinking.display", "open models show their reasoning", "Completion.reasoning holds it")
    kind = thinking["type"]
    if kind == "disabled":
        return False
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int):
            raise UsageError("thinking.budget_tokens: expected a number of tokens")
        return budget
    if kind not in ("adaptive", "between_tools"):
        raise UsageError(f"thinking: unknown type {kind!r}; known: enabled, disabled, adaptive, between_tools")
    ledger.note("thinking.type", f"{kind} lets Claude decide when to think", "thinking is on in every turn")
    return effort if isinstance(effort, str) else True


def _constraint(output: Mapping[str, Any], older: object) -> Constraint | None:
    if surplus := sorted(set(output) - {"effort", "format"}):
        raise UnsupportedFeature(f"{surplus[0]!r} at output_config", "an open model", reason="osport does not know it")
    wanted = output.get("format") or older
    if wanted is None:
        return None
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        raise UnsupportedFeature("an output format other than json_schema", "an open model")
    schema = wanted.get("schema")
    if not isinstance(schema, Mapping):
        raise UsageError("output_config.format.schema: expected a JSON Schema object")
    return Constraint("json_schema", schema)

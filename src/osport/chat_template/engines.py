"""Where another engine would build a different prompt from the same template, and by which names it takes the switches.

Rendering elsewhere is a check, never a path: osport sends the text that it rendered itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from osport.chat_template import renderer
from osport.chat_template.report import Finding
from osport.core.types import Thinking
from osport.errors import TemplateError, UnsupportedFeature

if TYPE_CHECKING:
    from osport.chat_template.template import ChatTemplate

__all__ = ["Engine", "predict", "switches"]

Engine = Literal["llama.cpp", "vllm", "ollama"]

# Texts by which llama.cpp recognises two published templates that it treats in a way of their own (common/chat.cpp).
TRIMMED = "You have access to the following functions in JSONSchema format"
ESCAPE = "&(?:#3[49]|lt|gt|amp);"
FOLDED = "'<|tool_call>call:'"


def predict(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    thinking: Thinking,
) -> Iterator[Finding]:
    """Notes on what llama.cpp, vLLM and Ollama would do differently with this request."""
    try:
        read = renderer.variables(template.text)
        yield from _llama_cpp(template, messages, tools, thinking, read)
        yield from _vllm(template, thinking, read)
    except TemplateError:
        return
    if template.text.count("<|im_start|>") and len(template.text) < 600:
        yield Finding(
            "note",
            "ollama-template",
            "template",
            "Ollama takes a short ChatML template for its own and swaps it: default system text and tools are lost",
            "ChatTemplate.against_ollama asks a server",
        )


def _llama_cpp(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    thinking: Thinking,
    read: frozenset[str],
) -> Iterator[Finding]:
    def note(message: str, fix: str = "") -> Finding:
        return Finding("note", "llama.cpp-differs", "template", message, fix)

    if thinking is None and "enable_thinking" in read:
        write = functools.partial(_try, template, messages, tools)
        if write() != write(enable_thinking=True):
            yield note("llama.cpp thinks unless told not to", "pass thinking=True or thinking=False")
    if "strftime_now" in read or {"date_string", "datetime"} & read:
        yield note("llama.cpp prints today's date; osport prints a pinned one", "pass now= to ChatTemplate")
    roles = [message.get("role") for message in messages]
    capabilities = template.capabilities
    if "system" in roles and capabilities.system in ("refused", "dropped"):
        yield note("llama.cpp puts the system prompt in front of the next turn, because the template keeps none")
    if roles[-1] == "assistant" and capabilities.thinking.kind == "variable" and thinking is not False:
        yield note("llama.cpp refuses a prefill while thinking is on", "pass thinking=False")
    if roles[-1] == "assistant":
        through = _try(template, messages, tools, add_generation_prompt=False, continue_final=True)
        if through is None or not capabilities.opening or through != _behind_the_opening(template, messages, tools):
            yield note("llama.cpp writes a prefill behind the opening of the answer, not through the template")
        elif (template.writing.reasoning and template.writing.name != "ChatML") or template.writing.calls == "kimi":
            yield note("llama.cpp may put an empty pair of reasoning marks in front of a prefill")
    text = _try(template, messages, tools)
    if text is None:
        yield note("llama.cpp's own engine may render what Jinja refuses (it lets None be iterated, for one)")
    if capabilities.form.content == "parts":
        yield note("llama.cpp gives parts to a template that takes only parts")
    if any(message.get("reasoning_content") for message in messages) and "'thinking'" in template.text:
        yield note("llama.cpp hands the reasoning of earlier turns over as a part of its own")
    if TRIMMED in template.text and any(str(m.get("content")) != str(m.get("content")).strip() for m in messages):
        yield note("llama.cpp strips the space around every text before it renders this template")
    if any(message.get("tool_calls") for message in messages):
        if capabilities.tool_calls != "kept":
            yield note("llama.cpp has its own way of writing tool calls for a template that keeps none")
        if FOLDED in template.text:
            yield note("llama.cpp folds tool results into the turn of the call before it renders this template")
    if text is not None and text != _try(template, [_without_name(message) for message in messages], tools):
        yield note("llama.cpp is told the id of a tool result, not the name of the tool")
    if text is not None and len(re.findall(ESCAPE, text)) > len(re.findall(ESCAPE, str([messages, tools]))):
        yield note("llama.cpp's own engine does not escape for HTML where Jinja does")
    if any(not isinstance(message.get("content", ""), str) for message in messages):
        yield note("llama.cpp joins the parts of a turn with a line break where the template takes text")


def _behind_the_opening(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Any) -> str | None:
    opened = _try(template, messages[:-1], tools)
    content = messages[-1].get("content")
    return None if opened is None or not isinstance(content, str) else opened + content


def _without_name(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "name" or message.get("role") != "tool"}


def _vllm(template: ChatTemplate, thinking: Thinking, read: frozenset[str]) -> Iterator[Finding]:
    try:
        given, _ = template.capabilities.thinking.settings(thinking)
    except UnsupportedFeature:
        return
    for name in sorted(set(given) - read):
        yield Finding("note", "vllm-differs", "template", f"vLLM drops the variable {name} in silence")


def _try(template: ChatTemplate, messages: Any, tools: Any, **variables: Any) -> str | None:
    try:
        return template._write(messages, tools, **variables)
    except TemplateError:
        return None


def switches(template: ChatTemplate, thinking: Thinking, engine: Engine) -> dict[str, Any]:
    """The fields of a chat request that bring this way of thinking about, by the server's own names.

    Raises :class:`~osport.errors.UnsupportedFeature` for what template or server cannot do.
    """
    if thinking is None:
        return {}
    if engine == "ollama":
        if isinstance(thinking, int) and not isinstance(thinking, bool):
            raise UnsupportedFeature("a thinking budget", "ollama")
        return {"think": thinking}
    variables, word = template.capabilities.thinking.settings(thinking)
    if word:
        raise UnsupportedFeature(f"the word {word}", engine, reason="it belongs into the text of a message")
    fields: dict[str, Any] = {"chat_template_kwargs": variables} if variables else {}
    if isinstance(thinking, int) and not isinstance(thinking, bool):
        fields["thinking_budget_tokens" if engine == "llama.cpp" else "thinking_token_budget"] = thinking
    return fields

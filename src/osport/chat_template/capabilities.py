"""What one template can carry, found out by asking it: small renders with a canary in every part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

from osport.chat_template import canary
from osport.chat_template.conversation import Form, written
from osport.chat_template.planting import plant
from osport.chat_template.thinking import ThinkingSwitch, find_switch
from osport.core.types import Message, ToolCall
from osport.errors import TemplateError

__all__ = ["Fate", "TemplateCapabilities", "probe"]

Fate = Literal["kept", "dropped", "refused", "altered"]
Render = Callable[..., str]

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@frozen
class TemplateCapabilities:
    """What happens to each kind of part; ``kept`` means: comes out once, unescaped, where it belongs.

    ``form``: how a conversation must be written to survive. ``ids``: the shape of call ids that the template
    takes, ``any``, ``9 alphanumerics`` or ``functions.NAME:INDEX``. ``alternation``: whether two turns of one
    role in a row are kept. ``opening``: what ``add_generation_prompt`` adds, empty when the template ignores it.
    """

    system: Fate
    mid_system: Fate
    assistant_first: Fate
    alternation: Fate
    form: Form
    content_parts: Fate
    images: Fate
    tools: Fate
    tool_calls: Fate
    tool_results: Fate
    text_with_calls: Fate
    parallel_calls: Fate
    ids: str
    thinking: ThinkingSwitch
    reasoning_history: Fate
    prefill: bool
    opening: str

    @property
    def tool_use(self) -> bool:
        """Whether schemas, calls and results all survive."""
        return self.tools == self.tool_calls == self.tool_results == "kept"


def probe(source: str, render: Render, ids_of_family: str = "") -> TemplateCapabilities:
    """Probe a template by some twenty renders. A template that renders nothing at all is still described."""
    ask = _Probe(render)
    content: Literal["text", "parts"] = "text"
    if ask([_user("one")]) == "dropped" and ask([_user([{"type": "text", "text": "one"}])]) == "kept":
        content = "parts"
        ask.as_parts = True
    form, call_id = _working_call(ask, content, KIMI_ID if ids_of_family.startswith("functions.") else CLAUDE_ID)
    call = _call(form, call_id)
    exchange = [_user("one"), call, _result("three", call_id)]
    ids = ids_of_family or ("9 alphanumerics" if call_id == SHORT_ID else "any")
    calls = ask(exchange, tools=[TOOL], about="call")
    beside = [_user("one"), {**call, "content": "two"}, _result("three", call_id)]
    return TemplateCapabilities(
        system=ask([_system("zero"), _user("one")], about="system"),
        mid_system=ask([_user("one"), _assistant("two"), _system("three"), _user("four")], about="system"),
        assistant_first=ask([_assistant("one"), _user("two")]),
        alternation=ask([_user("one"), _user("two")]),
        form=form,
        content_parts=ask([_user([{"type": "text", "text": "one"}])]),
        images=ask.images(),
        tools=ask([_user("one")], tools=[TOOL], about="tool"),
        tool_calls=calls,
        tool_results=ask(exchange, tools=[TOOL], about="result"),
        text_with_calls=ask(beside, tools=[TOOL], about="beside") if calls == "kept" else calls,
        parallel_calls=ask.parallel(call, call_id) if calls == "kept" else calls,
        ids=ids,
        thinking=find_switch(source, lambda **given: ask.text([_user("one")], **given)),
        reasoning_history=ask(
            [_user("one"), {**call, "reasoning_content": "hm"}, _result("three", call_id)],
            tools=[TOOL],
            about="reasoning",
        ),
        prefill=ask.prefill(),
        opening=ask.opening(),
    )


KIMI_ID = "functions.weather:0"
CLAUDE_ID = "toolu_01A09q90qw90lq917835lq9"
SHORT_ID = "a1B2c3D4e"

ABOUT = {
    "system": ("messages", ("system",)),
    "tool": ("tools", ("tool_name", "tool_text", "property")),
    "call": ("tool_calls", ("call_name", "argument", "argument_key")),
    "result": ("messages", ("tool_result",)),
    "beside": ("messages", ("assistant",)),
    "reasoning": ("messages", ("reasoning",)),
    "": ("", ()),
}


class _Probe:
    def __init__(self, render: Render) -> None:
        self._render = render
        self.as_parts = False

    def text(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> str | None:
        try:
            return self._render(self._formed(messages), **given)
        except TemplateError:
            return None

    def __call__(
        self, messages: Sequence[dict[str, Any]], *, tools: Sequence[dict[str, Any]] | None = None, about: str = ""
    ) -> Fate:
        planted, planted_tools, parts = plant(self._formed(messages), tools)
        kinds = ABOUT[about][1]
        try:
            text = self._render(planted, tools=planted_tools)
        except TemplateError:
            return "refused"
        watched = [
            p for p in parts if (not kinds or p.kind in kinds) and (p.kind == "property" or ".parameters" not in p.path)
        ]
        if any(part.first not in text for part in watched):
            return "dropped"
        findings = canary.compare(parts, text, planted, planted_tools)
        paths = {part.path for part in watched}
        broken = any(f.severity == "error" and (f.place in paths or f.rule == "html-escaped") for f in findings)
        return "altered" if broken else "kept"

    def _formed(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if not self.as_parts:
            return [dict(message) for message in messages]
        return [
            {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m.get("content"), str) else dict(m)
            for m in messages
        ]

    def images(self) -> Fate:
        url = "https://example.org/kq-image.png"
        image = {"type": "image", "image": url, "image_url": {"url": url}}
        with_image = self.text([_user([image, {"type": "text", "text": "one"}])])
        without = self.text([_user([{"type": "text", "text": "one"}])])
        if with_image is None:
            return "refused"
        if with_image == without:
            return "dropped"
        return "altered" if "[{'" in with_image else "kept"

    def parallel(self, call: dict[str, Any], call_id: str) -> Fate:
        second_id = "functions.weather:1" if call_id == KIMI_ID else call_id[:-1] + "f"
        second = {**call["tool_calls"][0], "id": second_id}
        both = {**call, "tool_calls": [call["tool_calls"][0], second]}
        turns = [_user("one"), both, _result("three", call_id), _result("four", second_id)]
        fates = {self(turns, tools=[TOOL], about=about) for about in ("call", "result")}
        return next((fate for fate in ("refused", "dropped", "altered") if fate in fates), "kept")

    def prefill(self) -> bool:
        text = self.text([_user("one"), _assistant("kqbegin")], add_generation_prompt=False, continue_final=True)
        return text is not None and text.endswith("kqbegin")

    def opening(self) -> str:
        closed = self.text([_user("one")], add_generation_prompt=False)
        opened = self.text([_user("one")], add_generation_prompt=True)
        if closed is None or opened is None or not opened.startswith(closed):
            return ""
        return opened[len(closed) :]


def _working_call(ask: _Probe, content: Literal["text", "parts"], usual_id: str) -> tuple[Form, str]:
    """A way of writing a tool call, and an id, with which it comes out whole; the plainest when none does."""
    for call_id in (usual_id, SHORT_ID):
        for empty in ("text", "absent", "null"):
            for arguments in ("object", "json"):
                form = Form(arguments, content, empty)
                turns = [_user("one"), _call(form, call_id), _result("three", call_id)]
                if ask(turns, tools=[TOOL], about="call") == "kept":
                    return form, call_id
    return Form(content=content), usual_id


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def _assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _call(form: Form, call_id: str) -> dict[str, Any]:
    message = Message.assistant("", tool_calls=[ToolCall(call_id, "weather", {"city": "Oslo"})])
    return written(message, form, {})


def _result(content: str, call_id: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id, "name": "weather"}

"""Content blocks of the Claude API: what each becomes in one of our messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from osport.chat_template.conversation import Loss
from osport.core.types import Message, ToolCall
from osport.errors import UnsupportedFeature, UsageError

__all__ = ["Ledger", "plain", "system_text", "turn_messages"]

SYSTEM_SEPARATOR = "\n\n"
BLOCK_SEPARATOR = "\n"
ERROR_MARK = "Error: "


@define
class Ledger:
    """Collects what could not be carried over, each thing once."""

    losses: list[Loss] = field(factory=list)

    def note(self, where: str, why: str, instead: str) -> None:
        """Write one entry; an entry that stands already is not repeated."""
        loss = Loss(where, why, instead)
        if loss not in self.losses:
            self.losses.append(loss)

    def caching(self) -> None:
        """``cache_control`` stands on many blocks; one entry says it for all."""
        self.note("cache_control", "marks a prefix to be cached", "left out; open engines cache prefixes by themselves")


def plain(value: Any) -> Any:
    """Dicts, lists and scalars from what the anthropic SDK takes: its models, its iterables, its NOT_GIVEN."""
    if isinstance(value, str | int | float | bool | type(None)):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if type(item).__name__ not in ("NotGiven", "Omit")}
    if callable(dump := getattr(value, "model_dump", None)):
        return plain(dump(exclude_none=True))
    if isinstance(value, Sequence) or hasattr(value, "__iter__"):
        return [plain(item) for item in value]
    raise UsageError(f"a Claude request holds JSON values, not {type(value).__name__}")


def system_text(content: object, where: str, ledger: Ledger) -> str:
    """The text of a system prompt; blocks are joined by a blank line."""
    return _joined(content, where, ledger, SYSTEM_SEPARATOR)


def turn_messages(role: object, content: object, where: str, ledger: Ledger, calls: dict[str, str]) -> list[Message]:
    """The messages that one turn becomes: tool results come first and each is a message of its own."""
    if role == "system":
        return [Message.system(system_text(content, where, ledger))]
    if role not in ("user", "assistant"):
        raise UnsupportedFeature(
            f"the role {role!r} at {where}", "an open model", reason="expected user, assistant or system"
        )
    if isinstance(content, str):
        return [Message(role, content)]
    turn = _Turn(role, where, ledger, calls)
    for index, block in enumerate(_blocks(content, f"{where}.content")):
        turn.take(block, f"{where}.content[{index}]")
    return turn.messages()


def _blocks(content: object, where: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise UsageError(f"{where}: expected a string or a list of blocks, got {type(content).__name__}")
    for index, block in enumerate(content):
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            raise UsageError(f"{where}[{index}]: expected a block with a type")
    return content


def _joined(content: object, where: str, ledger: Ledger, separator: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for index, block in enumerate(_blocks(content, where)):
        if block["type"] != "text":
            raise _refused(block, f"{where}[{index}]")
        texts.append(_text(block, f"{where}[{index}]", ledger))
    if len(texts) > 1:
        ledger.note(
            where,
            "several text blocks",
            f"joined by {'a blank line' if separator == SYSTEM_SEPARATOR else 'a line break'}",
        )
    return separator.join(texts)


def _text(block: Mapping[str, Any], where: str, ledger: Ledger) -> str:
    _only(block, where, ledger, {"text"}, {"citations": "points into documents that the model does not get as such"})
    if not isinstance(block.get("text"), str):
        raise UsageError(f"{where}: a text block needs a text")
    return str(block["text"])


def _only(
    block: Mapping[str, Any], where: str, ledger: Ledger, known: set[str], lost: Mapping[str, str] | None = None
) -> None:
    for name in sorted(set(block) - known - {"type"}):
        if name == "cache_control":
            ledger.caching()
        elif lost and name in lost:
            if block[name]:
                ledger.note(f"{where}.{name}", lost[name], "left out")
        else:
            raise UnsupportedFeature(f"{name!r} at {where}", "an open model", reason="osport does not know it")


def _refused(
    block: Mapping[str, Any], where: str, reason: str = "templates have no place for it"
) -> UnsupportedFeature:
    return UnsupportedFeature(f"the block type {block['type']!r} at {where}", "an open model", reason=reason)


def _image(block: Mapping[str, Any], where: str, ledger: Ledger) -> str:
    _only(block, where, ledger, {"source"})
    source = block.get("source")
    if not isinstance(source, Mapping):
        raise UsageError(f"{where}: an image needs a source")
    if source.get("type") == "base64" and isinstance(source.get("data"), str):
        return f"data:{source.get('media_type', 'image/png')};base64,{source['data']}"
    if source.get("type") == "url" and isinstance(source.get("url"), str):
        return str(source["url"])
    raise _refused(block, where, f"an image source of type {source.get('type')!r} lies at Anthropic")


def _document(block: Mapping[str, Any], where: str, ledger: Ledger) -> str:
    """Documents and search results as text between tags, as Claude's own guides write them."""
    if block["type"] == "search_result":
        _only(
            block,
            where,
            ledger,
            {"source", "title", "content"},
            {"citations": "asks for citations, which templates do not have"},
        )
        body = _joined(block.get("content"), f"{where}.content", ledger, BLOCK_SEPARATOR)
        tag, named = "search_result", {"source": block.get("source"), "title": block.get("title")}
    else:
        _only(
            block,
            where,
            ledger,
            {"source", "title", "context"},
            {"citations": "asks for citations, which templates do not have"},
        )
        source = block.get("source")
        if not isinstance(source, Mapping):
            raise UsageError(f"{where}: a document needs a source")
        if source.get("type") == "text" and isinstance(source.get("data"), str):
            body = source["data"]
        elif source.get("type") == "content":
            body = _joined(source.get("content"), f"{where}.source.content", ledger, BLOCK_SEPARATOR)
        else:
            raise _refused(block, where, f"a source of type {source.get('type')!r} is no text; extract its text first")
        tag, named = "document", {"title": block.get("title")}
        if block.get("context"):
            body = f"{block['context']}\n{body}"
    ledger.note(where, f"templates have no {tag} blocks", f"written into the turn between <{tag}> tags")
    heading = "".join(f' {name}="{value}"' for name, value in named.items() if value)
    return f"<{tag}{heading}>\n{body}\n</{tag}>"


class _Turn:
    """Collects the blocks of one turn."""

    def __init__(self, role: Any, where: str, ledger: Ledger, calls: dict[str, str]) -> None:
        self.role, self.where, self.ledger, self.known_calls = role, where, ledger, calls
        self.texts: list[str] = []
        self.images: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.results: list[Message] = []
        self.moved_images: list[str] = []

    def take(self, block: Mapping[str, Any], where: str) -> None:
        """Add one block. Raises for a block that no open model could be given."""
        kind = block["type"]
        if kind == "text":
            if self.calls:
                self.ledger.note(
                    where, "text behind a tool call", "moved in front of the call; templates write it there"
                )
            self.texts.append(_text(block, where, self.ledger))
        elif kind == "image" and self.role == "user":
            if self.texts:
                self.ledger.note(where, "an image behind text", "moved in front of the text of the turn")
            self.images.append(_image(block, where, self.ledger))
        elif kind in ("document", "search_result") and self.role == "user":
            self.texts.append(_document(block, where, self.ledger))
        elif kind == "tool_use" and self.role == "assistant":
            self._call(block, where)
        elif kind == "tool_result" and self.role == "user":
            self._result(block, where)
        elif kind == "thinking" and self.role == "assistant":
            if self.texts or self.calls:
                self.ledger.note(where, "thinking behind other blocks", "moved in front of them")
            _only(block, where, self.ledger, {"thinking"}, {"signature": "only the Claude API can check it"})
            self.reasoning.append(str(block.get("thinking") or ""))
        elif kind == "redacted_thinking" and self.role == "assistant":
            self.ledger.note(where, "only the Claude API can read redacted thinking", "left out")
        else:
            raise _refused(block, where)

    def _call(self, block: Mapping[str, Any], where: str) -> None:
        _only(block, where, self.ledger, {"id", "name", "input"}, {"caller": "only the model calls tools here"})
        if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
            raise UsageError(f"{where}: a tool_use block needs an id and a name")
        arguments = block.get("input", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError as error:
                raise UsageError(f"{where}: input is no JSON: {error}") from None
        if not isinstance(arguments, Mapping):
            raise UsageError(f"{where}: input must be a JSON object")
        self.known_calls[block["id"]] = block["name"]
        self.calls.append(ToolCall(block["id"], block["name"], arguments))

    def _result(self, block: Mapping[str, Any], where: str) -> None:
        _only(block, where, self.ledger, {"tool_use_id", "content", "is_error"})
        call_id = block.get("tool_use_id")
        if not isinstance(call_id, str) or call_id not in self.known_calls:
            raise UsageError(f"{where}: the tool result {call_id!r} answers no tool_use block before it")
        if self.texts or self.images:
            self.ledger.note(
                where, "a tool result behind other blocks", "moved in front of them; it answers the turn before"
            )
        texts = []
        content = block.get("content") or ""
        for index, inner in enumerate(
            [{"type": "text", "text": content}] if isinstance(content, str) else _blocks(content, f"{where}.content")
        ):
            here = f"{where}.content[{index}]"
            if inner["type"] == "text":
                texts.append(_text(inner, here, self.ledger))
            elif inner["type"] == "image":
                self.ledger.note(here, "templates take only text as a tool result", "the image follows in a user turn")
                self.moved_images.append(_image(inner, here, self.ledger))
            elif inner["type"] in ("document", "search_result"):
                texts.append(_document(inner, here, self.ledger))
            else:
                raise _refused(inner, here)
        text = BLOCK_SEPARATOR.join(texts)
        if block.get("is_error"):
            self.ledger.note(
                f"{where}.is_error",
                "templates have no mark for a failed tool",
                f"the result begins with {ERROR_MARK!r}",
            )
            text = ERROR_MARK + text
        self.results.append(Message.tool(text, tool_call_id=str(call_id)))

    def messages(self) -> list[Message]:
        """The turn as our messages. Raises UsageError for a turn with nothing in it."""
        if len(self.texts) > 1:
            self.ledger.note(self.where, "several text blocks", "joined by a line break")
        text = BLOCK_SEPARATOR.join(self.texts)
        own: list[Message] = []
        images = (*self.moved_images, *self.images)
        reasoning = BLOCK_SEPARATOR.join(self.reasoning) or None
        if text or images or self.calls or reasoning:
            own = [Message(self.role, text, tuple(self.calls), reasoning=reasoning, images=images)]
        if not own and not self.results:
            raise UsageError(f"{self.where}: the turn has no content that could be carried over")
        return [*self.results, *own]

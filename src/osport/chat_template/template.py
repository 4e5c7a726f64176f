"""ChatTemplate: messages in, the exact text that the model was trained on out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from osport.chat_template import renderer
from osport.chat_template.sources import TemplateSource, read_gguf, read_hf
from osport.core.capabilities import Capabilities
from osport.core.stage import Stage
from osport.core.types import Message, Request
from osport.errors import UsageError

__all__ = ["PINNED_NOW", "ChatTemplate", "Rendered"]

PINNED_NOW = datetime(2026, 1, 1, 12)
"""The clock that templates see by default: some print the date, and a prompt must not change overnight."""


@frozen
class Rendered:
    """What one render gave: ``text`` is the whole prompt, special tokens written out."""

    text: str


@frozen
class ChatTemplate(Stage):
    """The official chat template of one model, rendered in transformers' sandbox.

    ``text`` is the Jinja source, ``tokens`` the special tokens that it may print (``bos_token``, ...),
    ``source`` where both were read, ``adds_bos`` whether the tokenizer puts BOS before a plain text
    prompt by itself, ``now`` the clock that the template sees. A model without a template is a
    :class:`~osport.errors.TemplateError`; osport has no template of its own to fall back to.

    >>> template = ChatTemplate.from_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    >>> template.render([Message.user("Hello")]).text
    '<user>Hello'
    """

    text: str = field(repr=False)
    tokens: Mapping[str, str] = field(factory=dict)
    source: str = "text"
    adds_bos: bool = False
    now: datetime = PINNED_NOW

    @classmethod
    def from_gguf(cls, path: str | Path, *, name: str | None = None, now: datetime = PINNED_NOW) -> ChatTemplate:
        """The template in the header of a GGUF file; ``name`` picks one of several (``tool_use``, ``rag``).

        Raises :class:`~osport.errors.TemplateError` when the file has none.
        """
        return cls._of(read_gguf(path), name, now)

    @classmethod
    def from_hf(cls, folder: str | Path, *, name: str | None = None, now: datetime = PINNED_NOW) -> ChatTemplate:
        """The template of a Hugging Face tokenizer folder; ``name`` picks one of several.

        Raises :class:`~osport.errors.TemplateError` when the folder has none.
        """
        return cls._of(read_hf(folder), name, now)

    @classmethod
    def from_text(
        cls,
        jinja: str,
        *,
        tokens: Mapping[str, str] | None = None,
        adds_bos: bool = False,
        now: datetime = PINNED_NOW,
    ) -> ChatTemplate:
        """A template given as Jinja text, with the special tokens that it may print."""
        return cls(jinja, dict(tokens or {}), adds_bos=adds_bos, now=now)

    @classmethod
    def _of(cls, source: TemplateSource, name: str | None, now: datetime) -> ChatTemplate:
        return cls(source.pick(name), source.tokens, source.origin, source.adds_bos, now)

    @property
    def hash(self) -> str:
        """SHA-256 of the template text, in hexadecimal."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> Rendered:
        """Render a conversation.

        ``add_generation_prompt`` opens the model's turn; ``continue_final`` leaves the last message
        open instead, so that the model continues it. Raises :class:`~osport.errors.TemplateError`
        naming line and cause when the template does not compile or refuses the conversation.
        """
        if not messages:
            raise UsageError("there is nothing to render: the conversation has no messages")
        render = renderer.compiled(self.text, self.now)
        text = render(
            [_as_dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt and not continue_final,
            continue_final=continue_final,
            **self.tokens,
        )
        return Rendered(text)

    def prepare(self, request: Request, capabilities: Capabilities) -> Request:
        """Turn messages into a raw prompt where the backend takes one; a trailing assistant message is a prefill.

        A backend that takes only messages applies the template of its own server, and gets them unchanged.
        """
        if not request.messages or not capabilities.raw_prompt:
            return request
        text = self.render(request.messages, continue_final=request.messages[-1].role == "assistant").text
        return evolve(request, messages=(), prompt=self._without_bos(text))

    def _without_bos(self, text: str) -> str:
        """An engine that puts BOS before every prompt would double the one that the template printed."""
        bos = self.tokens.get("bos_token")
        return text.removeprefix(bos) if bos and self.adds_bos else text


def _as_dict(message: Message) -> dict[str, Any]:
    """The form that chat templates are written for."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    return turn

"""ChatTemplate: messages in, the exact text that the model was trained on out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen

from osport.chat_template import audits, engines, ollama, renderer, stage
from osport.chat_template.answers import Answer, read_answer
from osport.chat_template.capabilities import TemplateCapabilities, probe
from osport.chat_template.control_tokens import own_tokens
from osport.chat_template.conversation import Conversation, Turns, is_plain, wire_messages, wire_tools
from osport.chat_template.families import Family, family_of
from osport.chat_template.report import Audit, Finding
from osport.chat_template.sources import TemplateSource, read_gguf, read_hf, read_server
from osport.chat_template.spans import Span, find_spans
from osport.chat_template.strings import holds_one_of, without
from osport.chat_template.thinking import place_of_word, thought_before
from osport.chat_template.token_ids import encode
from osport.chat_template.writing import read_writing
from osport.core.capabilities import Capabilities
from osport.core.stage import Stage
from osport.core.thought import Thought
from osport.core.types import Completion, Request, Thinking, Tool

__all__ = ["PINNED_NOW", "ChatTemplate", "Rendered"]

PINNED_NOW = datetime(2026, 1, 1, 12)
"""The clock that templates see by default: some print the date, and a prompt must not change overnight."""

Tools = Sequence[Tool | Mapping[str, Any]]


@frozen
class Rendered:
    """What one render gave: ``text`` is the whole prompt, special tokens written out."""

    text: str
    _spans: Callable[[], tuple[Span, ...]] = field(repr=False, eq=False, alias="spans")
    _encode: Callable[[str, tuple[Span, ...]], tuple[int, ...] | None] | None = field(
        default=None, repr=False, eq=False, alias="encode"
    )

    @functools.cached_property
    def spans(self) -> tuple[Span, ...]:
        """Which characters came from which part of the request; found by a second render when first asked for."""
        return self._spans()

    @functools.cached_property
    def token_ids(self) -> tuple[int, ...] | None:
        """The prompt as token ids; None when the template came without a tokenizer, or from a GGUF file with a
        vocabulary that the transformers at hand cannot rebuild.

        Control tokens inside what the caller wrote are encoded as plain text, so that nobody can forge a turn.
        Raises :class:`~osport.errors.TemplateError` for one that the template writes in a form in which it cannot
        be told from its own.
        """
        return None if self._encode is None else self._encode(self.text, self.spans)


@frozen
class ChatTemplate(Stage):
    """The official chat template of one model, rendered in transformers' sandbox.

    ``text`` is the Jinja source, ``tokens`` the special tokens that it may print (``bos_token``, ...),
    ``source`` where both were read, ``adds_bos`` whether the tokenizer puts BOS before a plain text
    prompt by itself, ``now`` the clock that the template sees, ``response`` the response template by which
    transformers reads this model's answers, where it ships one. A model without a template is a
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
    tokenizer: Path | None = field(default=None, repr=False)
    response: Mapping[str, Any] | None = field(default=None, repr=False)

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
    def from_server(cls, url: str, *, timeout: float = 10.0, now: datetime = PINNED_NOW) -> ChatTemplate:
        """The template that a running llama.cpp server uses; ``timeout`` in seconds.

        Raises :class:`~osport.errors.TemplateError` when the server does not tell it,
        :class:`~osport.errors.Unreachable` when there is no server.
        """
        return cls._of(read_server(url, timeout), None, now)

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
        return cls(
            source.pick(name), source.tokens, source.origin, source.adds_bos, now, source.tokenizer, source.response
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the template text, in hexadecimal."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def family(self) -> Family | None:
        """The family that the template belongs to by what stands in it; None when it is not known."""
        return family_of(self.text)

    @property
    def capabilities(self) -> TemplateCapabilities:
        """What the template can carry, probed once for each template and kept."""
        return _capabilities(self.text, tuple(sorted(self.tokens.items())), self.now)

    @property
    def writing(self) -> Family:
        """How the model writes its answers: by its family, else as renders of this template show it.

        ``name`` is empty where the family is not known.
        """
        return _writing(self.text, tuple(sorted(self.tokens.items())), self.now)

    def render(
        self,
        conversation: Turns,
        *,
        tools: Tools = (),
        thinking: Thinking = None,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> Rendered:
        """Render a conversation: a :class:`Conversation`, messages, or dictionaries as transformers takes them.

        ``tools`` and ``thinking`` win over those of the conversation. ``add_generation_prompt`` opens the
        model's turn; ``continue_final`` leaves the last message open instead, so that the model continues it.

        Raises :class:`~osport.errors.TemplateError` naming line and cause when the template does not compile
        or refuses the conversation, :class:`~osport.errors.UnsupportedFeature` for a way of thinking that the
        template cannot switch to, :class:`~osport.errors.UsageError` for what is no conversation.
        """
        if isinstance(conversation, Conversation):
            tools = tools or (conversation.tools if conversation.tool_choice != "none" else ())
            thinking = conversation.thinking if thinking is None else thinking
        messages, written_tools = wire_messages(conversation), wire_tools(tools)
        variables: dict[str, Any] = {}
        if thinking is not None:
            variables, word = self.capabilities.thinking.settings(thinking)
            if word:
                at = place_of_word(messages, word)
                messages[at] = {**messages[at], "content": f"{messages[at]['content']} {word}"}
        write: Callable[..., str] = functools.partial(
            self._write,
            add_generation_prompt=add_generation_prompt and not continue_final,
            continue_final=continue_final,
            **variables,
        )
        text = write(messages, written_tools, plain=is_plain(conversation) and not tools)

        def neutral(control: frozenset[str]) -> str | None:
            if not holds_one_of(messages, written_tools, control):
                return None
            return write(without(messages, control), without(written_tools, control))

        return Rendered(
            text,
            spans=lambda: find_spans(write, text, messages, written_tools),
            encode=None
            if self.tokenizer is None
            else functools.partial(encode, self.tokenizer, own_tokens(self), neutral),
        )

    def audit(self, conversation: Turns, *, tools: Tools = (), thinking: Thinking = None) -> Audit:
        """The canary and the lints over this very request; see :class:`Audit`."""
        return audits.audit(self, conversation, tools, thinking)

    def against_ollama(
        self, model: str, *, url: str = "http://127.0.0.1:11434", timeout: float = 10.0
    ) -> tuple[Finding, ...]:
        """Whether an Ollama server uses this template for ``model``, or has swapped it for one of its own.

        Asks ``/api/show``; ``timeout`` in seconds. Raises :class:`~osport.errors.Unreachable` when there is no
        server, :class:`~osport.errors.TemplateError` when it does not have the model.
        """
        return tuple(ollama.against_show(self, ollama.show(url, model, timeout)))

    def switches(self, thinking: Thinking, engine: engines.Engine) -> dict[str, Any]:
        """The fields of a chat request by which a server that templates itself brings this way of thinking about.

        ``engine``: ``llama.cpp``, ``vllm`` or ``ollama``, each with its own names; empty for ``thinking=None``.
        A switch that is a word in the text is no field: :meth:`prepare` has put it there.

        Raises :class:`~osport.errors.UnsupportedFeature` for what template or server cannot do.
        """
        return engines.switches(self, thinking, engine)

    def thought(self, prompt: str, thinking: Thinking = None) -> Thought | None:
        """The reasoning that the answer to a rendered prompt begins with; None where it begins with the answer.

        It is there when ``thinking`` asks for it, or the prompt ends with the mark that opens it.
        """
        return thought_before(self.writing, prompt, thinking)

    def parse(self, text: str, *, prompt: str = "", tools: Sequence[Tool] = ()) -> Answer:
        """Take an answer of this model apart: reasoning, content, tool calls.

        ``prompt`` is what was sent: a template may open the reasoning itself. ``tools`` gives the types of
        arguments to families that write every value as text. Raises :class:`~osport.errors.OutputError`, with
        the text, for a tool call that is begun and not well formed.
        """
        return read_answer(text, self.writing, prompt=prompt, tools=tools, response=self.response)

    def finish(self, completion: Completion, request: Request, sent: Request) -> Completion:
        """Take the answer to a raw prompt apart, as :meth:`parse` does: reasoning, content, tool calls.

        Calls are looked for where ``request`` offered tools; then ``finish_reason`` is ``tool_calls``. A server
        that templates by itself parses by itself; from its text only a closed pair of reasoning marks is taken.

        Raises :class:`~osport.errors.OutputError`, with the text and the completion, for a malformed call,
        :class:`~osport.errors.Truncated` where the answer was cut off inside it.
        """
        return stage.finish(self, completion, request, sent)

    def prepare(self, request: Request, capabilities: Capabilities) -> Request:
        """Turn messages into a raw prompt where the backend takes one; a trailing assistant message is a prefill.

        A backend that takes only messages applies the template of its own server, and gets them unchanged, but
        for a thinking switch that is a word in the text. Either way the request must come out whole:
        :class:`~osport.errors.TemplateError` says what the template would drop (``Conversation.adapt`` brings a
        request into a form that it keeps), and refuses a raw prompt in which anything of the request (text,
        reasoning, calls, tools) would forge a turn.
        """
        return stage.prepare(self, request, capabilities)

    def _write(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        return renderer.compiled(self.text, self.now)(messages, tools=tools, **{**self.tokens, **variables})


@functools.lru_cache(maxsize=256)
def _capabilities(text: str, tokens: tuple[tuple[str, str], ...], now: datetime) -> TemplateCapabilities:
    family = family_of(text)
    with renderer.in_time():
        return probe(text, _bound(text, tokens, now), family.ids if family else "")


@functools.lru_cache(maxsize=256)
def _writing(text: str, tokens: tuple[tuple[str, str], ...], now: datetime) -> Family:
    capabilities = _capabilities(text, tokens, now)
    with renderer.in_time():
        return read_writing(text, _bound(text, tokens, now), capabilities, family_of(text) or Family("", ()))


def _bound(text: str, tokens: tuple[tuple[str, str], ...], now: datetime) -> Callable[..., str]:
    return functools.partial(renderer.compiled(text, now), **dict(tokens))

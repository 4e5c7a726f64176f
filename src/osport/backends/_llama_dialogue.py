"""What a llama.cpp server is asked for one request, and what its answer must pass."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define, field

from osport.backends._answer_checks import (
    MOST_BYTES_A_TOKEN,
    check_model,
    check_prompt_tokens,
    could_be_cut,
    prompt_bytes,
)
from osport.backends._chat_checks import logprobs_there, with_calls
from osport.backends._chat_wire import ChatAnswer, wire_messages
from osport.backends._embedded_server import Settings, engine_name
from osport.backends._gguf_model import GgufModel
from osport.backends._llama_constraints import constraint_fields, enforcement_of, refuse_stop_strings
from osport.backends._llama_http import Ask, Asking
from osport.backends._llama_scores import scores_of, tokens_of
from osport.backends._llama_thoughts import chat_template, thinks_first, thought_of
from osport.backends._llama_wire import request_fields, tool_fields
from osport.backends._thought_text import ThoughtText
from osport.core.thought import Thought
from osport.core.types import Completion, ContinuationScore, Delta, Determinism, Request, Thinking
from osport.errors import (
    BackendError,
    BadRequest,
    BadResponse,
    ModelNotFound,
    TemplateError,
    UnsupportedFeature,
    UsageError,
)

__all__ = ["Call", "Dialogue", "takes_tools"]

NAME = "llama_server"
# Of the body; everything else stands in Completion.effective.
BULKY = ("prompt", "messages", "tools")


@define
class Call:
    """One request on its way, with its clock."""

    request: Request
    ask: Ask
    answer: ChatAnswer
    thought: Thought | None = None
    started: float = field(factory=time.perf_counter)
    first_text: float | None = None
    _behind: ThoughtText = field(init=False, default=Factory(lambda self: ThoughtText(self.thought), takes_self=True))

    @property
    def seconds(self) -> float:
        """Since the call began."""
        return time.perf_counter() - self.started

    def take(self, payload: Any) -> Delta | None:
        """Read one piece of the answer; a delta when there is new text in it."""
        text = self.answer.take(payload)
        if not text:
            return None
        self.first_text = self.first_text or self.seconds
        shown = self._behind.push(text)
        return Delta(shown) if shown else None


@define
class Dialogue:
    """With one server: the embedded one with its ``settings`` and ``gguf``, or one by URL without either.

    ``model`` is how errors call it.
    """

    model: str
    gguf: GgufModel | None
    settings: Settings | None
    prompt_cache: bool
    _names: tuple[str, ...] = ()
    _context: int | None = None

    def answer(self, request: Request) -> Asking[Completion]:
        """The whole answer to one request."""
        call = yield from self.prepared(request)
        for payload in (yield call.ask):
            call.answer.take(payload)
        return (yield from self.completed(call))

    def prepared(self, request: Request) -> Asking[Call]:
        """Route and body.

        The chat route repeats a prefill in its answer, some builds do not: so such a conversation is
        rendered by the server and sent back as a prompt, which is never repeated. So is one whose answer begins with
        a thought and goes on in a form.
        """
        refuse_stop_strings(request)
        started, answer = time.perf_counter(), ChatAnswer(NAME, request.logprobs or 0)
        prompt = None
        if not request.messages or request.messages[-1].role == "assistant" or thinks_first(self.gguf, request):
            prompt = yield from self._rendered(request)
        thought = thought_of(self.gguf, request, prompt)
        fields = constraint_fields(request.constraint, model=self.gguf, thought=thought)
        # The server sees that a client has gone when it writes to it, so it is to write while it reads the prompt too.
        streamed = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
        body = {**request_fields(request, prompt_cache=self.prompt_cache), **fields, **streamed}
        if prompt is None:
            chat = yield from self._chat_fields(request)
            ask = Ask("/v1/chat/completions", {**body, **chat}, streamed=True)
        else:
            ask = Ask("/v1/completions", {**body, "prompt": prompt}, streamed=True)
        return Call(request, ask, answer, thought, started)

    def _chat_fields(self, request: Request) -> Asking[dict[str, Any]]:
        """The conversation with everything that decides how the server renders it."""
        template = self._template() if self.gguf is not None else None
        tools = tool_fields(request)
        if template is None and (tools or request.thinking is not None):
            template = (yield from self.told("/props")).get("chat_template") or ""
        if tools and request.constraint is not None:
            raise UsageError("llama.cpp enforces a form or offers tools, not both in one request; leave one out")
        if tools and not takes_tools(template):
            raise UnsupportedFeature("tools", NAME, reason="the model's chat template writes none")
        thinking = thinking_fields(request.thinking, template or "")
        messages = wire_messages(NAME, request.messages, reasoning_as="reasoning_content")
        return {"messages": messages, **tools, **thinking}

    def _rendered(self, request: Request) -> Asking[str]:
        """The whole prompt as a text."""
        if request.prompt is not None:
            if request.thinking is not None:
                raise UnsupportedFeature("thinking", NAME, reason="a raw prompt holds what the template made of it")
            return request.prompt
        chat = yield from self._chat_fields(request)
        if "tools" in chat and request.messages[-1].role == "assistant":
            raise UnsupportedFeature("tools", NAME, reason="the answer to a prefill is not searched for calls")
        rendered = yield Ask("/apply-template", chat)
        try:
            return str(rendered["prompt"])
        except (KeyError, TypeError) as error:
            raise BadResponse(
                f"{NAME}: no 'prompt' in {str(rendered)[:200]}", backend=NAME, model=self.model
            ) from error

    def prompt_tokens(self, request: Request) -> Asking[list[int]]:
        """The prompt of a request as the server reads it."""
        prompt = yield from self._rendered(request)
        return (yield from tokens_of(prompt))

    def scores(self, request: Request, continuations: Sequence[str]) -> Asking[tuple[ContinuationScore, ...]]:
        """The score of each continuation of the request's prompt."""
        if request.constraint is not None or request.tools:
            raise UsageError("a continuation is scored as the model itself finds it: without a form and without tools")
        prompt = yield from self._rendered(request)
        cache = self.prompt_cache
        scores, model = yield from scores_of(prompt, continuations, prompt_cache=cache)
        yield from self._same_model(model)
        return scores

    def completed(self, call: Call) -> Asking[Completion]:
        """The completion, once the answer has passed its checks."""
        seconds = call.seconds
        answer, request = call.answer, call.request
        if answer.finish is None:
            raise BadResponse(f"{NAME}: the answer ended without a finish reason", backend=NAME, model=self.model)
        yield from self._same_model(answer.model)
        yield from self._whole_prompt(request, answer.usage.prompt_tokens)
        logprobs_there(request, answer.text, answer.logprobs, NAME, self.model)
        effective = {name: value for name, value in (call.ask.body or {}).items() if name not in BULKY}
        behind = ThoughtText(call.thought)
        behind.push(answer.text)
        completion = Completion(
            text=behind.shown,
            finish_reason=answer.finish,
            model=answer.model or self.model,
            backend=NAME,
            usage=answer.usage,
            reasoning=answer.reasoning if call.thought is None else behind.reasoning,
            enforcement=enforcement_of(
                request.constraint, engine=engine_name() if self.settings else "", thought=call.thought
            ),
            effective={"route": call.ask.path, **self._started_with(), **effective},
            latency=seconds,
            ttft=call.first_text,
            request_id=answer.request_id,
            logprobs=None if request.logprobs is None else tuple(answer.logprobs),
            logprobs_from=None if request.logprobs is None else "model",
            determinism=self._determinism,
        )
        return with_calls(answer, request, completion)

    @property
    def _determinism(self) -> Determinism:
        """Requests beside one another, and a cached prompt, change the last bits of logits."""
        alone = self.settings is not None and self.settings.slots == 1
        return "seeded" if alone and not self.prompt_cache else "best_effort"

    def _same_model(self, answered: str) -> Asking[None]:
        """A server by URL serves one model; another one behind the same URL would go on answering."""
        if self.settings is not None:
            check_model(self.settings.alias, answered, backend=NAME)
            return
        if not self._names:
            # Asked after the first answer, so that a server that cannot answer says so itself.
            listed = yield from self._asked("/v1/models")
            self._names = names_in(listed) or (answered,)
        check_model(self._names[0], answered, backend=NAME, aliases=self._names)

    def _whole_prompt(self, request: Request, reported: int | None) -> Asking[None]:
        """Whether the engine read all of the prompt, counted only where something could be missing."""
        texts = request.prompt.encode() if request.prompt is not None else b""
        length = len(texts) + prompt_bytes(request.messages)
        if self._context is None:
            known = self.settings.context if self.settings is not None else (yield from self._context_of_server())
            self._context = known
        if not could_be_cut(length, reported, context=self._context):
            return
        try:
            expected = len((yield from self.prompt_tokens(request)))
        except (BadRequest, BadResponse, ModelNotFound):
            # A server without these routes.
            expected = length // MOST_BYTES_A_TOKEN
        check_prompt_tokens(expected, reported, backend=NAME, model=self.model)

    def _context_of_server(self) -> Asking[int]:
        """Tokens; 0 when the server does not say, so that every prompt is counted."""
        props = yield from self._asked("/props")
        settings = props.get("default_generation_settings") if isinstance(props, Mapping) else None
        context = settings.get("n_ctx") if isinstance(settings, Mapping) else None
        return context if isinstance(context, int) else 0

    def _asked(self, path: str) -> Asking[Any]:
        """What a GET gives; None where the server has no such route."""
        try:
            return (yield Ask(path, None))
        except BackendError as error:
            if error.retryable:
                raise
            return None

    def told(self, path: str) -> Asking[Any]:
        """What the server says at this route."""
        return (yield Ask(path, None))

    def _started_with(self) -> dict[str, Any]:
        if self.settings is None:
            return {}
        settings = self.settings
        return {
            "context": settings.context,
            "slots": settings.slots,
            "threads": settings.threads,
            "gpu_layers": settings.gpu_layers,
        }

    def _template(self) -> str:
        # The server would fall back to ChatML for a model without a template, and answer 200.
        assert self.gguf is not None  # noqa: S101 - asked only for the embedded one
        if self.gguf.chat_template is None:
            raise TemplateError(
                f"{self.gguf.path} holds no chat template; send a raw prompt, or give Model a ChatTemplate"
            )
        return self.gguf.chat_template


def takes_tools(template: str | None) -> bool:
    """Whether a chat template reads tools; llama.cpp drops them in silence, even required ones, where it does not."""
    return bool(re.search(r"\btools\b", template or ""))


def thinking_fields(thinking: Thinking, template: str) -> dict[str, Any]:
    """The switch by the names of template and server. A budget is llama.cpp's own and needs no template for it.

    Raises :class:`~osport.errors.UnsupportedFeature` for what neither can do.
    """
    if thinking is None:
        return {}
    from osport.chat_template.engines import switches

    budget = isinstance(thinking, int) and not isinstance(thinking, bool)
    switch = thinking > 0 if budget else thinking  # type: ignore[operator]
    fields = switches(chat_template(template), switch, "llama.cpp")
    return {**fields, "thinking_budget_tokens": thinking} if budget and thinking else fields


def names_in(listed: Any) -> tuple[str, ...]:
    """The names of the one model in ``/v1/models``; none when it lists several, or is no such list."""
    try:
        (entry,) = listed["data"]
        return (str(entry["id"]), *(str(alias) for alias in entry.get("aliases") or ()))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()

"""vLLM by URL: its own field names, its tokenizer, its prompt log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from osport.backends._answer_checks import could_be_cut
from osport.backends._chat_wire import wire_messages
from osport.backends.openai_compat import OpenAICompatBackend
from osport.constrained.servers import dialect_of
from osport.core.deadline import Deadline
from osport.core.types import Thinking
from osport.errors import BadResponse, UnsupportedFeature
from osport.plugin import ContinuationScore, Message, Request, TokenLogprob

__all__ = ["VllmServer"]


class VllmServer(OpenAICompatBackend):
    """``vllm:NAME@http://host:port/v1``: a vLLM server that runs already, 0.12 or newer.

    The key in ``VLLM_API_KEY`` goes to the server in ``VLLM_BASE_URL``; for any other give ``api_key``, a callable
    that returns it. ``timeout`` of one call (600 s).
    """

    name = "vllm"
    extra = "vllm"
    key_variable = "VLLM_API_KEY"
    url_variable = "VLLM_BASE_URL"
    dialect = "vllm"
    sampling: Mapping[str, str] = {
        **OpenAICompatBackend.sampling,
        "top_k": "top_k",
        "min_p": "min_p",
        "repeat_penalty": "repetition_penalty",
    }
    always: Mapping[str, Any] = {"min_tokens": 0, "ignore_eos": False, "skip_special_tokens": True}
    prefill: Mapping[str, Any] | None = {"continue_final_message": True, "add_generation_prompt": False}
    thinking_by = "chat_template_kwargs"
    budget_field = "thinking_token_budget"
    reasoning_as = "reasoning"

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages, rendered and counted by the server itself."""
        with self._endpoint.key_hidden():
            return len(self._tokens(self._conversation(messages)))

    def score(self, request: Request, continuations: Sequence[str]) -> tuple[ContinuationScore, ...]:
        """Log-probabilities of the continuations, from the server's prompt log-probabilities.

        Prompt and continuation are tokenised apart and joined, as the model would have written the one after the
        other; every continuation is one request, of which the server computes the prompt once.
        """
        with self._endpoint.key_hidden(), self._deadline(request).applied():
            prompt = self._prompt_tokens(request)
            return tuple(self._scored(prompt, text) for text in continuations)

    def thinking_fields(self, thinking: Thinking) -> dict[str, Any]:
        """The switch of the template; a template without one is found out and refused, for vLLM would ignore it."""
        fields = super().thinking_fields(thinking)
        if "chat_template_kwargs" in fields and not self._has_switch:
            raise UnsupportedFeature("thinking", self.name, reason="the model's template has no switch for it")
        return fields

    def constraint_fields(self, request: Request) -> dict[str, Any]:
        """``structured_outputs``; a server that knows the field by an older name only would drop it."""
        if request.constraint is None:
            return {}
        return dialect_of(self.dialect, self._version).fields(request.constraint)

    def exact_prompt_tokens(self, request: Request, reported: int) -> int | None:
        """Counted by the server's tokenizer where the prompt has more bytes than the context has tokens."""
        texts = [request.prompt] if request.prompt is not None else [message.content for message in request.messages]
        if not could_be_cut(sum(len(text.encode()) for text in texts), reported, context=self._context):
            return None
        return len(self._prompt_tokens(request))

    @cached_property
    def _context(self) -> int | None:
        length = self._listed().get("max_model_len")
        return length if isinstance(length, int) else None

    @cached_property
    def _version(self) -> str:
        answer = self._http.get(self._endpoint, "/version", deadline=Deadline.after(self._timeout))
        try:
            return str(answer["version"])
        except (KeyError, TypeError) as error:
            raise BadResponse(f"{self.name}: {self._endpoint.url}/version is not that of a vLLM server") from error

    @cached_property
    def _has_switch(self) -> bool:
        """Whether the prompt changes with the switch."""
        ask = self._conversation([Message.user("?")])
        both = [self._tokens({**ask, **super(VllmServer, self).thinking_fields(on)}) for on in (True, False)]
        return both[0] != both[1]

    def _engine(self, entry: Mapping[str, Any]) -> str:
        return f"vLLM {self._version}"

    def _conversation(self, messages: Sequence[Message]) -> dict[str, Any]:
        going_on = bool(messages) and messages[-1].role == "assistant"
        turns = wire_messages(self.name, messages, reasoning_as=self.reasoning_as)
        return {"messages": turns, **((self.prefill or {}) if going_on else {"add_generation_prompt": True})}

    def _prompt_tokens(self, request: Request) -> list[int]:
        if request.prompt is not None:
            return self._tokens({"prompt": request.prompt, "add_special_tokens": True})
        return self._tokens({**self._conversation(request.messages), **self.thinking_fields(request.thinking)})

    def _tokens(self, text: Mapping[str, Any]) -> list[int]:
        body = {"model": self.model, **text}
        answer = self._http.post(self._endpoint, "/tokenize", body, deadline=Deadline.after(self._timeout))
        try:
            return [int(token) for token in answer["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._no_vllm("/tokenize", answer) from error

    def _scored(self, prompt: list[int], continuation: str) -> ContinuationScore:
        tokens = self._tokens({"prompt": continuation, "add_special_tokens": False})
        body = {
            "model": self.model,
            "prompt": [*prompt, *tokens],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
            "echo": False,
        }
        path = f"{self._routes}/completions"
        answer = self._http.post(self._endpoint, path, body, deadline=Deadline.after(self._timeout))
        try:
            places = answer["choices"][0]["prompt_logprobs"][len(prompt) :]
            found = [place[str(token)] for place, token in zip(places, tokens, strict=True)]
            scored = tuple(TokenLogprob(str(one["decoded_token"]), float(one["logprob"])) for one in found)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._no_vllm(f"{path} with prompt_logprobs", answer) from error
        if not all(math.isfinite(one.logprob) for one in scored):
            raise self._no_vllm(f"{path} with prompt_logprobs", answer)
        return ContinuationScore(continuation, scored)

    def _no_vllm(self, path: str, answer: Any) -> BadResponse:
        return BadResponse(f"{self.name}: {path} is not that of a vLLM server: {str(answer)[:200]}", backend=self.name)

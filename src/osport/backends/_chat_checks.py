"""What an answer of an OpenAI-like server must show before it is handed on."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from osport.backends._answer_checks import MOST_BYTES_A_TOKEN, check_model, check_prompt_tokens
from osport.backends._chat_wire import ChatAnswer
from osport.core.types import Completion, Request, TokenLogprob, ToolCall
from osport.errors import BadResponse, OutputError, Truncated, UnsupportedFeature

__all__ = ["fewest_tokens", "logprobs_there", "same_model", "thinking_heeded", "tool_calls", "whole", "whole_prompt"]

# gpt-4o answers as gpt-4o-2024-08-06: the same model by its longer name.
DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest)")


def whole(answer: ChatAnswer, backend: str, model: str, *, usage: bool) -> None:
    """Raise :class:`~osport.errors.BadResponse` for an answer without an end, or without token counts."""
    if answer.finish is None:
        raise BadResponse(f"{backend}: the answer ended without a finish reason", backend=backend, model=model)
    if usage and (answer.usage.prompt_tokens is None or answer.usage.completion_tokens is None):
        what = "the answer came without usage, so nobody can see whether the prompt was cut"
        raise BadResponse(f"{backend}: {what}", backend=backend, model=model)


def same_model(answer: ChatAnswer, backend: str, model: str, *, aliases: Collection[str] = ()) -> None:
    """Raise :class:`~osport.errors.BadResponse` when another model answered; the dated name is the same model."""
    if not (answer.model.startswith(model) and DATED.fullmatch(answer.model[len(model) :])):
        check_model(model, answer.model, backend=backend, aliases=aliases)


def whole_prompt(answer: ChatAnswer, request: Request, backend: str, model: str, exact: int | None) -> None:
    """Raise :class:`~osport.errors.ContextOverflow` when the server read less than the prompt has."""
    expected = fewest_tokens(request) if exact is None else exact
    check_prompt_tokens(expected, answer.usage.prompt_tokens, backend=backend, model=model)


def fewest_tokens(request: Request) -> int:
    """A lower bound that needs no tokenizer: none makes one token of two words, or of more than so many bytes."""
    texts = [request.prompt] if request.prompt is not None else [message.content for message in request.messages]
    words = sum(len(text.split()) for text in texts)
    return max(words, sum(len(text.encode()) for text in texts) // MOST_BYTES_A_TOKEN)


def logprobs_there(request: Request, text: str, logprobs: Sequence[TokenLogprob], backend: str, model: str) -> None:
    """Raise :class:`~osport.errors.BadResponse` when log-probabilities were asked for and none came."""
    if request.logprobs is not None and text and not logprobs:
        what = "log-probabilities were asked for and none came: the server ignores logprobs"
        raise BadResponse(f"{backend}: {what}", backend=backend, model=model)


def thinking_heeded(answer: ChatAnswer, request: Request, backend: str) -> None:
    """Raise :class:`~osport.errors.UnsupportedFeature` when the thinking switch shows no effect in the answer.

    A server that counts reasoning tokens may say 0: then the model was free to think, and did not.
    """
    if request.thinking is None:
        return
    counted = answer.usage.reasoning_tokens
    if not request.thinking and (answer.reasoning or counted):
        raise UnsupportedFeature("thinking switched off", backend, reason="the model reasoned nevertheless")
    if request.thinking and counted is None and not answer.reasoning and answer.finish != "length":
        reason = "the answer brought no reasoning: the model has none, or its server does not tell it apart"
        raise UnsupportedFeature("thinking", backend, reason=reason)


def tool_calls(answer: ChatAnswer, request: Request, completion: Completion) -> tuple[ToolCall, ...]:
    """The calls, as they were asked for.

    Raises :class:`~osport.errors.OutputError` for arguments that are no JSON object (cut off:
    :class:`~osport.errors.Truncated`), :class:`~osport.errors.BadResponse` when the choice of tools was ignored.
    """
    try:
        calls = answer.tool_calls.calls()
    except OutputError as error:
        if answer.finish == "length":
            raise Truncated("a tool call was cut off; raise max_tokens", completion) from error
        raise OutputError(str(error), completion) from error
    ignored = ""
    if request.tools and answer.finish not in ("length", "refusal"):
        wanted = request.tool_choice
        if wanted == "none" and calls:
            ignored = f"called {calls[0].name!r}"
        elif wanted == "required" and not calls:
            ignored = "called none"
        elif wanted not in ("auto", "none", "required") and {call.name for call in calls} != {wanted}:
            ignored = f"called {', '.join(call.name for call in calls) or 'none'}"
        if not request.parallel_tools and len(calls) > 1:
            ignored = f"called {len(calls)} at once, though parallel_tools is False"
    if ignored:
        raise BadResponse(
            f"{answer.backend}: tool_choice={request.tool_choice!r} was ignored: the model {ignored}",
            backend=answer.backend,
            model=answer.model,
        )
    return calls

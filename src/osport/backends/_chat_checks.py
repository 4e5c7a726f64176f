"""What an answer of an OpenAI-like server must show before it is handed on."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence

from attrs import evolve

from osport.backends._answer_checks import MOST_BYTES_A_TOKEN, check_model, check_prompt_tokens
from osport.backends._chat_wire import ChatAnswer
from osport.chat_template.families import families
from osport.core.types import Completion, FinishReason, Request, TokenLogprob
from osport.errors import BadResponse, OutputError, Truncated, UnsupportedFeature

__all__ = ["fewest_tokens", "logprobs_there", "same_model", "thinking_heeded", "whole", "whole_prompt", "with_calls"]

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
    in_text = answer.text.lstrip().startswith(_marks_of_thoughts())
    if not request.thinking and (answer.reasoning or counted or in_text):
        raise UnsupportedFeature("thinking switched off", backend, reason="the model reasoned nevertheless")
    if request.thinking and counted is None and not answer.reasoning and answer.finish != "length":
        reason = "the answer brought no reasoning: the model has none, or its server does not tell it apart"
        raise UnsupportedFeature("thinking", backend, reason=reason)


@functools.cache
def _marks_of_thoughts() -> tuple[str, ...]:
    return tuple({family.reasoning[0].strip() for family in families() if family.reasoning})


def with_calls(answer: ChatAnswer, request: Request, completion: Completion) -> Completion:
    """The completion with the tool calls of its answer, if they are such as were asked for.

    Raises :class:`~osport.errors.OutputError` for a call of a tool that was not offered and for arguments that are
    no JSON object (cut off: :class:`~osport.errors.Truncated`), :class:`~osport.errors.BadResponse` when what the
    request says of the calls was ignored.
    """
    try:
        calls = answer.tool_calls.calls()
    except OutputError as error:
        if answer.finish == "length":
            raise Truncated("a tool call was cut off; raise max_tokens", completion) from error
        raise OutputError(str(error), completion) from error
    if calls:
        finish: FinishReason = "length" if answer.finish == "length" else "tool_calls"
        completion = evolve(completion, tool_calls=calls, finish_reason=finish)
    names = [call.name for call in calls]
    if unknown := set(names) - {tool.name for tool in request.tools}:
        raise OutputError(f"the model called {min(unknown)!r}, which is none of the tools", completion)
    if ignored := _ignored(request, names, ended=answer.finish not in ("length", "refusal")):
        raise BadResponse(f"{answer.backend}: {ignored}", backend=answer.backend, model=answer.model)
    return completion


def _ignored(request: Request, names: Sequence[str], *, ended: bool) -> str:
    """Which wish for calls was ignored, and how; an answer that was cut off may lack them."""
    if not request.tools:
        return ""
    wanted, called = request.tool_choice, ", ".join(names) or "none"
    if wanted == "none":
        heeded = not names
    elif wanted == "auto":
        heeded = True
    else:
        heeded = (bool(names) or not ended) and (wanted == "required" or set(names) <= {wanted})
    if not heeded:
        return f"tool_choice={wanted!r} was ignored: the model called {called}"
    if not request.parallel_tools and len(names) > 1:
        return f"parallel_tools=False was ignored: the model called {called} at once"
    return ""

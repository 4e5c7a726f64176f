"""Log-probabilities of given continuations from a llama.cpp server.

The server reports a token's log-probability as the model gave it, before bias, mask, temperature and filters;
so each token of a continuation is forced by a bias that nothing outweighs, and read. Continuations that begin
alike share their first tokens, and the likeliest tokens of a place come with any one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osport.backends._llama_http import Ask, Asking
from osport.backends._llama_wire import sampling_fields
from osport.core.types import ContinuationScore, Sampling, TokenLogprob
from osport.errors import BadResponse, UsageError

__all__ = ["scores_of", "tokens_of"]

FORCED = 1000.0
# Of a place; the server has sorted them anyway, and they often hold the other continuations.
LIKELIEST = 100


def tokens_of(text: str) -> Asking[list[int]]:
    """The tokens of a whole prompt, special ones as such, BOS where the model wants one."""
    body = {"content": text, "add_special": True, "parse_special": True}
    answer = yield Ask("/tokenize", body)
    try:
        return [int(token) for token in answer["tokens"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BadResponse(f"llama_server: not tokens: {str(answer)[:200]}", backend="llama_server") from error


def scores_of(
    prompt: str, continuations: Sequence[str], *, prompt_cache: bool
) -> Asking[tuple[tuple[ContinuationScore, ...], str]]:
    """The score of each continuation after the prompt, in order, and the name of the model that answered."""
    before = yield from tokens_of(prompt)
    known: dict[tuple[int, ...], dict[int, TokenLogprob]] = {}
    model = ""
    scores: list[ContinuationScore] = []
    for text in continuations:
        after = yield from _tokens_after(prompt, before, text)
        for place, token in enumerate(after):
            so_far = tuple(after[:place])
            if token not in known.setdefault(so_far, {}):
                forced = _forced([*before, *so_far], token, prompt_cache)
                answer = yield Ask("/completion", forced)
                known[so_far] |= _read(answer, token, len(before) + place)
                model = answer.get("model") or model
        tokens = tuple(known[tuple(after[:place])][token] for place, token in enumerate(after))
        scores.append(ContinuationScore(text, tokens))
    return tuple(scores), model


def _tokens_after(prompt: str, before: list[int], text: str) -> Asking[list[int]]:
    """The tokens that follow those of the prompt, as the model would write the text."""
    if not text:
        raise UsageError("an empty continuation has no probability; give a text")
    whole = yield from tokens_of(prompt + text)
    if whole[: len(before)] == before:
        return whole[len(before) :]
    # Prompt and text share a token where they meet. The model has read the prompt's own tokens by then.
    body = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
    answer = yield Ask("/tokenize", body)
    try:
        pieces = b"".join(_bytes(token["piece"]) for token in answer["tokens"])
        if pieces == text.encode():
            return [int(token["id"]) for token in answer["tokens"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BadResponse(f"llama_server: not tokens: {str(answer)[:200]}", backend="llama_server") from error
    raise UsageError(
        f"{text!r} cannot be scored behind a prompt that ends in {prompt[-12:]!r}: the tokenizer joins the two; "
        "move the space between them from the prompt into the continuation, or the other way round"
    )


def _bytes(piece: Any) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def _forced(tokens: list[int], token: int, prompt_cache: bool) -> dict[str, Any]:
    return {
        **sampling_fields(Sampling(max_tokens=1), prompt_cache=prompt_cache),
        "prompt": tokens,
        "n_probs": LIKELIEST,
        "logit_bias": [[token, FORCED]],
    }


def _read(answer: Any, token: int, prompt_tokens: int) -> Mapping[int, TokenLogprob]:
    """The tokens of the place by id, the forced one among them."""
    try:
        chosen = answer["completion_probabilities"][0]
        found = {
            int(entry["id"]): TokenLogprob(entry["token"], min(0.0, float(entry["logprob"])))
            for entry in (*chosen["top_logprobs"], chosen)
        }
        read = answer.get("tokens_evaluated", prompt_tokens)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadResponse(
            f"llama_server: no log-probabilities in {str(answer)[:200]}", backend="llama_server"
        ) from error
    if int(chosen["id"]) != token or read != prompt_tokens:
        raise BadResponse(
            f"llama_server: token {token} was asked for behind {prompt_tokens} tokens, and token {chosen['id']} "
            f"came behind {read}",
            backend="llama_server",
        )
    return found

"""llama.cpp's HTTP dialect: our request as its JSON."""

from __future__ import annotations

from typing import Any

from osport.backends._chat_wire import wire_tools
from osport.core.types import Request, Sampling
from osport.errors import UsageError

__all__ = ["request_fields", "sampling_fields", "tool_fields"]

# Samplers and habits of the engine that osport has no parameter for, each switched off or pinned,
# so that nothing depends on how a server was started. penalties look back this many tokens.
PINNED: dict[str, Any] = {
    "samplers": ["penalties", "top_k", "top_p", "min_p", "temperature"],
    "repeat_last_n": 64,
    "typical_p": 1.0,
    "top_n_sigma": -1.0,
    "dynatemp_range": 0.0,
    "xtc_probability": 0.0,
    "dry_multiplier": 0.0,
    "mirostat": 0,
    "min_keep": 0,
    "n_keep": 0,
    "n_probs": 0,
    "post_sampling_probs": False,
    "logit_bias": [],
    "ignore_eos": False,
    "reasoning_format": "deepseek",
}


def request_fields(request: Request, *, prompt_cache: bool) -> dict[str, Any]:
    """What the body says beside the prompt, the form and the tools."""
    fields = sampling_fields(request.sampling, prompt_cache=prompt_cache)
    if request.logprobs is not None:
        # 0 would switch them off; the chosen token alone comes with its likeliest rival, which is dropped again.
        fields["n_probs"] = max(1, request.logprobs)
    return fields


def sampling_fields(sampling: Sampling, *, prompt_cache: bool) -> dict[str, Any]:
    """Every sampling parameter by the server's own name, none left to its default."""
    full = sampling.filled()
    return {
        "max_tokens": full.max_tokens,
        "temperature": full.temperature,
        "top_p": full.top_p,
        "top_k": full.top_k,
        "min_p": full.min_p,
        "repeat_penalty": full.repeat_penalty,
        "presence_penalty": full.presence_penalty,
        "frequency_penalty": full.frequency_penalty,
        "seed": full.seed,
        "stop": list(full.stop or ()),
        **PINNED,
        "cache_prompt": prompt_cache,
    }


def tool_fields(request: Request) -> dict[str, Any]:
    """Tools by the server's own names.

    The server does not enforce a tool chosen by name: it is offered alone, and a call of it required.
    Raises :class:`~osport.errors.UsageError` for a name that no tool has.
    """
    if not request.tools or request.tool_choice == "none":
        return {}
    choice, tools = request.tool_choice, request.tools
    if choice not in ("auto", "required"):
        tools = tuple(tool for tool in tools if tool.name == choice)
        if not tools:
            raise UsageError(f"tool_choice={choice!r}: there is no such tool")
        choice = "required"
    return {
        "tools": wire_tools(tools),
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tools,
    }

"""What one backend can do with one loaded model, and the check of a request against it."""

from __future__ import annotations

from attrs import evolve, fields, frozen

from osport.core.types import Request, Sampling
from osport.errors import UnsupportedFeature

__all__ = ["ALL_SAMPLING", "THINKING_FIRST", "Capabilities", "negotiate", "refuse_engine"]

ALL_SAMPLING = frozenset(f.name for f in fields(Sampling))
THINKING_FIRST = "thinking before a constrained answer"
"""What ``UnsupportedFeature`` calls it."""


@frozen
class Capabilities:
    """What a backend does *exactly*; what is not listed is refused, never dropped.

    ``sampling``: the parameters that reach the engine. ``constraints``: the kinds that it enforces.
    ``constraint_engine``: who enforces them, which decides what a JSON Schema may contain
    (``llguidance``, ``llama.cpp-gbnf``, or a name of the backend's own). ``constraint_engines``: all that a
    caller may ask for instead, as ``Constraint.engine``; the default is always one of them.
    ``enforced_by``: the label that a constrained answer of this backend carries.
    ``constrained_thinking``: whether a model may reason first, freely or within ``Request.thought``, and the form
    holds behind that; the reasoning comes back apart from the text.
    ``score``: whether ``Backend.score`` gives log-probabilities of given continuations. ``batch``: whether
    ``Backend.batch`` is the engine's own, better than many calls at once.
    """

    chat: bool = True
    raw_prompt: bool = False
    prefill: bool = False
    stream: bool = False
    count_tokens: bool = False
    sampling: frozenset[str] = ALL_SAMPLING
    constraints: frozenset[str] = frozenset()
    constraint_engine: str = ""
    constraint_engines: frozenset[str] = frozenset()
    enforced_by: str = "none"
    tools: bool = False
    thinking: bool = False
    constrained_thinking: bool = False
    images: bool = False
    logprobs: bool = False
    score: bool = False
    batch: bool = False


def refuse_engine(engine: str, capabilities: Capabilities, backend: str) -> None:
    """Raise :class:`~osport.errors.UnsupportedFeature` for an engine that the backend cannot use."""
    able = sorted(capabilities.constraint_engines | {capabilities.constraint_engine} - {""})
    if engine not in able:
        raise UnsupportedFeature(f"the engine {engine}", backend, reason=f"it has {', '.join(able) or 'none'}")


def negotiate(request: Request, capabilities: Capabilities, *, backend: str, stream: bool = False) -> Request:
    """Refuse what the backend cannot do; fill in every sampling parameter that it can.

    Raises :class:`~osport.errors.UnsupportedFeature` for the first thing that would be lost; its
    ``feature`` is a name from ``Backend.features``.
    """
    last = request.messages[-1] if request.messages else None
    needs = (
        ("chat", bool(request.messages), capabilities.chat),
        ("raw_prompt", request.prompt is not None, capabilities.raw_prompt),
        ("prefill", last is not None and last.role == "assistant", capabilities.prefill),
        (
            "tools",
            bool(request.tools) or any(m.tool_calls or m.role == "tool" for m in request.messages),
            capabilities.tools,
        ),
        ("thinking", request.thinking is not None, capabilities.thinking),
        ("images", any(m.images for m in request.messages), capabilities.images),
        ("logprobs", request.logprobs is not None, capabilities.logprobs),
        ("stream", stream, capabilities.stream),
    )
    for feature, asked, able in needs:
        if asked and not able:
            raise UnsupportedFeature(feature, backend)
    for name, value in request.sampling.given.items():
        if name not in capabilities.sampling:
            raise UnsupportedFeature(name, backend, reason=f"{name}={value!r} would not reach the engine")
    constraint = request.constraint
    if constraint is not None and constraint.kind not in capabilities.constraints:
        raise UnsupportedFeature(constraint.kind, backend, reason="the form could not be enforced")
    if constraint is not None and constraint.engine not in {None, capabilities.constraint_engine}:
        refuse_engine(constraint.engine or "", capabilities, backend)
    if constraint is not None and request.thought is not None and not capabilities.constrained_thinking:
        raise UnsupportedFeature(THINKING_FIRST, backend, reason="the form would hold from the first token on")
    full = request.sampling.filled()
    unsendable = dict.fromkeys(ALL_SAMPLING - capabilities.sampling)
    return evolve(request, sampling=evolve(full, **unsendable))

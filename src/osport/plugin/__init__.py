"""What the author of a backend imports.

>>> from osport.plugin import Backend, Completion, Request
>>> class Shout(Backend):
...     def generate(self, request: Request) -> Completion:
...         return Completion(request.messages[-1].content.upper(), "stop")
"""

from __future__ import annotations

from osport.core.capabilities import ALL_SAMPLING, Capabilities
from osport.core.facts import Fact, ModelFacts
from osport.core.thought import Thought
from osport.core.types import (
    Completion,
    Constraint,
    ContinuationScore,
    Delta,
    Enforcement,
    Message,
    Request,
    Sampling,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)
from osport.plugin.backend import Backend, BackendSpec
from osport.plugin.hookspecs import CallRecord, ModelRef, ScorerSpec, hookimpl

__all__ = [
    "ALL_SAMPLING",
    "Backend",
    "BackendSpec",
    "CallRecord",
    "Capabilities",
    "Completion",
    "Constraint",
    "ContinuationScore",
    "Delta",
    "Enforcement",
    "Fact",
    "Message",
    "ModelFacts",
    "ModelRef",
    "Request",
    "Sampling",
    "ScorerSpec",
    "Thought",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "Usage",
    "hookimpl",
    "register",
]


def register(spec: BackendSpec) -> None:
    """Offer a backend for this process: for notebooks and tests, where nothing is installed.

    Registering a name again replaces what was registered under it before; a name that an
    installed package uses is a :class:`~osport.errors.PluginConflict`.
    """
    from osport.plugin.registry import registry

    registry().register(spec)

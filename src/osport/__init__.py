"""osport: take one task off a closed model and put it on an open-weight model, with data instead of faith.

The names below are loaded when they are first used; ``import osport`` itself loads no engine and no plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osport.chat_template import ChatTemplate as ChatTemplate
    from osport.chat_template import Conversation as Conversation
    from osport.classify import Classification as Classification
    from osport.constrained import ConstrainedOutput as ConstrainedOutput
    from osport.core.call_form import CallForm as CallForm
    from osport.core.capabilities import Capabilities as Capabilities
    from osport.core.facts import ModelFacts as ModelFacts
    from osport.core.retries import Retries as Retries
    from osport.core.types import Completion as Completion
    from osport.core.types import Delta as Delta
    from osport.core.types import Enforcement as Enforcement
    from osport.core.types import Message as Message
    from osport.core.types import Request as Request
    from osport.core.types import Sampling as Sampling
    from osport.core.types import Tool as Tool
    from osport.core.types import ToolCall as ToolCall
    from osport.core.types import Usage as Usage
    from osport.evals import GoldenSet as GoldenSet
    from osport.licenses import LicensePolicy as LicensePolicy
    from osport.licenses import Use as Use
    from osport.model import Model as Model
    from osport.port import Port as Port
    from osport.probing import probe_constraints as probe_constraints
    from osport.store import pull_model as pull_model
    from osport.vram import Device as Device
    from osport.vram import VramBudget as VramBudget

__version__ = "0.1.0"

_HOMES = {
    "CallForm": "osport.core.call_form",
    "Capabilities": "osport.core.capabilities",
    "ChatTemplate": "osport.chat_template",
    "Classification": "osport.classify",
    "Completion": "osport.core.types",
    "ConstrainedOutput": "osport.constrained",
    "Conversation": "osport.chat_template",
    "Delta": "osport.core.types",
    "Device": "osport.vram",
    "Enforcement": "osport.core.types",
    "GoldenSet": "osport.evals",
    "LicensePolicy": "osport.licenses",
    "Message": "osport.core.types",
    "Model": "osport.model",
    "ModelFacts": "osport.core.facts",
    "Port": "osport.port",
    "Request": "osport.core.types",
    "Retries": "osport.core.retries",
    "Sampling": "osport.core.types",
    "Tool": "osport.core.types",
    "ToolCall": "osport.core.types",
    "Usage": "osport.core.types",
    "Use": "osport.licenses",
    "VramBudget": "osport.vram",
    "probe_constraints": "osport.probing",
    "pull_model": "osport.store",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

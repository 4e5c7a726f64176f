"""The options of the llama.cpp server, checked: of the embedded engine, or of a server by URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from osport.backends._embedded_server import Settings
from osport.backends._gguf_model import GgufModel
from osport.backends._options import check_number, check_seconds, default_threads
from osport.errors import UsageError

__all__ = ["checked_url", "key_of", "settings_of"]

NAME = "llama_server"
KEY_VARIABLE = "LLAMA_API_KEY"
# Of the embedded engine's options; context and threads depend on the model and the machine.
DEFAULTS: dict[str, object] = {"slots": 1, "port": 0, "startup_timeout": 120.0}


def settings_of(gguf: GgufModel, options: Mapping[str, Any]) -> Settings:
    """The embedded engine's settings, checked, with osport's defaults for what is None."""
    value = {name: DEFAULTS.get(name) if given is None else given for name, given in options.items()}
    layers = value["gpu_layers"]
    return Settings(
        path=gguf.path,
        alias=gguf.name,
        context=gguf.checked_context(value["context"], backend=NAME),
        slots=check_number(NAME, "slots", value["slots"], at_least=1),
        threads=check_number(
            NAME, "threads", default_threads() if value["threads"] is None else value["threads"], at_least=1
        ),
        gpu_layers=None if layers is None else check_number(NAME, "gpu_layers", layers, at_least=-1),
        port=check_number(NAME, "port", value["port"], at_least=0, at_most=65535),
        startup_timeout=check_seconds(NAME, "startup_timeout", value["startup_timeout"]),
    )


def checked_url(url: str) -> str:
    """The base of all routes. The key never stands in a URL, for URLs stand in messages and records."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise UsageError(f"{NAME}: no credentials in the URL; put the key into {KEY_VARIABLE} or give api_key")
    try:
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0) and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{NAME}: {url!r} is not the URL of a server; write http://host:port")
    return url.rstrip("/").removesuffix("/v1")


def key_of(api_key: Callable[[], str] | None) -> str | None:
    if api_key is None:
        return os.environ.get(KEY_VARIABLE) or None
    if not callable(api_key):
        raise UsageError(f"{NAME}: api_key must be a callable that returns the key, so that no key stands in code")
    return api_key()

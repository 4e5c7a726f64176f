"""The options of the llama.cpp server, checked: of the embedded engine, or of a server by URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from osport.backends._embedded_server import Settings
from osport.backends._gguf_model import GgufModel
from osport.backends._http_client import Endpoint
from osport.backends._options import check_number, check_seconds, default_threads
from osport.backends._servers import ApiKey, endpoint_of, server_url

__all__ = ["remote_endpoint", "settings_of"]

NAME = "llama_server"
KEY_VARIABLE = "LLAMA_API_KEY"
URL_VARIABLE = "LLAMA_BASE_URL"
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


def remote_endpoint(url: str, api_key: ApiKey | None) -> Endpoint:
    """A server that runs already, with the key that may go there."""
    return endpoint_of(
        NAME,
        server_url(NAME, url),
        api_key=api_key,
        key_variable=KEY_VARIABLE,
        url_variable=URL_VARIABLE,
        named=os.environ.get(URL_VARIABLE) or None,
        vendor=None,
    )

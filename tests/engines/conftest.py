"""The real model that the engine tests run on, and one embedded server for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from osport import store
from osport.backends.llama_server import LlamaServerBackend


@pytest.fixture(scope="session")
def model_path() -> Path:
    """``OSPORT_TEST_MODEL``, or the pulled catalogue model; without either the tests fail with the pull command."""
    named = os.environ.get("OSPORT_TEST_MODEL")
    return Path(named) if named else store.model_path("smollm2-135m")


@pytest.fixture(scope="session")
def server(model_path: Path) -> Iterator[LlamaServerBackend]:
    with LlamaServerBackend(str(model_path), context=1024, threads=1, slots=2) as backend:
        yield backend
